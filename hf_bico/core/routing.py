"""Which of a batch's rows an expert of a mixture is given, followed through the model's own code."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hf_bico.core.errors import PortError
from hf_bico.core.types import Site


class Picked(NamedTuple):
    """Some of a batch's rows: those of the numbers `at` (m,), of `total`."""

    at: Tensor
    total: int

    def spread(self, rows: Tensor) -> Tensor:
        """Return rows (m, d) where they are in the batch, (total, d); the others are zero."""
        return rows.new_zeros(self.total, rows.shape[-1]).index_copy_(0, self.at, rows)


class Routing:
    """Remembers which rows were taken out of a batch, and which of them each expert reads.

    The code that runs experts one after the other takes an expert's rows by their numbers (`x[index]`), passes them
    through the expert's maps up, and what those give through its map down.
    """

    def __init__(self) -> None:
        self.taken: dict[int, tuple[Tensor, Picked]] = {}
        """id of the rows → they themselves, so that the id stays theirs, and which they are."""
        self.inside: dict[str, Picked] = {}
        """Name of an expert's hidden coordinates → the rows that it was given."""
        self.read: tuple[str, Tensor] | None = None
        """The space that a router read last, and the rows."""
        self.last: tuple[Tensor, Tensor] | None = None
        """The tensor that was given in another dtype last, and what it was."""

    def cast(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Do what a call of `CASTS` does, and remember it: routers read rows in a dtype of their own."""
        made = func(*args, **kwargs)
        self.last = made, args[0]
        return made

    def uncast(self, x: Tensor) -> Tensor:
        """Return rows as they were before they were given in another dtype, if that was the last thing to be."""
        return self.last[1] if self.last is not None and self.last[0] is x and self.last[1].requires_grad else x

    def follow(self, func: Callable[..., Any], made: Any, args: tuple[Any, ...]) -> None:
        """Remember what a call took out of a batch, or gave another shape."""
        if func is Tensor.__getitem__:
            index = args[1][-1] if isinstance(args[1], tuple) and args[1][:-1] == (None,) else args[1]
            if isinstance(index, Tensor) and index.dtype == torch.int64 and index.ndim == 1 and args[0].ndim == 2:
                self.taken[id(made)] = made, Picked(index, len(args[0]))
        elif args and id(args[0]) in self.taken and made.shape[-1] == args[0].shape[-1]:
            self.taken[id(made)] = made, self.taken[id(args[0])][1]

    def rows_of(self, sites: Sequence[Site], x: Tensor) -> Picked:
        """Return which rows of the batch those are that an expert's maps read.

        Raises:
            PortError: the model's code takes them in a way that is not followed, or changes what the router reads.
        """
        down = sites[0].hidden_in
        found = self.inside.get(down.name) if down else self.taken.get(id(x), (x, None))[1]
        if found is None or len(found.at) != x.numel() // x.shape[-1]:
            raise PortError(f"{sites[0].name}: which rows the expert is given cannot be seen; its model is not served")
        if not down and self.read is not None and self.read[0] == sites[0].space:
            rows = self.read[1].reshape(-1, x.shape[-1])[found.at]
            if not torch.equal(rows, x.reshape(rows.shape).to(rows.dtype)):
                raise PortError(f"{sites[0].name} reads other rows than its router; its model is not served")
        if down:  # what the expert read is read by no other
            self.taken = {key: each for key, each in self.taken.items() if each[1] is not found}
        self.inside |= {site.hidden_out.name: found for site in sites if site.hidden_out}
        return found


CASTS = frozenset({Tensor.type, Tensor.float, Tensor.to})
"""Calls that give a tensor in another dtype."""
FOLLOWED = frozenset({Tensor.__getitem__, Tensor.reshape, Tensor.view})
"""Calls that take an expert's rows out of a batch."""
