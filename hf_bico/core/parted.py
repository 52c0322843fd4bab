"""The sums of every fold of the samples, which make those of all samples, so that these need not pass again."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from hf_bico.core.chain import gather
from hf_bico.core.folds import alone
from hf_bico.core.gradients import WeightGradient, merge_sums
from hf_bico.core.method import Job
from hf_bico.core.moments import CrossMoment, Statistics
from hf_bico.core.shelf import Shelf
from hf_bico.core.types import LABEL_FREE, Pair, Signal, Stream, Wanted


class Kept:
    """The sums of some samples, on a shelf.

    Args:
        seen: statistics that nothing is added to any more.
    """

    def __init__(self, seen: Statistics) -> None:
        self.samples, self.weights = seen.samples, seen.weights
        sums = {(name, field): getattr(part, field) for name, part in seen.parts() for field in part.SUMS}
        self._plain = {key: value for key, value in sums.items() if not isinstance(value, Tensor)}
        self._keys = {key: str(number) for number, key in enumerate(sums) if key not in self._plain}
        self._shelf = Shelf({name: sums[key] for key, name in self._keys.items()})

    def add_to(self, name: str, part: CrossMoment | WeightGradient) -> None:
        """Add the sums of this name to those of a part of other statistics."""

        def read(field: str) -> Any:
            key = name, field
            return self._shelf[self._keys[key]] if key in self._keys else self._plain[key]

        merge_sums(part, SimpleNamespace(**{field: read(field) for field in part.SUMS}))


class Merged(Statistics):
    """The sums of several sets of samples together; each is read from its shelf and added up when it is asked for.

    Args:
        sets: those of the samples, for the same pairs and the same signals.
    """

    def __init__(self, pairs: Sequence[Pair], wanted: Wanted, sets: Sequence[Kept]) -> None:
        super().__init__(pairs, wanted)
        self.sets, self.samples = tuple(sets), sum(each.samples for each in sets)
        self.weights = next((each.weights for each in sets if each.weights is not None), None)
        for name, gradient in self.gradients.items():
            self._merge(f"{Signal.WEIGHT_GRADIENT.value}/{name}", gradient)

    def __getitem__(self, key: tuple[Pair, Signal]) -> CrossMoment:
        pair, signal = key
        return self._moment(pair.streams(signal))

    def parts(self) -> Iterator[tuple[str, CrossMoment | WeightGradient]]:
        for name, part in super().parts():
            if isinstance(part, CrossMoment):
                part = deepcopy(part)  # what is asked for is dropped again
                self._merge(name, part)
            yield name, part

    def _moment(self, streams: tuple[Stream, Stream]) -> CrossMoment:
        moment, (a, b) = deepcopy(self._moments[streams]), streams
        self._merge(f"{a.signal.value}/{a.name}/{b.name}", moment)
        return moment

    def _merge(self, name: str, part: CrossMoment | WeightGradient) -> None:
        for each in self.sets:
            each.add_to(name, part)


@dataclass(frozen=True)
class Parted:
    """The sums of every fold of a job's samples, and of its unlabelled samples, which are in every fold."""

    job: Job
    wanted: Wanted
    folds: tuple[Kept, ...]
    unlabelled: tuple[Kept, ...]

    def of(self, number: int) -> Statistics:
        """Return the statistics of a fold."""
        return Merged(self.job.pairs, self.wanted, (self.folds[number], *self.unlabelled))

    def whole(self) -> Statistics:
        """Return the statistics of all samples, which folds of halves make between them; equal, but for rounding, to
        those of one pass. Draws of label-free gradients are a fold's own; so are other views, where they go by a
        sample's number in its fold.
        """
        return Merged(self.job.pairs, self.wanted, (*self.folds, *self.unlabelled))


def gather_parted(job: Job, wanted: Wanted) -> Parted:
    """Return the statistics of every fold of a job, each on a shelf: in memory are those of one fold, while it passes.

    Raises:
        PortError: as for `gather`.
    """
    folds = tuple(Kept(gather(replace(alone(job, fold), unlabelled=None), wanted)) for fold in job.folds)
    if job.unlabelled is None or not wanted.signals & LABEL_FREE:
        return Parted(job, wanted, folds, ())
    more = replace(job, batches=tuple, folds=())
    return Parted(job, wanted, folds, (Kept(gather(more, replace(wanted, views=0))),))
