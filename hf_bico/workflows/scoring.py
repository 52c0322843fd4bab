"""The scores of a port: the fine-tuned source, the target without the port, with the naive copy, and with the port."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
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
from hf_bico.reports.report import Evaluation
from hf_bico.tasks.asked import Asked
from hf_bico.tasks.evaluation import Evaluator
from hf_bico.tasks.overlap import Seen, unseen
from hf_bico.tasks.samples import Draw
from hf_bico.tasks.scores import Score
from hf_bico.workflows.config import ReadingChoices
from hf_bico.workflows.plan import Plan
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
    scoring, samples, more = session.plan.scored, session.plan.samples, session.unlabelled
    seen = Seen.of((each for drawn in draws for each in drawn.samples), more.samples if more else ())
    mend = setting("eval_split")
    left = unseen(scoring.split, scoring.name, scoring.indices, samples.task, seen, track, mend)
    return Evaluator(samples.task, scoring.name, scoring.split, left, SCORED_AT_ONCE * samples.size, track)


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

    def score(what: str) -> Score:
        def compute() -> dict[str, Any]:
            with session.target_as_it_is(drawn) as (asked, _):
                return asdict(evaluator.score(what, asked))

        return Score(**workspace.once(what, compute))

    def with_change(what: str, change: Shaped) -> Score:
        with holding(session.target.model, added(session.weights, change.delta, change.alpha)):
            return score(what)

    return Evaluation(
        evaluator.name,
        source,
        score("the target"),
        with_change("the naive copy", baselines["naive"]),
        with_change("the port", ported),
        comparable(session, source),
        with_change("the paper's method", baselines["bico"]) if "bico" in baselines else None,
        session.plan.scored.dtype,
        overlapping=session.plan.scored.size - len(evaluator.indices),
    )


def score_tuned(session: Session, drawn: Draw, evaluator: Evaluator, workspace: Workspace) -> tuple[Score, Evaluator]:
    """Return the fine-tune's own score, and how the others are scored: without labels, against what it gives."""
    plain = session.plan.models.head is not HeadKind.NONE
    if plain and workspace.has("the source"):
        return Score(**workspace.once("the source", dict)), evaluator
    asked = open_source(session, drawn)
    seen = evaluator.per_sample("the source", asked)
    evaluator = evaluator if plain else evaluator.against(seen)
    score = asked.objective.score(seen, evaluator.reference)
    return Score(**workspace.once("the source", lambda: asdict(score))), evaluator


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
