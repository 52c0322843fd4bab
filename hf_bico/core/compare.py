"""Methods side by side on live modules: the same samples, the same statistics, the same score. No Hub needed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from operator import length_hint
from typing import Any

from torch import nn

from hf_bico.core.collect import collect
from hf_bico.core.errors import PortError
from hf_bico.core.meter import Meter
from hf_bico.core.methods import Job, Method
from hf_bico.core.moments import Statistics
from hf_bico.core.search import AUTO, Search, best_of, refined_search
from hf_bico.core.transport import Transported, added, holding
from hf_bico.core.types import Signal

Once = Callable[[str, Callable[[], Any]], Any]
"""(name, compute) → a JSON value, computed or remembered."""


@dataclass(frozen=True)
class Row:
    """One method at one α on one set of calibration samples; a method that cannot serve the pair has a refusal."""

    method: str
    alpha: float | str
    """As asked for; "auto" is a line search."""
    score: float | None = None
    scale: float | None = None
    """The α that the score is of."""
    refusal: str | None = None
    seconds: float = 0.0
    """The method's own: planning and moving, what it collects anew, and its line search; not the shared collection."""
    shared_seconds: float = 0.0
    """Of collecting the statistics that it shares with the other methods."""
    peak_bytes: int = 0
    """The most memory in use while the method was at work (see `Meter`)."""
    search: Search | None = None


@dataclass(frozen=True)
class _Carried:
    result: Transported
    seconds: float
    shared_seconds: float
    peak_bytes: int


def compare(
    job: Job,
    methods: Mapping[str, Method],
    n: int,
    score: Callable[[nn.Module], float],
    *,
    alphas: Sequence[float | str] = (1.0,),
    once: Once = lambda name, compute: compute(),
) -> list[Row]:
    """A row for every method and α, in order.

    The statistics of the samples are collected once, all that any of the methods wants, and serve every method and α.
    (Methods that want different numbers of label-free draws have a collection each: a moment is a sum over its draws.)

    Args:
        job: as for a method's `carry`; its evidence is not used. See `hf_bico.api.job_of`.
        methods: by the name that their rows get.
        n: how many calibration samples there are.
        score: of the target with the ported change in it.
        alphas: numbers, or "auto".
        once: remembers rows by name (as plain data) over interruptions.

    Raises:
        PortError: the samples cannot be collected. What a method refuses is in its row.
    """
    refusals = {name: _refusal(job, method) for name, method in methods.items()}
    serving = {name: method for name, method in methods.items() if refusals[name] is None}
    gather = cache(lambda draws: _gather(job, [m for m in serving.values() if _draws(m, serving) == draws]))
    rows = []
    for name, method in methods.items():
        refusal = refusals[name]
        seen = cache(lambda method=method: gather(_draws(method, serving)) if method.signals else _nothing(job))
        carried = cache(lambda method=method, seen=seen: _carry(job, method, *seen()))
        for alpha in alphas:

            def row(name=name, alpha=alpha, carried=carried, seen=seen) -> dict[str, Any]:
                seen()  # what is wrong with the samples is wrong for all methods, and no row of one
                return asdict(_row(job, name, alpha, n, score, carried))

            rows.append(Row(name, alpha, refusal=refusal) if refusal else Row(**once(f"{name} α={alpha}", row)))
    return rows


def _refusal(job: Job, method: Method) -> str | None:
    try:
        method.check(job.pairs)
    except PortError as error:
        return str(error)
    if method.draws and None in (job.source.scores, job.target.scores):
        return f"{method.name} takes gradients without labels, and there are no general scores to take them of"
    return None


def _draws(method: Method, serving: Mapping[str, Method]) -> int:
    """Which collection a method takes part in: by its draws, or the first where it wants none."""
    return method.draws or next((other.draws for other in serving.values() if other.draws), 0)


def _gather(job: Job, methods: Sequence[Method]) -> tuple[Statistics, Meter]:
    signals = frozenset[Signal]().union(*(method.signals for method in methods))
    meter = Meter(_device(job))
    with meter():
        statistics = Statistics(job.pairs, signals, max(method.draws for method in methods))
        batches = job.batches()
        batches = job.track(batches, "Calibrating", length_hint(batches))
        collect(job.source, job.target, job.pairs, batches, statistics)
    return statistics, meter


def _nothing(job: Job) -> tuple[Statistics, Meter]:
    return Statistics(job.pairs, ()), Meter(_device(job))


def _carry(job: Job, method: Method, statistics: Statistics, shared: Meter) -> _Carried:
    meter = Meter(_device(job))
    with meter():
        result = method.carry(replace(job, statistics=statistics))
    shares = method.signals - {Signal.WEIGHT}
    return _Carried(result, meter.seconds, shared.seconds if shares else 0.0, meter.peak_bytes)


def _row(
    job: Job,
    name: str,
    alpha: float | str,
    n: int,
    score: Callable[[nn.Module], float],
    carried: Callable[[], _Carried],
) -> Row:
    try:
        done, search = carried(), None
        delta, seconds, peak = done.result.delta, done.seconds, done.peak_bytes
        if alpha == AUTO:
            meter = Meter(_device(job))
            with meter():
                search = refined_search(job.target, job.batches, n, job.weights, delta, job.track)
            seconds, peak = seconds + meter.seconds, max(peak, meter.peak_bytes)
        scale = best_of(search) if search else float(alpha)
        with holding(job.target.model, added(job.weights, delta, scale)):
            value = score(job.target.model)
    except PortError as error:
        return Row(name, alpha, refusal=str(error))
    return Row(name, alpha, value, scale, None, seconds, done.shared_seconds, peak, search)


def _device(job: Job) -> str:
    return str(next(job.target.model.parameters()).device)
