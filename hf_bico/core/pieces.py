"""Batches passed in pieces: what waits, and what backward needs, is then a few samples' at a time."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor

from hf_bico.core.device import is_accelerator
from hf_bico.core.types import Pair

ROWS, ROWS_ON_ACCELERATORS = 512, 8192
"""Rows that a pass takes at once: as few as are multiplied at full speed."""
F = TypeVar("F", bound=Callable[..., Any])


def by_sample(function: F) -> F:
    """Mark a loss as a sum over samples, or scores as a row a sample, that no other sample of the batch changes: such
    batches may be cut.
    """
    function.by_sample = True  # type: ignore[attr-defined]
    return function


def is_by_sample(function: Callable[..., Any] | None) -> bool:
    """Return whether that is said of it; what is not there is no obstacle."""
    return function is None or getattr(function, "by_sample", False)


def piece_size(pairs: Iterable[Pair], device: str) -> int | None:
    """Return how many samples a piece has; None where a sample's rows have no fixed number, as a text's have not."""
    layouts = [site.tokens for pair in pairs for site in pair]
    if not layouts or any(tokens.sequence for tokens in layouts):
        return None
    rows = ROWS_ON_ACCELERATORS if is_accelerator(device) else ROWS
    return max(1, rows // max(tokens.count for tokens in layouts))


def cut(part: Any, samples: int, size: int) -> list[Any] | None:
    """Return what a model is given in pieces of so many samples; None where it cannot be told what is whose.

    Tensors (samples, …) are cut, and tuples, lists and dicts of them, and what cuts itself by `cut(samples, size)`.
    """
    if isinstance(part, Tensor):
        return list(torch.split(part, size)) if part.ndim and len(part) == samples else None
    if type(part) in (tuple, list):
        columns = [cut(each, samples, size) for each in part]
        whole = [column for column in columns if column is not None]
        return None if len(whole) < len(columns) else [type(part)(row) for row in zip(*whole, strict=True)]
    if type(part) is dict:
        rows = cut(list(part.values()), samples, size)
        return None if rows is None else [dict(zip(part, row, strict=True)) for row in rows]
    return part.cut(samples, size) if hasattr(part, "cut") else None
