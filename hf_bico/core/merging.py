"""Neighbouring patches taken as one row inside MLPs, where a block is widest and rows are most of what a port pays."""

from collections.abc import Callable
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from hf_bico.core.types import INPUTS, Pair, Signal, Site, Tokens

Inside = Literal["auto", "whole", "merged"]
"""How much of what the samples show inside MLPs is used; see `TwoSided.mlp`."""
GROUP = (2, 4)
"""Rows and columns of patches that are merged: docs/performance.md has what it costs, and what it was chosen on."""
LEAST_PATCHES = 64
"""The smallest grid whose patches "auto" merges: below, a step is a large part of the picture."""
SHARE, LEAST_RANK = 4, 512
"""Of the singular directions inside an MLP the leading one in so many is solved for; "auto" takes at least so many."""
_MERGED = frozenset({Signal.INPUT, Signal.OUTPUT, Signal.OUTPUT_GRADIENT, Signal.LABEL_FREE_GRADIENT})
"""Signals whose rows are merged: not those that are weighted row by row."""


def is_inside(pair: Pair, signal: Signal) -> bool:
    """Return whether a signal's coordinates are those inside an MLP, in both models."""
    return all(_is_inside(site, signal) for site in pair)


def _is_inside(site: Site, signal: Signal) -> bool:
    hidden = site.hidden_in if signal in INPUTS else site.hidden_out
    return hidden is not None and hidden.group is None and site.expert is None


def is_merged(pair: Pair, signal: Signal, how: Inside) -> bool:
    """Return whether a signal's rows are merged before they meet."""
    least = {"auto": LEAST_PATCHES, "merged": 1}.get(how)
    if least is None or signal not in _MERGED or not is_inside(pair, signal):
        return False
    grids = [site.layout(signal).grid for site in pair]
    return all(len(grid) == 2 and grid[0] * grid[1] >= least for grid in grids)


def rank_limit(pair: Pair, signal: Signal, how: Inside) -> int | None:
    """Return how many leading singular directions of a cross-moment are solved for; None for all."""
    if how == "whole" or not is_inside(pair, signal):
        return None
    width = min(site.d_in if signal in INPUTS else site.d_out for site in pair)
    limit = max(1 if how == "merged" else LEAST_RANK, width // SHARE)
    return limit if limit < width else None


@cache
def groups(tokens: Tokens) -> Tensor:
    """Return the S (M, T) that merges a grid's patches: a row is their sum over the root of their number.

    So Σ (S b)(S a)ᵀ weighs the mean of every group by its size. Prefix tokens are groups of their own.
    """
    height, width = tokens.grid
    down, across = torch.arange(height) // GROUP[0], torch.arange(width) // GROUP[1]
    number = (down[:, None] * (int(across[-1]) + 1) + across).flatten()
    patches = torch.nn.functional.one_hot(number).T.float()
    patches /= patches.sum(1, keepdim=True).sqrt()
    block_diag: Callable[..., Tensor] = torch.block_diag  # torch's has no annotations
    return block_diag(torch.eye(tokens.prefix), patches)
