"""The scores of a port: the fine-tuned source, the target without the port, with the naive copy, and with the port."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from hf_bico.core.errors import setting
from hf_bico.core.method import Track
from hf_bico.core.transport import added, holding
from hf_bico.families.heads import HeadKind, place
from hf_bico.families.tokenizing import fit_vocabulary
from hf_bico.io.changes.adapter_source import Adapted
from hf_bico.io.changes.forms import Shaped
from hf_bico.io.changes.source import open_model
from hf_bico.io.fits import borrowed
from hf_bico.io.models import RepoModel
from hf_bico.io.workspace import Workspace
from hf_bico.reports.records import Origin
from hf_bico.reports.report import Elsewhere, Evaluation
from hf_bico.tasks.asked import Asked
from hf_bico.tasks.evaluation import Evaluator
from hf_bico.tasks.labels import class_index
from hf_bico.tasks.overlap import Seen, unseen
from hf_bico.tasks.paired import Answered, ClassChange, by_class, paired
from hf_bico.tasks.samples import Draw, Task
from hf_bico.tasks.scores import Score
from hf_bico.tasks.usable import class_column
from hf_bico.workflows.choices import ReadingChoices
from hf_bico.workflows.elsewhere import Other
from hf_bico.workflows.plan import Plan
from hf_bico.workflows.scored import ScoringPlan
from hf_bico.workflows.session import Session, dataset_key, open_asked, speaker

SCORED_AT_ONCE = 4
"""How many batches of a port make one where a model is only asked, which takes less memory."""


def evaluator_of(session: Session, draws: Iterable[Draw], track: Track) -> Evaluator:
    """Return the evaluator on the evaluation split, or on a draw from it by the seed, without the samples
    that a port is made from.

    Args:
        draws: the calibration samples, of all ports that are to be scored on the same samples.

    Raises:
        PortError: no sample is left.
    """
    return _without_seen(session, draws, session.plan.scored, session.plan.samples.task, track, "eval_split")


def _without_seen(
    session: Session, draws: Iterable[Draw], scoring: ScoringPlan, task: Task, track: Track, mend: str
) -> Evaluator:
    """Return the evaluator on samples that a port is not made from; see `unseen`.

    Args:
        mend: the setting that names other samples.
    """
    more = session.unlabelled
    seen = Seen.of((each for drawn in draws for each in drawn.samples), more.samples if more else ())
    left = unseen(scoring.split, scoring.name, scoring.indices, task, seen, track, setting(mend))
    return Evaluator(task, scoring.name, scoring.split, left, SCORED_AT_ONCE * session.plan.samples.size, track)


def evaluation_key(plan: Plan, config: ReadingChoices) -> list[Any]:
    """Return what tells these evaluation samples from all others."""
    scoring = plan.scored
    return [
        dataset_key(plan.lineage.dataset),
        plan.samples.dataset.config,
        scoring.name,
        scoring.n,
        scoring.seed,
        scoring.dtype,
        plan.samples.max_length,
        config.columns,
        config.streaming,
    ]


def score_all(
    session: Session,
    drawn: Draw,
    evaluator: Evaluator,
    ported: Shaped,
    baselines: Mapping[str, Shaped],
    workspace: Workspace,
) -> Evaluation:
    """Return the scores of what would be written: sums are taken in the target's own dtype.

    Args:
        session: without its base, for the fine-tune to take its place.
        evaluator: what `evaluator_of` returns.
        baselines: method → what the port is measured against; "naive" is among them.
    """
    source, evaluator = score_tuned(session, drawn, evaluator, workspace)
    plan, found, others = session.plan, {"source": source}, {}
    elsewhere = [
        _without_seen(session, [drawn], each.scoring, each.task, evaluator.track, "also") for each in plan.others
    ]
    for role, (what, change) in _states(ported, baselines).items():
        with holding(session.target.model, added(session.weights, change.delta, change.alpha) if change else ()):
            found[role] = _answered(session, drawn, workspace, what, evaluator)
            if role in ("zero_shot", "ported"):
                asked = zip(plan.others, elsewhere, strict=True)
                others[role] = [_elsewhere(session, drawn, workspace, what, *each) for each in asked]
    against = [name for name in ("zero_shot", "naive", "source", "bico") if name in found]
    pairs = filter(None, (paired(found["ported"], found[name], name) for name in against))
    return Evaluation(
        split=evaluator.name,
        source=source.score,
        zero_shot=found["zero_shot"].score,
        naive=found["naive"].score,
        ported=found["ported"].score,
        comparable=comparable(session, source.score),
        bico=found["bico"].score if "bico" in found else None,
        dtype=plan.scored.dtype,
        overlapping=plan.scored.size - len(evaluator.indices),
        paired=tuple(pairs) or None,
        classes=_classes(evaluator, found["ported"], found["zero_shot"]) or None,
        elsewhere=tuple(
            Elsewhere(
                Origin.of(each.pinned), each.scoring.name, before.score, after.score, paired(after, before, "zero_shot")
            )
            for each, before, after in zip(plan.others, others["zero_shot"], others["ported"], strict=True)
        )
        or None,
    )


def _states(ported: Shaped, baselines: Mapping[str, Shaped]) -> dict[str, tuple[str, Shaped | None]]:
    """Return what the target is scored as: role → what to call it, and the change that it holds, if any."""
    called = {"naive": "the naive copy", "bico": "the paper's method"}
    held = {name: (called[name], baselines[name]) for name in called if name in baselines}
    return {"zero_shot": ("the target", None), **held, "ported": ("the port", ported)}


def _answered(session: Session, drawn: Draw, workspace: Workspace, what: str, evaluator: Evaluator) -> Answered:
    """Return the answers of the target as it stands."""

    def compute() -> dict[str, Any]:
        with session.target_as_it_is(drawn) as (asked, _):
            return evaluator.answered(what, asked).to_plain()

    return Answered.from_plain(workspace.once(f"answers of {what}", compute))


def _elsewhere(
    session: Session, drawn: Draw, workspace: Workspace, what: str, other: Other, evaluator: Evaluator
) -> Answered:
    """Return the answers of the target as it stands to another dataset."""
    plan = session.plan

    def compute() -> dict[str, Any]:
        with session.target_as_it_is(drawn) as (asked, _):
            asked = other.asks(asked, plan.models, plan.samples.max_length)
            return evaluator.answered(f"{what} on {other.pinned.name}", asked).to_plain()

    return Answered.from_plain(workspace.once(f"answers of {what} to {other.key()}", compute))


def _classes(evaluator: Evaluator, ported: Answered, before: Answered) -> tuple[ClassChange, ...]:
    """Return what the port did to every class, where every sample has one."""
    task, indices = evaluator.task, evaluator.indices
    column, names = class_column(evaluator.split, task), task.class_names
    if column is None:
        return ()
    rows = zip(indices, evaluator.split.rows(indices, [column]), strict=True)
    labels = [class_index(names, index, row[column]) for index, row in rows]
    return by_class(ported, before, labels, names)


def score_tuned(
    session: Session, drawn: Draw, evaluator: Evaluator, workspace: Workspace
) -> tuple[Answered, Evaluator]:
    """Return the fine-tune's own answers, and how the others are scored: without labels, against what it gives."""
    plain = session.plan.models.head is not HeadKind.NONE
    name = "answers of the source"
    if plain and workspace.has(name):
        return Answered.from_plain(workspace.once(name, dict)), evaluator
    asked = open_source(session, drawn)
    seen = evaluator.per_sample("the source", asked)
    evaluator = evaluator if plain else evaluator.against(seen)
    found = Answered.of(asked.objective.score(seen, evaluator.reference), seen)
    return Answered.from_plain(workspace.once(name, found.to_plain)), evaluator


