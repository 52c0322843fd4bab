"""Whether a classifier is carried over or fitted to the samples, by the loss of samples that are held out."""

from collections.abc import Sequence
from dataclasses import replace

from hf_bico.core.choice import Chosen
from hf_bico.core.folds import ports_of_folds
from hf_bico.core.method import Job
from hf_bico.core.transport import added, holding
from hf_bico.families import PurposeKind
from hf_bico.families.heads import HeadKind
from hf_bico.io.models import head_layers_of
from hf_bico.tasks.evaluation import unsure_loss
from hf_bico.tasks.heads import make_head
from hf_bico.tasks.samples import Draw
from hf_bico.workflows.session import Session, halves_of

Losses = dict[str, float]
"""Kind of head → the loss on held-out samples, summed."""


def with_better_head(session: Session, drawn: Draw, job: Job, chosen: Chosen) -> tuple[Session, Losses | None]:
    """Return the session with the head that does better under the port that was chosen, and both losses.

    Either head is tried as the port is, made from one half of the samples and scored on the other. Least squares do not
    know how sure to be, so that both losses are taken at the temperature where they are least. A session whose head
    cannot be carried is returned as it is, without losses.
    """
    spells = session.plan.models.purpose.kind is PurposeKind.CTC  # no letter of a frame is known to fit a head to
    if session.plan.models.head is not HeadKind.TRANSPORT or spells:
        return session, None
    carried, fitted = session, _fitted(session)
    kept = session.target.model.state_dict()
    own = [(key, kept[key].clone()) for key in fitted.plan.models.layers.target_keys]
    losses: Losses = {}
    a, b = halves_of(drawn)
    sums = chosen.made.collected(chosen.method.wanted.views)
    parts = (sums.of(number) for number in range(len(job.folds)))
    for (_, delta), halves in zip(ports_of_folds(job, chosen.method, parts), ((a, b), (b, a)), strict=True):
        for each in (carried, fitted):
            changed = [*added(job.weights, delta, chosen.choice.chosen.alpha), *own]
            with holding(session.target.model, changed):
                kind = each.plan.models.head.value
                losses[kind] = losses.get(kind, 0.0) + _loss(each, halves)
    better = min((carried, fitted), key=lambda each: losses[each.plan.models.head.value])
    return better, losses


def _fitted(session: Session) -> Session:
    """Return the session with a head that is fitted."""
    plan = session.plan
    models, samples = plan.models, plan.samples
    layers = head_layers_of(models.base, models.target, HeadKind.RIDGE, models.purpose)
    models = replace(models, head=HeadKind.RIDGE, layers=layers)
    head = make_head(HeadKind.RIDGE, samples.task, samples.size, layers, {})
    return replace(session, plan=replace(plan, models=models), head=head)


def _loss(session: Session, halves: Sequence[Draw]) -> float:
    fit, rest = halves
    with session.target_as_it_is(fit) as (asked, _):
        return unsure_loss(asked, rest.samples, session.plan.samples.size, fitted=True)
