"""Which method carries a task vector over best, and at which scale, by the loss of samples that are held out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Any

from torch import no_grad

from hf_bico.core.chain import carry, gather
from hf_bico.core.collect import frozen
from hf_bico.core.errors import PortError
from hf_bico.core.folds import alone
from hf_bico.core.low_rank import Delta
from hf_bico.core.method import Fold, Job, Method, Track, union
from hf_bico.core.moments import Statistics
from hf_bico.core.ranks import here
from hf_bico.core.transport import ABSENT, Transported, added, holding

ALPHAS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
"""Scales that every candidate is tried at."""


@dataclass(frozen=True)
class Attempt:
    """A candidate at its best scale."""

    method: str
    options: dict[str, Any] = field(default_factory=dict)
    """Those that differ from the method's defaults."""
    alpha: float = 0.0
    loss: float | None = None
    """Loss of the target on held-out samples, summed; None where the method refused."""
    refusal: str | None = None

    @property
    def name(self) -> str:
        """Method and options, as they are written on a command line."""
        return " ".join([self.method, *(f"{key}={value}" for key, value in self.options.items())])


@dataclass(frozen=True)
class Choice:
    """What was tried on samples that were held out, and what was taken."""

    chosen: Attempt
    without: float
    """The loss without a port, summed over the same samples."""
    tried: tuple[Attempt, ...]
    beside: bool | None = field(default=None, metadata={ABSENT: True})
    """Whether what moves beside the linear maps is taken too: by the loss at α = 1 with it and without; None where
    nothing does."""


@dataclass(frozen=True)
class Chosen(Transported):
    """The target's change by the method and at the scale that were taken."""

    method: Method
    choice: Choice


def choice_of(result: Transported) -> Choice | None:
    """Return how a result was chosen; None where there was no choice."""
    return result.choice if isinstance(result, Chosen) else None


def choose(job: Job, candidates: Sequence[Method], track: Track) -> tuple[Method, Choice]:
    """Return the candidate with the least loss on held-out samples; of equals the first.

    Every fold's samples pass once for all candidates that see the same views of them. What was found is remembered by
    the job's `once`.

    Raises:
        PortError: no candidate serves these models.
    """
    total = len(job.folds) * len(candidates)
    losses: list[dict[str, Any]] = []
    without = 0.0
    steps = iter(track(range(total), "Trying methods", total))
    for number, fold in enumerate(job.folds):
        without += _loss(job, fold, Delta({}), 0.0)
        for found in _tried(job, number, fold, candidates):
            next(steps, None)
            losses.append(found)
    tried = [attempt(method, losses[i :: len(candidates)]) for i, method in enumerate(candidates)]
    finite = [(each.loss, i) for i, each in enumerate(tried) if each.loss is not None and isfinite(each.loss)]
    if not finite:
        raise PortError(f"no method serves these models: {tried[0].refusal or 'the loss is finite with none of them'}")
    best = min(finite)[1]
    return candidates[best], Choice(tried[best], without, tuple(tried), _beside(losses[best :: len(candidates)]))


def _beside(folds: Sequence[dict[str, Any]]) -> bool | None:
    """Return whether a candidate did at least as well with what moves beside the linear maps as without it."""
    if any(found.get("linear") is None for found in folds):
        return None
    whole = ALPHAS.index(1.0)
    return bool(sum(found["losses"][whole] for found in folds) <= sum(found["linear"] for found in folds))


def attempt(method: Method, folds: Sequence[dict[str, Any]]) -> Attempt:
    """Return how a candidate did over the folds, at the best of `ALPHAS`; of equals the smallest."""
    refusal = next((found["refusal"] for found in folds if found["refusal"]), None)
    if refusal:
        return Attempt(method.name, method.changed, refusal=refusal)
    losses = [sum(each) for each in zip(*(found["losses"] for found in folds), strict=True)]
    loss, alpha = min(zip(losses, ALPHAS, strict=True))
    return Attempt(method.name, method.changed, alpha, loss)


def _tried(job: Job, number: int, fold: Fold, candidates: Sequence[Method]) -> Iterator[dict[str, Any]]:
    """Yield every candidate's losses at every scale on what a fold holds out, or why it refuses."""
    made = _Made(alone(job, fold), candidates)
    for method in candidates:

        def compute(method: Method = method) -> dict[str, Any]:
            if not method.wanted.views:
                made.collect(0)  # what is wrong with the samples themselves is no candidate's refusal
            try:
                method.check(job.pairs)
                delta = here().agreed(method.name, lambda: made.delta(method))
            except PortError as error:
                return {"losses": [], "refusal": str(error)}
            linear = _loss(job, fold, _linear(job, delta), 1.0) if job.rides else None
            losses = here().each("scales", lambda alpha: _loss(job, fold, delta, alpha), ALPHAS)
            return {"losses": losses, "refusal": None, "linear": linear}

        yield job.once(f"fold {number}: {Attempt(method.name, method.changed).name}", compute)


def _linear(job: Job, delta: Delta) -> Delta:
    """Return a change without what moves beside the linear maps."""
    some, keys = Delta(delta.shapes), {key for ride in job.rides for key in ride.target.keys}
    some.whole = {key: tensor for key, tensor in delta.whole.items() if key not in keys}
    some.products = delta.products
    return some


class _Made:
    """The candidates' changes on one fold, made as they are asked for; parts of other candidates are made once."""

    def __init__(self, job: Job, candidates: Sequence[Method]) -> None:
        self.job, self.candidates = job, candidates
        self.seen: dict[int, Statistics] = {}
        self.parts: dict[Method, Delta] = {}

    def collect(self, views: int) -> Statistics:
        """Return the statistics of so many views; one set is held at a time."""
        if views not in self.seen:
            self.seen.clear()
            self.seen[views] = gather(self.job, union(each for each in self.candidates if each.wanted.views == views))
        return self.seen[views]

    def delta(self, method: Method) -> Delta:
        if method in self.parts:
            return self.parts[method]
        if method.parts:
            return method.combined([self.delta(part) for part in method.parts])
        delta = carry(self.job, method, self.collect(method.wanted.views)).delta
        if any(method in each.parts for each in self.candidates):
            self.parts[method] = delta
        return delta


def _loss(job: Job, fold: Fold, delta: Delta, alpha: float) -> float:
    model = job.target.model
    try:
        with frozen(model), no_grad(), holding(model, added(job.weights, delta, alpha)):
            found = fold.held_out()
    except PortError:  # the sum overflows
        return inf
    return found if isfinite(found) else inf
