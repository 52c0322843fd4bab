"""Cross-validation of ports on live models: made from some of the samples, tried on the others."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from hf_bico.core.chain import carry, gather
from hf_bico.core.low_rank import Delta
from hf_bico.core.method import Fold, Job, Method
from hf_bico.core.moments import Statistics
from hf_bico.core.transport import added, holding
from hf_bico.core.types import Wanted

LEAST = 4
"""The fewest samples that are parted: two to make a port from, two to try it on."""


def halved(labels: Sequence[Any]) -> tuple[list[int], list[int]]:
    """Return the samples' indices in two halves, each with its share of every class where labels are classes (int)."""
    by_class = sorted(range(len(labels)), key=lambda i: labels[i] if isinstance(labels[i], int) else 0)
    return sorted(by_class[0::2]), sorted(by_class[1::2])


def alone(job: Job, fold: Fold) -> Job:
    """Return the job on the samples of a fold."""
    return replace(job, batches=fold.batches, folds=())


def gather_folds(job: Job, wanted: Wanted) -> list[Statistics]:
    """Return the statistics of every fold of a job."""
    return [gather(alone(job, fold), wanted) for fold in job.folds]


def together(job: Job, wanted: Wanted, parts: Iterable[Statistics]) -> Statistics:
    """Return the statistics of all samples, merged from those of the folds. A job's unlabelled samples are in every
    fold, so that they would count twice.
    """
    whole = Statistics(job.pairs, wanted)
    whole.weights = job.base.model.state_dict(), job.target.model.state_dict()
    for part in parts:
        whole.merge(part)
    return whole


def ports_of_folds(job: Job, method: Method, parts: Iterable[Statistics]) -> Iterator[tuple[Fold, Delta]]:
    """Yield every fold with the change that a method makes from it, at α = 1.

    Raises:
        PortError: as for `carry`.
    """
    for fold, part in zip(job.folds, parts, strict=True):
        yield fold, carry(alone(job, fold), method, part).delta


def held_out_loss(job: Job, method: Method, parts: Iterable[Statistics]) -> float:
    """Return the target's loss on what every fold holds out, with the port made from the fold, summed."""
    total = 0.0
    for fold, delta in ports_of_folds(job, method, parts):
        with holding(job.target.model, added(job.weights, delta)):
            total += fold.held_out()
    return total
