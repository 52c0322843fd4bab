"""Whether a source has learnt its task at all, before any work is put into it."""

from collections.abc import Callable
from itertools import chain

from hf_bico.core.errors import PortError, setting
from hf_bico.core.transport import added, holding
from hf_bico.families import Answer
from hf_bico.families.heads import HeadKind
from hf_bico.reports.worth import LABELS, chance_reason, may_be_chance
from hf_bico.tasks.evaluation import per_sample
from hf_bico.tasks.samples import Draw
from hf_bico.tasks.scores import Score
from hf_bico.workflows.plan import Plan
from hf_bico.workflows.session import Session, own_head

JUDGED = (HeadKind.ZERO_SHOT, HeadKind.TRANSPORT, HeadKind.RIDGE)
"""Heads of ports whose source has an accuracy of its own on the samples; a probe is fitted to them."""

GO_ON = f"{setting('allow_regression')} goes on all the same"
"""For those who know why."""


def require_learnt(session: Session, drawn: Draw, score: Callable[[], Score]) -> None:
    """Refuse a source that is no better than chance on the calibration samples, nor on those of the evaluation.

    The latter are asked where the first leave a doubt alone.

    Args:
        session: with its base, under the head that gradients are taken under.
        score: () → the source's own on the evaluation split.

    Raises:
        PortError: chance explains the source's answers.
    """
    if in_doubt(session, drawn):
        require_better_than_chance(score(), session.plan)


def judged_classes(plan: Plan) -> int:
    """Return the number of classes that the source chooses from under a head of its own; 0 where there is none."""
    one = plan.samples.task.labels.answer is Answer.CLASS
    return len(plan.samples.task.class_names) if one and plan.models.head in JUDGED else 0


def require_better_than_chance(score: Score, plan: Plan) -> None:
    """Refuse a source by its accuracy.

    Raises:
        PortError: chance explains its answers.
    """
    classes = judged_classes(plan)
    if score.metric == "accuracy" and may_be_chance(round(score.value * score.n), score.n, classes):
        raise PortError(f"{chance_reason(score, classes)}: {LABELS}; {GO_ON}")


def in_doubt(session: Session, drawn: Draw) -> bool:
    """Return whether chance explains the source's answers to the calibration samples; of one class they tell nothing.

    The source is the base with τ in it, under its own head.
    """
    plan, base, change = session.plan, session.base, session.ported
    classes = judged_classes(plan)
    if not classes or len({sample.label for sample in drawn.samples}) < 2:
        return False
    tuned = chain(added(base.model.state_dict(), change.tau), own_head(plan.models, change).items())
    with holding(base.model, tuned):
        right = per_sample(base, drawn.samples, 4 * plan.samples.size)
    return may_be_chance(int(right.sum()), len(right), classes)
