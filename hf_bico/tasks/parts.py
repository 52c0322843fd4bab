"""Batches of a training script parted by sample, for methods that choose on samples that are held out."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from hf_bico.core.collect import Batch, Side, frozen, samples_in
from hf_bico.core.errors import PortError, setting
from hf_bico.core.folds import LEAST, halved
from hf_bico.core.method import Fold
from hf_bico.core.views import view_of


@dataclass(frozen=True)
class Part:
    """One half of the samples of some batches, which can be iterated again and again.

    The halves depend on the samples and their labels, not on how they are batched; batches whose samples cannot be
    told apart go to either half in turn.
    """

    batches: Iterable[Batch]
    number: int
    """0 or 1"""
    seen: Iterable[Batch] | None = None
    """The batches in another view, if it is not they themselves that are shown."""

    def view(self, number: int) -> "Part | None":
        """Return the same half in another view; None where there is none."""
        seen = view_of(self.batches, number)
        return None if seen is None else replace(self, seen=seen)

    def __iter__(self) -> Iterator[Batch]:
        """Yield what is of this half in every batch.

        Raises:
            PortError: there are too few samples to part.
        """
        wanted, first = self._own, 0
        for place, batch in enumerate(self.batches if self.seen is None else self.seen):
            n = apart(batch.base)
            if wanted is None or n is None:
                if place % 2 == self.number:
                    yield batch
                continue
            own = [i for i in range(n) if first + i in wanted]
            first += n
            if own:
                yield taken(batch, torch.tensor(own), n)

    @cached_property
    def _own(self) -> set[int] | None:
        """Return the numbers of this half's samples; None where batches cannot be parted."""
        sizes, labels = [], []
        for batch in self.batches:
            n = apart(batch.base)
            sizes.append(n)
            labels += labels_of_batch(batch.base, n or 0)
        if not sizes:
            raise PortError("there are no calibration samples")
        known = [n for n in sizes if n is not None]
        if (len(known) < len(sizes) and len(sizes) < 2) or (len(known) == len(sizes) and sum(known) < LEAST):
            raise PortError(
                f"there are too few samples to hold some out, which auto chooses by: give at least {LEAST} in batches "
                f"of tensors, two batches of anything else, or name a {setting('method')}"
            )
        return set(halved(labels)[self.number]) if len(known) == len(sizes) else None


def apart(batch: Any) -> int | None:
    """Return how many samples a batch holds; None where they cannot be told apart, as with several images a sample, or
    images of any size whose patches lie one after the other.
    """
    n = samples_in(batch)
    images = batch.get("pixel_values") if isinstance(batch, Mapping) else None
    return None if isinstance(images, Tensor) and len(images) != n else n


def labels_of_batch(batch: Any, n: int) -> list[Any]:
    """Return the classes of a batch's samples, where it has one a sample; else None for each."""
    found = None
    if isinstance(batch, Mapping):
        found = batch.get("labels")
    elif isinstance(batch, tuple | list) and len(batch) > 1:
        found = batch[1]
    plain = isinstance(found, Tensor) and found.shape == (n,) and not found.is_floating_point()
    return found.tolist() if plain and isinstance(found, Tensor) else [None] * n


def taken(batch: Batch, rows: Tensor, n: int) -> Batch:
    """Return some of a batch's n samples."""
    meeting = {name: part[rows] if len(part) == n else part for name, part in batch.meeting.items()}
    return Batch(_rows(batch.base, rows, n), _rows(batch.target, rows, n), meeting)


def _rows(part: Any, rows: Tensor, n: int) -> Any:
    if isinstance(part, Tensor):
        return part[rows.to(part.device)] if len(part) == n else part
    if isinstance(part, Mapping):
        return {name: _rows(each, rows, n) for name, each in part.items()}
    if isinstance(part, tuple | list):
        each = [_rows(one, rows, n) for one in part]
        return type(part)(*each) if hasattr(part, "_fields") else type(part)(each)
    return part


def live_folds(batches: Iterable[Batch], target: Side) -> tuple[Fold, ...]:
    """Return the samples in two halves, each held out in turn."""
    halves = Part(batches, 0), Part(batches, 1)

    def fold(number: int) -> Fold:
        def held_out() -> float:
            with frozen(target.model), torch.no_grad():
                return sum(float(target.loss(target.model, batch.target)) for batch in halves[1 - number])

        return Fold(lambda: halves[number], held_out)

    return fold(0), fold(1)
