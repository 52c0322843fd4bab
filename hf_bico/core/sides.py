"""One side of a map alone."""

from collections.abc import Callable

import torch
from torch import Tensor

from hf_bico.core.low_rank import as_dense
from hf_bico.core.types import At, BilinearMap, Map

BLIND = 1e-2
"""What a map makes of a unit vector that it knows nothing of is shorter."""


def whole_side(map_: Map, side: At) -> Callable[[Tensor], Tensor]:
    """Return rows (…, d_A) → (…, d_B) by one side of a map; all ones go to all ones where it knows nothing of them.

    A gradient behind a LayerNorm sums to zero, so that it determines nothing along the all-ones vector.
    """
    move = map_.outputs if side == "out" else map_.inputs

    def moved(rows: Tensor) -> Tensor:
        found, one = move(rows), rows.new_ones(rows.shape[-1]) / rows.shape[-1] ** 0.5
        if move(one).norm() < BLIND:
            found = found + (rows @ one)[..., None] / found.shape[-1] ** 0.5
        return found

    return moved


def matrix(map_: Map, side: At, width: int) -> Tensor:
    """Return what `whole_side` does to rows (…, width) as a matrix (d_B, width), on the device where the map lies."""
    found = (map_.left if side == "out" else map_.right) if isinstance(map_, BilinearMap) else None
    if found is None:
        return whole_side(map_, side)(torch.eye(width, dtype=torch.float64)).T
    factor = as_dense(found)
    there, here = factor.shape
    blind = factor.sum(1).norm() < BLIND * here**0.5
    return factor + 1 / (there * here) ** 0.5 if blind else factor


def permutes(map_: Map, side: At, width: int) -> bool:
    """Return whether one side of a map (width,) does no more than permute, pad and crop coordinates."""
    squares = matrix(map_, side, width).square()
    return bool((torch.minimum(squares, (1 - squares).abs()) < BLIND).all())
