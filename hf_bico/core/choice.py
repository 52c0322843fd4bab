"""Which method carries a task vector over best, and at which scale, by the loss of samples that are held out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Any

from torch import no_grad

from hf_bico.core.collect import frozen
from hf_bico.core.errors import PortError
from hf_bico.core.folds import ports_of_folds
from hf_bico.core.method import Job, Method, Track
from hf_bico.core.moments import Folded
from hf_bico.core.transport import Transported, added, holding
from hf_bico.core.types import Tensors

ALPHAS = (0.25, 0.5, 0.75, 1.0, 1.5)
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


@dataclass(frozen=True)
class Chosen(Transported):
    """The target's change by the method and at the scale that were taken."""

    method: Method
    choice: Choice


def choice_of(result: Transported) -> Choice | None:
    """Return how a result was chosen; None where there was no choice."""
    return result.choice if isinstance(result, Chosen) else None


def choose(job: Job, candidates: Sequence[Method], seen: Folded, track: Track) -> tuple[Method, Choice]:
    """Return the candidate with the least loss on held-out samples; of equals the first.

    Raises:
        PortError: no candidate serves these models.
    """
    with frozen(job.target.model), no_grad():
        without = sum(fold.held_out() for fold in job.folds)
    tried = [attempt(job, method, seen) for method in track(candidates, "Trying methods", len(candidates))]
    finite = [(each.loss, i) for i, each in enumerate(tried) if each.loss is not None and isfinite(each.loss)]
    if not finite:
        raise PortError(
            f"no method serves these models: {tried[0].name}: {tried[0].refusal or 'its loss is not finite'}"
        )
    best = min(finite)[1]
    return candidates[best], Choice(tried[best], without, tuple(tried))


def attempt(job: Job, method: Method, seen: Folded) -> Attempt:
    """Return how a candidate did at the best of `ALPHAS`; of equals the smallest."""
    own = Attempt(method.name, method.changed)
    losses = dict.fromkeys(ALPHAS, 0.0)
    try:
        method.check(job.pairs)
        for fold, delta in ports_of_folds(job, method, seen):
            for alpha in ALPHAS:
                losses[alpha] += _held_out(job, fold.held_out, delta, alpha)
    except PortError as error:
        return Attempt(own.method, own.options, refusal=str(error))
    alpha = min(ALPHAS, key=losses.__getitem__)
    return Attempt(own.method, own.options, alpha, losses[alpha])


def _held_out(job: Job, loss: Callable[[], float], delta: Tensors, alpha: float) -> float:
    try:
        with frozen(job.target.model), no_grad(), holding(job.target.model, added(job.weights, delta, alpha)):
            found = loss()
    except PortError:  # the sum overflows
        return inf
    return found if isfinite(found) else inf
