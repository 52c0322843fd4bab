"""Train the target on the samples: AdamW on the layers that a port changes, towards the fine-tune's own answers."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import cos, inf, isfinite, pi
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_bico.core.collect import Batch, backward, frozen
from hf_bico.core.errors import PortError
from hf_bico.core.folds import alone
from hf_bico.core.learnt import Learnt, Whole
from hf_bico.core.low_rank import Delta
from hf_bico.core.method import Job, Track, untracked
from hf_bico.core.side_by_side import tuned_copy
from hf_bico.core.transport import Taught, added, holding
from hf_bico.core.types import Tensors
from hf_bico.core.views import view_of

RATES = (1e-4, 3e-4, 1e-3)
"""The rates that are tried on held-out samples."""
RATE = 3e-4
"""The rate where no samples can be held out."""
FOLDS = 1
"""In how many parts of the samples a rate is tried, at most: a training is what costs."""

Make = Callable[[Tensors, Tensors], Learnt]
"""(the target's tensors, its change) → what is learnt."""
Tried = tuple[float, float]
"""A rate, and the loss on held-out samples after it, summed over the folds."""


@dataclass(frozen=True)
class Lesson:
    """What the target learns, and how."""

    steps: int = 100
    """Steps of AdamW (arXiv:1711.05101), each on all samples, the rate falling to zero along a cosine."""
    rate: float | Literal["auto"] = "auto"
    """AdamW's first rate; auto: that of a grid with the least loss on held-out samples."""
    decay: float = 0.1
    """AdamW's weight decay."""
    soft: bool = True
    """Whether it learns the fine-tune's own answers: Σ KL(fine-tune ‖ target) over the samples, those without labels
    among them."""
    labels: bool = True
    """Whether it learns the labels: the task's loss, summed over the samples."""
    views: bool = True
    """Whether every step is on other views of the samples, where they have some."""
    make: Make = Whole
    """What is learnt: the layers' tensors themselves, unless another."""
    rates: Sequence[float] = RATES
    """Those that are tried."""
    default: float = RATE
    """The one where none can be."""

    def check(self, name: str) -> None:
        """Refuse a lesson that cannot be.

        Raises:
            PortError: no steps, or a rate or decay that is none.
        """
        rate = 1.0 if isinstance(self.rate, str) else self.rate
        if self.steps < 1 or not (0 < rate < inf and 0 <= self.decay < inf):
            raise PortError(f"{name} takes steps of 1 or more, a rate above 0 or auto, and a decay of 0 or more")


def learn(job: Job, start: Tensors, lesson: Lesson, track: Track = untracked) -> tuple[Delta, Taught]:
    """Return what a target has come to from where a change puts it, as its change from the new base, and how.

    How samples come in batches does not matter: every step is on the sum over all of them. All models are as they were
    afterwards.

    Args:
        start: the target's change so far, by tensor name; empty to start from the new base itself.

    Raises:
        PortError: there are no answers to learn from, or a NaN comes up.
    """
    began, teacher = time.perf_counter(), _teacher(job) if lesson.soft else None
    rate, tried, model = lesson.rate, list[Tried](), job.target.model
    trained = _trained(job)
    beside = {key: start[key] for key in start if key not in trained}
    with holding(model, added(model.state_dict(), beside)):
        if isinstance(rate, str):
            tried = list(track(_tries(job, start, lesson, teacher), "Trying rates", len(lesson.rates)))
            rate = least(tried) if tried else lesson.default
        with frozen(model):
            learnt = lesson.make(*_sites(job, start))
            losses, views = _descend(job, learnt, replace(lesson, rate=rate), teacher, track)
            delta = learnt.delta(start)
    return delta, Taught(lesson.steps, rate, tried, losses, lesson.soft, views, time.perf_counter() - began)


def least(tried: Sequence[Tried]) -> float:
    """Return the rate with the least loss; of equals the smallest.

    Raises:
        PortError: the loss is finite nowhere.
    """
    finite = [(loss, rate) for rate, loss in tried if isfinite(loss)]
    if not finite:
        raise PortError("the loss on held-out samples is NaN or Inf at every rate: give one")
    return min(finite)[1]


def _tries(job: Job, start: Tensors, lesson: Lesson, teacher: nn.Module | None) -> Iterable[Tried]:
    """Yield the loss on held-out samples at every rate, with the target taught by the others; nothing without folds."""
    trained = _trained(job)
    for rate in lesson.rates if job.folds else ():
        total = 0.0
        for fold in job.folds[:FOLDS]:
            some = alone(job, fold)
            with frozen(job.target.model):
                learnt = lesson.make(*_sites(job, start))
                try:
                    _descend(some, learnt, replace(lesson, rate=rate), teacher)
                    changed = {key: there for key, there in learnt.delta(start).items() if key in trained}
                    with holding(job.target.model, added(job.target.model.state_dict(), changed)), torch.no_grad():
                        total += fold.held_out()
                except PortError:  # it diverges
                    total = inf
        yield rate, total


def _descend(
    job: Job, learnt: Learnt, lesson: Lesson, teacher: nn.Module | None, track: Track = untracked
) -> tuple[tuple[float, float], bool]:
    """Take the steps; return the loss in the first and in the last, and whether they were on other views."""
    assert isinstance(lesson.rate, float)
    called, losses, views = _Called(job.target.model), list[float](), False
    adam = torch.optim.AdamW(learnt.parameters(), lr=lesson.rate, weight_decay=lesson.decay)
    for step in track(range(lesson.steps), "Learning", lesson.steps):
        for group in adam.param_groups:
            group["lr"] = lesson.rate * (1 + cos(pi * step / lesson.steps)) / 2
        total = 0.0
        for batch, asked in _batches(job, lesson, step):
            with torch.enable_grad():
                tensors = {f"model.{key}": tensor for key, tensor in learnt.tensors().items()}
                loss = torch.func.functional_call(called, tensors, (_loss, job, asked, teacher, batch))
                backward(loss)
            total, views = total + float(loss.detach()), views or asked.views
        if not isfinite(total):
            raise PortError(
                f"the loss is NaN or Inf after {step} steps at a rate of {lesson.rate:g}: give a smaller one"
            )
        losses.append(total)
        adam.step()
        adam.zero_grad()
    return (losses[0], losses[-1]), views


class _Called(nn.Module):
    """A model as an argument, so that torch can put other tensors in its place for the time of one call."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[..., Tensor], *given: Any) -> Tensor:
        return function(self.model, *given)


def _loss(model: nn.Module, job: Job, lesson: Lesson, teacher: nn.Module | None, batch: Batch) -> Tensor:
    """Return what is minimised, summed over a batch's samples."""
    parts = [job.target.loss(model, batch.target)] if lesson.labels else []
    if teacher is not None:
        assert job.base.answers is not None and job.target.answers is not None  # `_teacher` has checked
        with torch.no_grad():
            wanted = job.base.answers(teacher, batch.base)
        given = job.target.answers(model, batch.target)
        parts.append(divergence(wanted.to(given.device), given))
    return torch.stack([part.reshape(()) for part in parts]).sum()


def divergence(wanted: Tensor, given: Tensor) -> Tensor:
    """Return Σ KL(softmax wanted ‖ softmax given) over the rows of two (m, K) logits.

    Raises:
        PortError: the two do not answer the same.
    """
    if wanted.shape != given.shape:
        raise PortError(
            f"the fine-tune's answers are {tuple(wanted.shape)}, the target's {tuple(given.shape)}: they cannot be "
            "compared"
        )
    wide = torch.promote_types(given.dtype, torch.float32)
    target, fine_tune = (F.log_softmax(each.to(wide), -1) for each in (given, wanted))
    return F.kl_div(target, fine_tune, reduction="sum", log_target=True)


def _batches(job: Job, lesson: Lesson, step: int) -> Iterator[tuple[Batch, Lesson]]:
    """Yield what a step is on, and what is learnt of it: of samples without labels the answers alone; and whether it is
    another view of the samples.
    """
    kinds = [(job.batches, lesson)]
    if job.unlabelled is not None and lesson.soft:
        kinds.append((job.unlabelled, replace(lesson, labels=False)))
    for kind, asked in kinds:
        batches = kind()
        seen = view_of(batches, step) if lesson.views else None
        asked = replace(asked, views=seen is not None)
        yield from ((batch, asked) for batch in (batches if seen is None else seen))


def _teacher(job: Job) -> nn.Module:
    if job.base.answers is None or job.target.answers is None:
        raise PortError(
            "the fine-tune's own answers mean nothing to the new base (another vocabulary, no head, or a number and no "
            "classes), so it cannot learn from them"
        )
    return tuned_copy(job)


def _trained(job: Job) -> dict[str, None]:
    """Return the names of the tensors that are trained: those of linear maps. What else a port changed stays so."""
    return dict.fromkeys(where.key for pair in job.pairs for where in pair.target.slices)


def _sites(job: Job, start: Tensors) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
    """Return the tensors of the target's sites, and their change so far, in float32 or wider; a tied one once."""
    keys = _trained(job)
    own = {key: p.detach() for key, p in job.target.model.named_parameters() if key in keys}
    wide = {key: torch.promote_types(tensor.dtype, torch.float32) for key, tensor in own.items()}
    changes = {key: start[key].to(own[key].device, wide[key]) for key in own if key in start}
    return own, changes
