"""Compare methods on live modules: the same samples, the same statistics, the same score. No Hub needed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

from torch import nn

from hf_bico.core.chain import carry, gather
from hf_bico.core.choice import choice_of
from hf_bico.core.device import device_of
from hf_bico.core.errors import PortError
from hf_bico.core.meter import Meter
from hf_bico.core.method import Job, Method, Once, Track, anew, union, untracked
from hf_bico.core.moments import Statistics
from hf_bico.core.search import AUTO, Search, best_of, refined_search
from hf_bico.core.transport import Transported, added, holding
from hf_bico.core.types import ROWS, Signal, Wanted


@dataclass(frozen=True)
class Row:
    """One method at one α on one set of calibration samples; a method that cannot serve the models has a refusal."""

    method: str
    alpha: float | str
    """As requested; "auto" is a line search."""
    score: float | None = None
    scale: float | None = None
    """The α at which the score was taken."""
    refusal: str | None = None
    seconds: float = 0.0
    """The method's own time: planning and moving, further passes, and its line search; not the shared collection."""
    shared_seconds: float = 0.0
    """Time to collect the statistics that it shares with the other methods."""
    peak_bytes: int = 0
    """The most memory in use while the method was at work (see `Meter`)."""
    search: Search | None = None
    took: str | None = None
    """What was taken, and at which scale, by a method that chooses among others."""
    also: dict[str, float] = field(default_factory=dict)
    """Other metrics of the same answers: name → value."""


Scoring = Callable[[nn.Module], float | tuple[float, dict[str, float]]]
"""Takes the target with the ported change in it → its score, or that and other metrics of the same answers by name."""


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
    score: Scoring,
    *,
    alphas: Sequence[float | str] = (1.0,),
    once: Once = anew,
    track: Track = untracked,
) -> list[Row]:
    """Return a row for every method and α, in order.

    The statistics that any of the methods wants are collected once, and serve every method and α.
    (Methods that want different numbers of label-free draws have a collection each: a moment is a sum over its draws.)

    Args:
        job: as for a method's `carry`. See `hf_bico.workflows.live.job_of`.
        methods: by the name that their rows get.
        n: the number of calibration samples.
        score: takes the target with the ported change in it; see `Scoring`.
        alphas: numbers, or "auto" for a line search.
        once: remembers rows (as plain data) by name across interruptions.
        track: shows the stages as they pass.

    Raises:
        PortError: collection fails, so that no method could run. What one method refuses is in its row.
    """
    bench = _Bench(job, n, score, track)
    refusals = {name: _refusal(job, method) for name, method in methods.items()}
    serving = [method for name, method in methods.items() if refusals[name] is None and method.collected.signals]
    shared = cache(lambda group: bench.gather(union(m for m in serving if _group(m, serving) == group)))
    rows = []
    for name, method in methods.items():
        refusal = refusals[name]
        wants = bool(method.collected.signals)
        seen = cache(lambda m=method, wants=wants: shared(_group(m, serving)) if wants else bench.gather(Wanted()))
        carried = cache(lambda m=method, seen=seen: bench.carry(m, *seen()))
        for alpha in alphas:

            def row(
                name: str = name,
                alpha: float | str = alpha,
                carried: Callable[[], _Carried] = carried,
                seen: Callable[[], Any] = seen,
            ) -> dict[str, Any]:
                seen()  # outside `bench.row`: samples that cannot be collected fail all methods, not this row alone
                return asdict(bench.row(name, alpha, carried))

            rows.append(Row(name, alpha, refusal=refusal) if refusal else Row(**once(f"{name} α={alpha}", row)))
    return rows


def _refusal(job: Job, method: Method) -> str | None:
    try:
        method.check(job.pairs)
    except PortError as error:
        return str(error)
    if method.wanted.draws and None in (job.base.scores, job.target.scores):
        return f"{method.name} takes gradients without labels, and there are no general scores to take them of"
    return None


def _group(method: Method, serving: Iterable[Method]) -> tuple[int, int, str]:
    """Return which collection a method takes part in: by its number of draws and by what it wants of the rows inside
    MLPs, or the first other's where it wants none, and by its views of the samples.
    """
    draws = method.wanted.draws or next((other.wanted.draws for other in serving if other.wanted.draws), 0)
    rows = next((each.wanted for each in (method, *serving) if each.wanted.signals & ROWS), method.wanted)
    return draws, method.wanted.views, rows.mlp


@dataclass(frozen=True)
class _Bench:
    """What all rows share, and the steps that make one."""

    job: Job
    n: int
    score: Scoring
    track: Track

    def meter(self) -> Meter:
        return Meter(str(device_of(self.job.target.model)))

    def gather(self, wanted: Wanted) -> tuple[Statistics, Meter]:
        meter = self.meter()
        with meter():
            return gather(self.job, wanted, track=self.track), meter

    def carry(self, method: Method, seen: Statistics, shared: Meter) -> _Carried:
        meter = self.meter()
        with meter():
            result = carry(self.job, method, seen, track=self.track)
        shares = method.collected.signals - {Signal.WEIGHT}
        return _Carried(result, meter.seconds, shared.seconds if shares else 0.0, meter.peak_bytes)

    def row(self, name: str, alpha: float | str, carried: Callable[[], _Carried]) -> Row:
        job, search = self.job, None
        try:
            done = carried()
            delta, seconds, peak = done.result.delta, done.seconds, done.peak_bytes
            if alpha == AUTO:
                meter = self.meter()
                with meter():
                    search = refined_search(job.target, job.batches, self.n, job.weights, delta, self.track)
                seconds, peak = seconds + meter.seconds, max(peak, meter.peak_bytes)
            scale = best_of(search) if search else float(alpha)
            with holding(job.target.model, added(job.weights, delta, scale)):
                found = self.score(job.target.model)
        except PortError as error:
            return Row(name, alpha, refusal=str(error))
        choice = choice_of(done.result)
        took = f"{choice.chosen.name} × {choice.chosen.alpha:g}" if choice else None
        value, also = found if isinstance(found, tuple) else (found, {})
        return Row(name, alpha, value, scale, None, seconds, done.shared_seconds, peak, search, took, also)