def open_source(session: Session, drawn: Draw) -> Asked:
    """Return the fine-tune that is ported, live, of the tensors that τ is taken of.

    An adapter is its base with the adapter's tensors, and has the tokenizer that was saved with it. What a whole
    fine-tune did not save is its base's.
    """
    models, tuned, folders = session.plan.models, session.ported.tuned, session.folders
    if isinstance(tuned, Adapted):
        return open_tuned(session, models.base, folders[1], drawn, tuned.own, feeds=folders[0])
    lacking = borrowed(models.tuned, models.base)
    base = open_model(models.library, models.base, folders[1]) if lacking else {}
    return open_tuned(session, models.tuned, folders[0], drawn, {key: base[key] for key in lacking})


def open_tuned(
    session: Session,
    model: RepoModel,
    folder: Path,
    drawn: Draw,
    change: Mapping[str, Tensor] | None = None,
    *,
    feeds: Path | None = None,
) -> Asked:
    """Return a fine-tune, live, with its own head; a model of features gets a probe of its own.

    Args:
        model: what is known of the model in the folder: the fine-tune, or its base.
        change: the tensors in which the fine-tune differs from the folder's model.
        feeds: a folder whose tokenizer and processor are taken, where it has them.
    """
    asked = open_asked(session.plan, model, folder, feeds or speaker(session.plan, session.folders))
    fit_vocabulary(asked.model, change or {})
    place(asked.model, change or {})
    return session.head.on_tuned(asked, drawn.samples)


def comparable(session: Session, score: Score) -> bool:
    """Return whether the scores of source and target are on one scale; perplexities over other tokens are not."""
    return score.metric != "perplexity" or session.one_vocabulary
