"""A port: plan, session, gather, carry, score, deliver."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from hf_bico import __version__
from hf_bico.core.choice import Choice, Chosen, choice_of
from hf_bico.core.device import peak
from hf_bico.core.low_rank import Delta
from hf_bico.core.method import Job, Track, untracked
from hf_bico.core.methods import Naive
from hf_bico.core.methods.polished import polished
from hf_bico.core.notes import listening
from hf_bico.core.ranks import here, require_same
from hf_bico.core.riders import Rode
from hf_bico.core.search import AUTO, Search, best_of, refined_search
from hf_bico.core.transport import Moved, Taught, Transported, added, holding
from hf_bico.families import told_of
from hf_bico.io.changes.forms import Form, Shaped
from hf_bico.io.changes.peft import write_delta
from hf_bico.io.checkpoints import OpenedBase
from hf_bico.io.hub import Hub
from hf_bico.io.workspace import Workspace
from hf_bico.io.writer import write_model
from hf_bico.reports.card import write_card
from hf_bico.reports.energy import energy
from hf_bico.reports.estimate import measured
from hf_bico.reports.figures import draw_report
from hf_bico.reports.memory import bytes_of
from hf_bico.reports.opening import Opening
from hf_bico.reports.records import (
    BankRecord,
    CalibrationRecord,
    Environment,
    HeadRecord,
    MatchingRecord,
    MethodRecord,
    TaskVectorRecord,
    TaughtRecord,
    Written,
    layer_table,
    origins,
)
from hf_bico.reports.report import Evaluation, PortReport, write_report
from hf_bico.reports.worth import Worth, refusal_of, worth
from hf_bico.tasks.evaluation import Evaluator
from hf_bico.tasks.samples import Draw
from hf_bico.workflows.announce import announce, write_benchmark
from hf_bico.workflows.blocks import compared, match_blocks
from hf_bico.workflows.card import kept_text
from hf_bico.workflows.chance import judged_classes, require_learnt
from hf_bico.workflows.companions import write_companions
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.deliver import Delivery
from hf_bico.workflows.dry_run import cost, groups_within
from hf_bico.workflows.head_choice import Losses, with_better_head
from hf_bico.workflows.in_groups import with_baselines
from hf_bico.workflows.options import RECIPE_FILE
from hf_bico.workflows.plan import make_port_plan, matching_record
from hf_bico.workflows.polish import polish_of
from hf_bico.workflows.redo import asked_of, redo_port
from hf_bico.workflows.run import Run
from hf_bico.workflows.scoring import evaluation_key, evaluator_of, score_all, score_tuned
from hf_bico.workflows.session import Session, models_key, open_session
from hf_bico.workflows.used import used


@dataclass(frozen=True)
class Outcome:
    """A finished port."""

    report: dict[str, Any]
    evaluation: Evaluation
    verdict: Worth
    output: Path | None
    url: str | None
    refusal: str | None
    """Why it was not pushed although a push was asked for."""
    announced: str | None = None
    """URL of the pull request that tells the fine-tune's owner, if there is one."""

    def __repr__(self) -> str:
        names = " → ".join(self.report["lineage"][role]["name"] for role in ("source", "target"))
        scores = f"{self.evaluation.ported.metric} {self.evaluation.ported}, without it {self.evaluation.zero_shot}"
        where = [f"{name}={str(each)!r}" for name, each in (("output", self.output), ("url", self.url)) if each]
        return f"Outcome({', '.join([f'{names}: {self.verdict.word}', scores, *where])})"


@dataclass(frozen=True)
class CarriedOver:
    """A change carried over, as it will be written."""

    moved: Sequence[Moved]
    beside: Sequence[Rode]
    """What moved beside the linear maps."""
    shaped: Shaped
    baselines: Mapping[str, Shaped]
    """Method → its change, for what the port is measured against: the naive copy at the same α, and the paper's method
    where another one was chosen."""
    search: Search | None
    """The line search for α, if there was one."""
    alpha: float
    choice: Choice | None
    """How the method was chosen, if it was."""
    taught: Taught | None
    """How it was trained, if it was."""
    heads: Losses | None
    """The losses by which the head was chosen, if it was."""

    @property
    def is_nothing(self) -> bool:
        """Whether the target stays as it is."""
        delta = self.shaped.delta
        return self.alpha == 0 or not any(bool(delta[key].any()) for key in delta)


class Told(NamedTuple):
    """What is told of a port beside its weights."""

    report: PortReport
    recipe: str
    """The text of its recipe."""
    runs: bool
    """Whether there is memory to run the card's code."""


def run(config: PortConfig, hub: Hub, track: Track = untracked) -> Outcome:
    """Port a fine-tune, score it, and write or push it.

    Raises:
        PortError: whatever stands in the way; nothing is written or pushed then.
    """
    with energy() as spent:
        running = Run(hub, track, spent=spent)
        with listening(running.notes.append):
            return _run(config, running)


