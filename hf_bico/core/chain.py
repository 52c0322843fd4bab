"""The chain of every port: the samples are collected once, then τ is carried over."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from operator import length_hint
from typing import Protocol

import torch

from hf_bico.core.collect import Batch, Side, collect
from hf_bico.core.errors import PortError, setting
from hf_bico.core.method import Job, Method, Track, untracked
from hf_bico.core.moments import Statistics
from hf_bico.core.transport import Transported
from hf_bico.core.types import Pair, Wanted


class Resume(Protocol):
    """Where an interrupted collection left off."""

    def load(self, fresh: Statistics) -> tuple[Statistics, int]:
        """Return what was collected before, or `fresh`, and of how many batches that is."""
        ...

    def after_batch(self, seen: Statistics) -> None:
        """Take note that one more batch is in."""
        ...


class _Nothing:
    """A collection from the beginning that is kept nowhere."""

    def load(self, fresh: Statistics) -> tuple[Statistics, int]:
        return fresh, 0

    def after_batch(self, seen: Statistics) -> None:
        pass


NOTHING = _Nothing()


def gather(job: Job, wanted: Wanted, *, resume: Resume = NOTHING, track: Track = untracked) -> Statistics:
    """Return what the calibration samples show of the job's pairs.

    Args:
        wanted: of one method, or the `union` of several.
        resume: where to go on, and where to keep what was done.
        track: shows the batches as they pass.

    Raises:
        PortError: as `collect` does; the device is out of memory.
    """
    seen, done = resume.load(Statistics(job.pairs, wanted))
    if not wanted.signals:
        return seen
    every = job.batches()
    batches = track(islice(every, done, None), "Calibrating", max(length_hint(every) - done, 0))
    return fill(seen, job.base, job.target, job.pairs, batches, resume.after_batch)


def fill(
    seen: Statistics,
    base: Side,
    target: Side,
    pairs: Iterable[Pair],
    batches: Iterable[Batch],
    after_batch: Callable[[Statistics], None] = NOTHING.after_batch,
) -> Statistics:
    """Add what batches show of some pairs; the same statistics. Nothing else in the tool passes samples for them.

    Raises:
        PortError: as `collect` does; the device is out of memory.
    """
    with within_memory():
        return collect(base, target, pairs, batches, seen, after_batch)


def carry(job: Job, method: Method, seen: Statistics, *, track: Track = untracked) -> Transported:
    """Return τ in the target's coordinates.

    Raises:
        PortError: as the method does; the device is out of memory.
    """
    with within_memory():
        return method.carry(job, seen, track)


@contextmanager
def within_memory() -> Iterator[None]:
    """Turn running out of the device's memory into an error that says what to do."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise PortError(f"the device is out of memory; a smaller {setting('batch_size')} needs less") from error
