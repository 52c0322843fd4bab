"""Which method carries a task vector over best, and at which scale, by the loss of samples that are held out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf, isfinite
from typing import Any

from torch import no_grad

from hf_bico.core.chain import carry, gather
from hf_bico.core.collect import frozen
from hf_bico.core.device import tidy
from hf_bico.core.errors import PortError
from hf_bico.core.folds import alone
from hf_bico.core.low_rank import Delta
from hf_bico.core.method import Fold, Job, Method, Track, union
from hf_bico.core.moments import Statistics
from hf_bico.core.parted import Parted, gather_parted
from hf_bico.core.ranks import here
from hf_bico.core.shelf import shelved
from hf_bico.core.transport import ABSENT, Transported, added, holding

ALPHAS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
"""Scales that candidates are tried at, downhill from 1."""


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


class Made:
    """The candidates' changes on every fold, made as they are asked for.

    What is collected waits on shelves, as do changes that later candidates are made of.
    """

    def __init__(self, job: Job, candidates: Sequence[Method]) -> None:
        self.job, self.candidates = job, candidates
        self.seen: dict[int, Parted] = {}
        self.parts: dict[tuple[int, Method], Delta] = {}
        """Fold and method → its change."""

    def collected(self, views: int) -> Parted:
        """Return the statistics of so many views; beside those of none, one set of them is kept."""
        if views not in self.seen:
            self.seen = {number: kept for number, kept in self.seen.items() if not number}
            wanted = union(each for each in self.candidates if each.wanted.views == views)
            self.seen[views] = gather_parted(self.job, wanted)
            tidy()
        return self.seen[views]

    def whole(self, method: Method) -> Statistics:
        """Return the statistics of all samples for a candidate; views are seen anew, as a fold numbers its own."""
        views = method.wanted.views
        return gather(self.job, method.wanted) if views else self.collected(views).whole()

    def delta(self, number: int, method: Method) -> Delta:
        """Return a candidate's change, made of the fold of this number, at α = 1.

        Raises:
            PortError: the candidate refuses.
        """
        if (number, method) in self.parts:
            return self.parts[number, method]
        if method.parts:
            return shelved(method.combined([self.delta(number, part) for part in method.parts]))
        seen = self.collected(method.wanted.views).of(number)
        delta = shelved(carry(alone(self.job, self.job.folds[number]), method, seen).delta)
        if any(method in each.parts for each in self.candidates):
            self.parts[number, method] = delta
        tidy()
        return delta

    def done(self, place: int) -> None:
        """Let go of what no candidate behind this place is made of."""
        later = {part for each in self.candidates[place + 1 :] for part in each.parts}
        self.parts = {key: delta for key, delta in self.parts.items() if key[1] in later}


@dataclass(frozen=True)
class Chosen(Transported):
    """The target's change by the method and at the scale that were taken."""

    method: Method
    choice: Choice
    made: Made
    """What the samples show, for what else is made of them."""


def choice_of(result: Transported) -> Choice | None:
    """Return how a result was chosen; None where there was no choice."""
    return result.choice if isinstance(result, Chosen) else None


def sums_of(result: Transported, seen: Statistics) -> Statistics:
    """Return the statistics of all samples: those that were `seen`, or what a choice collected in their place."""
    return result.made.collected(0).whole() if isinstance(result, Chosen) else seen


def choose(made: Made, track: Track) -> tuple[Method, Choice]:
    """Return the candidate with the least loss on held-out samples; of equals the first.

    Every fold's samples pass once for all candidates that see the same views of them. What was found is remembered by
    the job's `once`.

    Raises:
        PortError: no candidate serves these models.
    """
    job, candidates = made.job, made.candidates
    without = sum(_loss(job, fold, Delta({}), 0.0) for fold in job.folds)
    tried: list[Attempt] = []
    best, beside = inf, None
    for place, method in enumerate(track(candidates, "Trying methods", len(candidates))):
        name = Attempt(method.name, method.changed).name
        found = job.once(f"tried: {name}", partial(_found, made, method, best))
        tried.append(attempt(method, found))
        made.done(place)
        loss = tried[-1].loss
        if loss is not None and loss < best:
            best, beside = loss, _beside(found)
    if best == inf:
        raise PortError(f"no method serves these models: {tried[0].refusal or 'the loss is finite with none of them'}")
    first = [each.loss for each in tried].index(best)
    return candidates[first], Choice(tried[first], without, tuple(tried), beside)