def _run(config: PortConfig, running: Run) -> Outcome:
    """Port, score, and write or push; see `run`."""
    with running.clock("resolve"):
        plan = make_port_plan(config, running.hub)
        polish, memory = polish_of(config, plan.models), bytes_of(config.memory)
        expected = cost(plan, search=config.alpha == AUTO, polish=polish, memory=memory)
    session = open_session(plan, running)
    delivery = Delivery("port is", config.output, plan.destination, overwrite=config.overwrite)
    delivery.require_room(sum(tensor.nbytes for tensor in session.weights.values()))
    with running.clock("draw"):
        drawn = session.draw(running.track)
        session, found = match_blocks(session.with_unlabelled(), config, drawn, running.track)
        found = found or compared(session, drawn)
        workspace = _workspace(config, session, drawn)
        session = session.with_head(drawn, running.track)
        evaluator = here().lead("what is scored", partial(evaluator_of, session, [drawn], running.track))
    if not config.allow_regression:
        here().lead("the fine-tune's score", partial(_require_learnt, session, drawn, evaluator, workspace))
    groups = groups_within(session.plan, memory, expected.held_bytes)
    session, carried = _carry(config, session, drawn, workspace, running, groups)
    session = session.without_base()

    def finish() -> Outcome:
        assert carried is not None and evaluator is not None  # rank 0 alone finishes
        with running.clock("evaluate"):
            evaluation = score_all(session, drawn, evaluator, carried.shaped, carried.baselines, workspace)
        again = redo_port(config, session.plan, carried.alpha)
        is_nothing, classes = carried.is_nothing, judged_classes(plan)
        asked, scored = asked_of(config, plan.lineage), evaluation.scored
        verdict = worth(scored, alpha=carried.alpha, unchanged=is_nothing, classes=classes, asked=asked)
        report = replace(
            _report(config, session, drawn, carried, running),
            command=again.command,
            matching=MatchingRecord(**matching_record(config, found)),
            evaluation=evaluation,
            verdict=verdict,
            estimate=measured(expected, running.clock.seconds, peak(plan.models.device)),
            notes=tuple(running.notes) or None,
            licenses=plan.licenses or None,
            languages=plan.languages or None,
        )
        refusal = None if config.allow_regression or not delivery.destination else refusal_of(verdict)
        to = replace(delivery, destination=None) if refusal else delivery
        report, url = _deliver(
            session, drawn, carried.shaped, Told(report, again.recipe, config.memory is None), to, running
        )
        told = None
        if config.announce and url and to.destination:
            told = announce(running.hub, plan.lineage.source, to.destination.repo)
        return Outcome(report.to_json(), evaluation, verdict, config.output, url, refusal, told)

    outcome = here().first("the port", finish)
    workspace.clear()
    return outcome


def _require_learnt(session: Session, drawn: Draw, evaluator: Evaluator | None, workspace: Workspace) -> None:
    """Refuse a fine-tune that is no better than chance; it is scored for that."""
    assert evaluator is not None  # rank 0 alone scores
    require_learnt(session, drawn, lambda: score_tuned(session, drawn, evaluator, workspace)[0].score)


def _workspace(config: PortConfig, session: Session, drawn: Draw) -> Workspace:
    """Return where the port keeps its progress.

    Raises:
        PortError: there are several ranks, and they do not port the same.
    """
    key = _key(config, session, drawn)
    require_same("what they port", key)
    return Workspace(key)


def _key(config: PortConfig, session: Session, drawn: Draw) -> dict[str, Any]:
    """Return all that statistics and scores depend on, apart from rounding."""
    plan, more = session.plan, session.unlabelled
    method = [plan.method.name, plan.method.options, config.alpha, plan.samples.size, plan.models.head]
    method += [asdict(polish_of(config, plan.models)), config.add_tokens, config.model_dtype]
    return {
        "hf_bico": __version__,
        "models": models_key(session),
        "method": [*method, [[a.name, b.name] for a, b in plan.models.pairs], asdict(plan.storage)],
        "evaluation": evaluation_key(plan, config),
        "calibration": [drawn.sha256, asdict(plan.samples.task), plan.samples.bank, more and more.sha256],
    }


def _carry(
    config: PortConfig,
    session: Session,
    drawn: Draw,
    workspace: Workspace,
    run: Run,
    groups: Sequence[slice] | None,
) -> tuple[Session, CarriedOver | None]:
    """Return the change, collected, carried and cut, and the naive copy beside it; and the session, whose head was
    chosen with the method if it was not named. Ranks but the first help to make it, and get None.

    Args:
        groups: of layers that are carried one after the other; None: all at once.
    """
    job = replace(session.job(drawn), once=workspace.once)
    result, baselines = with_baselines(job, session.plan.method, groups, workspace, run)
    stored = here().lead("the change", lambda: _stored(config, session, drawn, job, result, workspace, run))
    if stored is None:  # rank 0 has it
        return session, None
    session, carried = stored
    shaped = {name: Shaped(delta, carried.alpha if name == Naive.name else 1.0) for name, delta in baselines.items()}
    return session, replace(carried, baselines=shaped)


