"""What a few samples say of a port before it is made, on live models: how well the maps fit, and a port in small."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hf_bico.core.collect import Batch, collect
from hf_bico.core.methods import Job, Method
from hf_bico.core.moments import Statistics
from hf_bico.core.pairing import Blocks
from hf_bico.core.transport import Moved, added, holding
from hf_bico.core.types import Fit
from hf_bico.reports.verdict import Signs

Half = Callable[[], Iterable[Batch]]
"""One half of the samples, as often as it is asked for."""


def halved(labels: Sequence[Any]) -> tuple[list[int], list[int]]:
    """The samples in two halves, each with its share of every class where labels are classes."""
    by_class = sorted(range(len(labels)), key=lambda i: labels[i] if isinstance(labels[i], int) else 0)
    return sorted(by_class[0::2]), sorted(by_class[1::2])


def gather(job: Job, method: Method, halves: Sequence[Half]) -> list[Statistics]:
    """What the method wants to know, from either half."""
    found = []
    for half in halves:
        statistics = Statistics(job.pairs, method.signals, method.draws)
        found.append(collect(job.source, job.target, job.pairs, half(), statistics))
    return found


def together(job: Job, method: Method, parts: Iterable[Statistics]) -> Statistics:
    """The evidence of all samples."""
    whole = Statistics(job.pairs, method.signals, method.draws)
    whole.weights = job.source.model.state_dict(), job.target.model.state_dict()
    for part in parts:
        whole.merge(part)
    return whole


def trial_loss(
    job: Job, method: Method, parts: Sequence[Statistics], halves: Sequence[Half], loss: Callable[[int], float]
) -> float:
    """The target's loss with a port made of one half on the other, and the other way round, summed.

    Args:
        loss: of the target as it stands, on the half that is not the one of this number.
    """
    total = 0.0
    for number, (statistics, half) in enumerate(zip(parts, halves, strict=True)):
        delta = method.carry(replace(job, statistics=statistics, batches=half)).delta
        with holding(job.target.model, added(job.weights, delta)):
            total += loss(number)
    return total


def signs_of(
    moved: Sequence[Moved], cka: Mapping[str, np.ndarray], paths: Mapping[str, Blocks], recovered: float | None
) -> Signs:
    """One number each from what every site and every block shows; `cka` and `paths` by tower."""
    alike = [float(matrix[b, a]) for tower, matrix in cka.items() for b, a in enumerate(paths[tower]) if a is not None]
    return Signs(
        float(np.mean(alike)) if alike else float("nan"),
        _weighed(moved, lambda m: m.input),
        _weighed(moved, lambda m: m.output),
        _mean([m.kept for m in moved], moved),
        recovered,
    )


def _weighed(moved: Sequence[Moved], side: Callable[[Moved], Fit | None]) -> float:
    have = [m for m in moved if side(m) is not None]
    return _mean([side(m).residual for m in have], have)


def _mean(values: Sequence[float], moved: Sequence[Moved]) -> float:
    """Weighed by ‖τ‖²; NaN of nothing."""
    weights = [m.norm**2 for m in moved]
    return float(np.average(values, weights=weights)) if sum(weights) else float("nan")