def _beside(found: dict[str, Any]) -> bool | None:
    """Return whether a candidate did at least as well with what moves beside the linear maps as without it."""
    if found["linear"] is None:
        return None
    return bool(found["losses"][ALPHAS.index(1.0)] <= found["linear"])


def attempt(method: Method, found: dict[str, Any]) -> Attempt:
    """Return how a candidate did over the folds, at the best of the scales that were tried; of equals the smallest."""
    if found["refusal"]:
        return Attempt(method.name, method.changed, refusal=found["refusal"])
    tried = zip(found["losses"], ALPHAS, strict=True)
    loss, alpha = min((loss, alpha) for loss, alpha in tried if loss is not None)
    return Attempt(method.name, method.changed, alpha, loss)


def _found(made: Made, method: Method, least: float) -> dict[str, Any]:
    """Return a candidate's losses at the scales of `ALPHAS`, None where it was not tried, summed over what the folds
    hold out; or why it refuses. One that does better than `least` is tried without what moves beside the linear maps.
    """
    job = made.job
    if not method.wanted.views:
        made.collected(0)  # what is wrong with the samples themselves is no candidate's refusal
    try:
        method.check(job.pairs)
        numbers = range(len(job.folds))
        deltas = [here().agreed(method.name, partial(made.delta, number, method)) for number in numbers]
    except PortError as error:
        return {"losses": [], "refusal": str(error), "linear": None}
    folds = list(zip(job.folds, deltas, strict=True))

    def losses(alphas: Sequence[float]) -> list[float]:
        tasks = [partial(_loss, job, fold, delta, alpha) for alpha in alphas for fold, delta in folds]
        each = here().each("scales", partial.__call__, tasks)
        return [sum(each[k : k + len(folds)]) for k in range(0, len(each), len(folds))]

    found = downhill(losses)
    linear = None
    if job.rides and min(found.values()) < least:
        linear = sum(_loss(job, fold, _linear(job, delta), 1.0) for fold, delta in folds)
    return {"losses": [found.get(alpha) for alpha in ALPHAS], "refusal": None, "linear": linear}


def downhill(losses: Callable[[Sequence[float]], Sequence[float]]) -> dict[float, float]:
    """Return the losses of those of `ALPHAS` that lie on the way down from 1, and of their neighbours. The least of
    them is the least of all if the loss falls and then rises; of equals the smaller α is taken, as of all.

    Args:
        losses: scales → the loss at each.
    """
    found: dict[float, float] = {}
    best = ALPHAS.index(1.0)
    while True:
        near = ALPHAS[max(best - 1, 0) : best + 2]
        new = [alpha for alpha in near if alpha not in found]
        found.update(zip(new, losses(new), strict=True))
        least = ALPHAS.index(min(near, key=lambda alpha: (found[alpha], alpha)))
        if least == best:
            return found
        best = least


def _linear(job: Job, delta: Delta) -> Delta:
    """Return a change without what moves beside the linear maps."""
    some, keys = Delta(delta.shapes), {key for ride in job.rides for key in ride.target.keys}
    some.whole = {key: tensor for key, tensor in delta.whole.items() if key not in keys}
    some.products = delta.products
    return some


def _loss(job: Job, fold: Fold, delta: Delta, alpha: float) -> float:
    model = job.target.model
    try:
        with frozen(model), no_grad(), holding(model, added(job.weights, delta, alpha)):
            found = fold.held_out()
    except PortError:  # the sum overflows
        return inf
    return found if isfinite(found) else inf
