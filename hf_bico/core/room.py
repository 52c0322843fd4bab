"""Rows for tokens that were added to a vocabulary."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Room:
    """Where embeddings have rows for tokens that were added to a vocabulary."""

    count: int
    """How many rows there will be."""
    places: tuple[int, ...]
    """Those of the added tokens."""
    known: tuple[int, ...]
    """Those of the tokens that were there before."""

    def made(self, rows: Tensor) -> Tensor:
        """Return rows (n, …) as (count, …): the added ones, and all behind the n-th, are the mean of the known.

        A row that nothing was learnt of starts at the mean, as embeddings that are resized do; so the change of an
        added token is what its row is beyond its base's mean, and moves as any other.
        """
        wide = rows.to(torch.promote_types(rows.dtype, torch.float32))
        mean = wide[torch.tensor(self.known, dtype=torch.long, device=rows.device)].mean(0).to(rows.dtype)
        made = mean.expand(self.count, *mean.shape).clone()
        kept = min(len(rows), self.count)
        made[:kept] = rows[:kept]
        made[torch.tensor(self.places, dtype=torch.long, device=rows.device)] = mean
        return made
