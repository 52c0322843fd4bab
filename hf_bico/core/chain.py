"""The two steps of every port: statistics of the samples are collected once, then τ is carried over."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from operator import length_hint
from typing import Protocol

import torch

from hf_bico.core.collect import Batch, Side, collect
from hf_bico.core.device import tidy
from hf_bico.core.errors import PortError, setting
from hf_bico.core.method import Job, Method, Track, untracked
from hf_bico.core.moments import Statistics
from hf_bico.core.ranks import divided, here, summed
from hf_bico.core.transport import Transported
from hf_bico.core.types import LABEL_FREE, Pair, Wanted
from hf_bico.core.views import with_views


class Resume(Protocol):
    """Where an interrupted collection left off."""

    def load(self, fresh: Statistics) -> tuple[Statistics, int]:
        """Return the statistics collected before, or `fresh`, and how many batches went into them."""
        ...

    def after_batch(self, seen: Statistics) -> None:
        """Record that one more batch has been added."""
        ...


class _Nothing:
    """Starts every collection from the beginning and keeps nothing of it."""

    def load(self, fresh: Statistics) -> tuple[Statistics, int]:
        return fresh, 0

    def after_batch(self, seen: Statistics) -> None:
        pass


NOTHING = _Nothing()


def gather(
    job: Job, wanted: Wanted, *, group: slice = slice(None), resume: Resume = NOTHING, track: Track = untracked
) -> Statistics:
    """Return the statistics of the calibration samples for the job's pairs; signals that need no labels are those of
    the unlabelled samples too. Of several ranks each passes its share, and all get the sums.

    Args:
        wanted: what one method wants, or the `union` of several.
        group: the pairs whose statistics they are; all are watched, so that they are those of a pass for all.
        resume: where to continue from, and where to save progress.
        track: shows the batches as they pass.

    Raises:
        PortError: as for `collect`; the device is out of memory.
    """
    seen, done = resume.load(Statistics(job.pairs[group], wanted))
    if not wanted.signals:
        return seen
    here().agreed("samples", lambda: _pass(job, wanted, seen, done, resume, track))
    found = summed(seen)
    tidy()
    return found


def _pass(job: Job, wanted: Wanted, seen: Statistics, done: int, resume: Resume, track: Track) -> None:
    """Add to the statistics those of the batches that are this rank's, from the number `done` of all batches on."""
    every = divided(job.batches())
    total = (1 + wanted.views) * length_hint(every)
    batches = track(islice(with_views(every, wanted.views), done, None), "Calibrating", max(total - done, 0))
    fill(seen, job.base, job.target, job.pairs, batches, resume.after_batch)
    if job.unlabelled is not None and wanted.signals & LABEL_FREE:
        more, skipped = divided(job.unlabelled()), max(done - total, 0)
        batches = track(islice(more, skipped, None), "Calibrating without labels", length_hint(more) - skipped)
        fill(seen, job.base, job.target, job.pairs, batches, resume.after_batch, labelled=False)


def fill(
    seen: Statistics,
    base: Side,
    target: Side,
    pairs: Iterable[Pair],
    batches: Iterable[Batch],
    after_batch: Callable[[Statistics], None] = NOTHING.after_batch,
    *,
    labelled: bool = True,
) -> Statistics:
    """Add batches to the statistics `seen` of some pairs, and return them. Nothing else in the tool calls `collect`.

    Raises:
        PortError: as for `collect`; the device is out of memory.
    """
    with within_memory():
        return collect(base, target, pairs, batches, seen, after_batch, labelled=labelled)


def carry(
    job: Job,
    method: Method,
    seen: Statistics,
    *,
    group: slice | None = None,
    last: bool = False,
    track: Track = untracked,
) -> Transported:
    """Return τ in the target's coordinates.

    Args:
        seen: the statistics of the job's pairs, or of those in the group.
        group: the pairs that are moved, for a method that works layer by layer; None: all.
        last: whether nobody asks the statistics again, so that those of a layer go as it moves, where its method works
            layer by layer.

    Raises:
        PortError: as for `method.carry`; the device is out of memory.
    """
    if last and method.by_layer:
        seen.spend(job.pairs if group is None else job.pairs[group])
    with within_memory():
        return method.carry(job, seen, track) if group is None else method.carry_group(job, seen, group, track)


@contextmanager
def within_memory() -> Iterator[None]:
    """Turn torch's out-of-memory error into a `PortError` that says what to do."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise PortError(f"the device is out of memory; a smaller {setting('batch_size')} needs less") from error
