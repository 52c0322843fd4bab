"""Two-fold cross-validation of a port, on live models: made from either half of the samples, tried on the other."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from hf_bico.core.chain import carry, gather
from hf_bico.core.collect import Batch
from hf_bico.core.method import Job, Method
from hf_bico.core.moments import Statistics
from hf_bico.core.transport import added, holding

Half = Callable[[], Iterable[Batch]]
"""() → the batches of one half of the samples; may be called any number of times."""


def halved(labels: Sequence[Any]) -> tuple[list[int], list[int]]:
    """Return the samples' indices in two halves, each with its share of every class where labels are classes (int)."""
    by_class = sorted(range(len(labels)), key=lambda i: labels[i] if isinstance(labels[i], int) else 0)
    return sorted(by_class[0::2]), sorted(by_class[1::2])


def gather_halves(job: Job, method: Method, halves: Sequence[Half]) -> list[Statistics]:
    """Return the statistics of each half that the method wants."""
    return [gather(replace(job, batches=half), method.wanted) for half in halves]


def together(job: Job, method: Method, parts: Iterable[Statistics]) -> Statistics:
    """Return the statistics of all samples, merged from those of the parts."""
    whole = Statistics(job.pairs, method.wanted)
    whole.weights = job.base.model.state_dict(), job.target.model.state_dict()
    for part in parts:
        whole.merge(part)
    return whole


def held_out_loss(
    job: Job, method: Method, parts: Sequence[Statistics], halves: Sequence[Half], loss: Callable[[int], float]
) -> float:
    """Return the target's loss on one half with a port made from the other, and the other way round, summed.

    Args:
        loss: takes a half's number (0 or 1) → the loss of the target as it stands on the other half.
    """
    total = 0.0
    for number, (seen, half) in enumerate(zip(parts, halves, strict=True)):
        delta = carry(replace(job, batches=half), method, seen).delta
        with holding(job.target.model, added(job.weights, delta)):
            total += loss(number)
    return total