def _stored(
    config: PortConfig, session: Session, drawn: Draw, job: Job, result: Transported, workspace: Workspace, run: Run
) -> tuple[Session, CarriedOver]:
    """Return the session with its head, and the change polished, cut and at its scale, as it will be written."""
    heads = None
    if isinstance(result, Chosen) and config.head is None:
        with run.clock("head"):
            session, heads = with_better_head(session, drawn, job, result)
    with run.clock("polish"):
        result = polished(result, job, polish_of(config, session.plan.models), run.track)
    storage, alpha, search = session.plan.storage, config.alpha, None
    with run.clock("cut"):
        delta, cuts = storage.truncated(result.delta)
    with run.clock("search"):
        if isinstance(alpha, str):  # auto
            search = workspace.once("the search", partial(_search, job, len(drawn.samples), delta, run.track))
            alpha = best_of(search)
    with run.clock("cut"):
        shaped = storage.stored(delta, alpha, cuts)
    choice = choice_of(result)
    return session, CarriedOver(result.moved, result.rode, shaped, {}, search, alpha, choice, result.taught, heads)


def _search(job: Job, n: int, delta: Delta, track: Track) -> Search:
    return refined_search(job.target, job.batches, n, job.weights, delta, track)


def _report(config: PortConfig, session: Session, drawn: Draw, carried: CarriedOver, run: Run) -> PortReport:
    """Return the report of a port, without its scores, layer matching, cost and command."""
    plan, change, placed = session.plan, session.ported, session.placed
    change = replace(change, account=change.account.after(carried.beside))
    samples, sentence = plan.samples, plan.models.purpose.sentence
    names = tuple(pair.target.name for pair in plan.models.layers.carried) or (sentence.dense if sentence else ())
    vector = TaskVectorRecord.of(change.ratio, change.account, carried.moved, change.adapter)
    return PortReport(
        lineage=origins(plan.lineage, session.hashes),
        method=MethodRecord.of(plan.method, carried.alpha, carried.search, carried.choice),
        calibration=CalibrationRecord(
            **drawn.record(),
            **samples.task.record(),
            rows=samples.split.num_rows,
            config=samples.dataset.config,
            bank=BankRecord.of(samples.bank),
        ),
        task_vector=replace(vector, written=Written.of(carried.shaped, plan.storage.form)),
        layers=layer_table(plan.models.pairs),
        head=HeadRecord(
            plan.models.head,
            names,
            placed.fit if names else None,
            tried=carried.heads,
            behind=sentence.says if sentence else None,
        ),
        moved=tuple(carried.moved),
        beside=tuple(carried.beside),
        left=tuple(change.account.left),
        roles=told_of(*((each.family, each.skeleton) for each in plan.models.each[1:])),
        polish=TaughtRecord.of(carried.taught, polish_of(config, plan.models)),
        unlabelled=plan.unlabelled.record(session.unlabelled) if plan.unlabelled and session.unlabelled else None,
        environment=Environment.of(plan.models.device, run.clock.seconds, run.spent()),
    )


def _deliver(
    session: Session, drawn: Draw, shaped: Shaped, text: Told, delivery: Delivery, run: Run
) -> tuple[PortReport, str | None]:
    """Write the folder with its card, report and recipe, push it, and return the report as written and the URL."""
    plan, told, to = session.plan, [text.report], delivery.destination
    kept = kept_text(run.hub, to.repo, to.parent, to.files) if to else ""

    def fill(stage: Path, repo: str | None) -> None:
        delta = _write(stage, session, drawn, shaped)
        opening = Opening.of(plan.models.library, plan.models.purpose, repo)
        told[0] = replace(text.report, delta=delta, opening=opening)
        write_report(stage, told[0])  # a delta opens by it
        whole = plan.storage.form is Form.MODEL
        opening = used(opening, plan, stage, session.folders[2], run.hub, whole=whole, runs=text.runs)
        told[0] = replace(told[0], opening=opening)
        (stage / RECIPE_FILE).write_text(text.recipe, encoding="utf-8")
        write_report(stage, told[0])
        draw_report(stage, told[0])
        write_benchmark(stage, run.hub, plan.lineage.dataset, told[0])
        write_card(stage, told[0], run.hub.api.endpoint, kept)

    url = delivery.send(fill, run.hub, run.track)
    return told[0], url


def _write(stage: Path, session: Session, drawn: Draw, shaped: Shaped) -> dict[str, Any] | None:
    """Write the whole model, or a delta or LoRA, with the head; return what opens the latter, for the report."""
    plan, model = session.plan, session.target.model
    models, target, folder = plan.models, plan.lineage.target, session.folders[2]
    with holding(model, added(session.weights, shaped.delta, shaped.alpha)), session.target_as_it_is(drawn) as (_, own):
        head = {key: tensor.clone() for key, tensor in own.items()}
    purpose = replace(models.purpose, sentence=None)
    base = OpenedBase(target, models.library, purpose, folder, session.weights, model)
    if plan.storage.form is Form.MODEL:
        write_model(stage, base, shaped.delta, shaped.alpha, head)
        write_companions(stage, session)
        return None
    found = write_delta(stage, base, shaped, head, [b.weight.key for _, b in models.pairs if b.weight.transposed])
    write_companions(stage, session)
    return found
