"""Cross-validation of ports on live models: made from some of the samples, tried on the others."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from hf_bico.core.chain import carry
from hf_bico.core.low_rank import Delta
from hf_bico.core.method import Fold, Job, Method
from hf_bico.core.moments import Folded
from hf_bico.core.transport import added, holding

LEAST = 4
"""The fewest samples that are parted: two to make a port from, two to try it on."""


def halved(labels: Sequence[Any]) -> tuple[list[int], list[int]]:
    """Return the samples' indices in two halves, each with its share of every class where labels are classes (int)."""
    by_class = sorted(range(len(labels)), key=lambda i: labels[i] if isinstance(labels[i], int) else 0)
    return sorted(by_class[0::2]), sorted(by_class[1::2])


def ports_of_folds(job: Job, method: Method, seen: Folded) -> Iterator[tuple[Fold, Delta]]:
    """Yield every fold with the change that a method makes from it, at α = 1.

    Raises:
        PortError: as for `carry`.
    """
    for fold, part in zip(job.folds, seen.folds, strict=True):
        yield fold, carry(replace(job, batches=fold.batches, folds=()), method, part).delta


def held_out_loss(job: Job, method: Method, seen: Folded) -> float:
    """Return the target's loss on what every fold holds out, with the port made from the fold, summed."""
    total = 0.0
    for fold, delta in ports_of_folds(job, method, seen):
        with holding(job.target.model, added(job.weights, delta)):
            total += fold.held_out()
    return total
