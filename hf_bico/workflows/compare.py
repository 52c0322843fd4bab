"""`hf-bico compare`: every method, α, N and seed on one evaluation split, from repos. Nothing is pushed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from torch import nn

from hf_bico import __version__
from hf_bico.core.compare import Row, compare
from hf_bico.core.difference import Difference
from hf_bico.core.errors import PortError, setting
from hf_bico.core.method import Method, Track, untracked
from hf_bico.core.methods import METHODS, Naive, method_of
from hf_bico.core.notes import listening
from hf_bico.core.transport import check_fine_tune
from hf_bico.families.heads import HeadKind
from hf_bico.io.changes.source import fetch, open_model
from hf_bico.io.checkpoints import require_weights
from hf_bico.io.hub import Hub
from hf_bico.io.models import RepoModel, repo_model
from hf_bico.io.reference import Pinned, errors_about
from hf_bico.io.workspace import Workspace
from hf_bico.io.writer import staged
from hf_bico.reports.figures import draw_comparison
from hf_bico.reports.records import Environment, Tried, origins
from hf_bico.reports.report import CompareReport
from hf_bico.reports.tables import PICTURE, SOURCE, judged, markdown, summary
from hf_bico.tasks.evaluation import Evaluator
from hf_bico.tasks.requirements import check_search
from hf_bico.tasks.samples import Draw, check_draw
from hf_bico.tasks.scores import Score, recovered
from hf_bico.tasks.strategies import Calibration
from hf_bico.workflows.blocks import match_blocks
from hf_bico.workflows.chance import judged_classes, require_better_than_chance
from hf_bico.workflows.choices import OutputChoices
from hf_bico.workflows.config import CompareConfig
from hf_bico.workflows.early import require_choices
from hf_bico.workflows.plan import Plan, check_alpha, make_plan
from hf_bico.workflows.polish import polish_of, with_polish
from hf_bico.workflows.redo import asked_of
from hf_bico.workflows.run import Run
from hf_bico.workflows.scoring import comparable, evaluation_key, evaluator_of, open_tuned, score_tuned
from hf_bico.workflows.session import Session, models_key, open_session


@dataclass(frozen=True)
class Goal:
    """What ports are measured by."""

    what: str
    pinned: Pinned
    score: Score


@dataclass(frozen=True)
class Bench:
    """What all ports of a comparison have in common."""

    config: CompareConfig
    methods: Mapping[str, Method]
    tuned: Pinned | None
    """The target's own fine-tune, if one is named."""
    run: Run


def run(config: CompareConfig, hub: Hub, track: Track = untracked) -> dict[str, Any]:
    """Return the whole comparison as plain JSON data; it is also written to the config's `output` if it has one.

    Raises:
        PortError: whatever stands in the way. What a method refuses is in its row.
    """
    running = Run(hub, track)
    with listening(running.notes.append):
        return _run(config, running)


def _run(config: CompareConfig, running: Run) -> dict[str, Any]:
    """Return the whole comparison; see `run`."""
    with running.clock("resolve"):
        methods, calibrations = chosen(config), calibrations_of(config)
        for alpha in config.alphas:
            check_alpha(alpha)
        require_choices(config)
        plan = make_plan(config, running.hub, methods, calibrations[0], bank=config.bank)
        plan = replace(plan, method=Naive())  # what the methods refuse is in their rows
        methods = with_polish(methods, polish_of(config, plan.models))
        bench = Bench(config, methods, _tuned(config, plan, calibrations, running.hub), running)
    session = open_session(plan, running)
    with running.clock("compare"):
        draws = _Draws(bench, session, calibrations)
        for calibration in calibrations:
            draws.add(calibration)
    data = _report(bench, session, draws).to_json()
    _write(config, data)
    for space in draws.spaces:
        space.clear()
    return data


def calibrations_of(config: CompareConfig) -> list[Calibration]:
    """Return how samples are drawn, one entry for every size and seed.

    Raises:
        PortError: sizes are given in both ways, or there are no draws.
    """
    if config.sizes and config.per_class:
        raise PortError(f"{setting('per_class')} and {setting('sizes')} both say how many samples: give one of them")
    if config.seeds < 1:
        raise PortError(f"{setting('seeds')} {config.seeds} asks for no draws")
    sizes: list[tuple[int | None, int | None]] = [(None, k) for k in dict.fromkeys(config.per_class)]
    sizes += [(n, None) for n in dict.fromkeys(config.sizes)]
    return [
        Calibration(n, per_class, config.strategy, seed)
        for n, per_class in sizes or [(100, None)]
        for seed in range(config.seeds)
    ]


def chosen(config: CompareConfig) -> dict[str, Method]:
    """Return the methods with their options, by the words that name them: "bico", "response ridge=1".

    Raises:
        PortError: no such method or option, or an option of a method that is not compared.
    """
    names = list(dict.fromkeys(config.methods)) or list(METHODS)
    options: dict[str, list[str]] = {name: [] for name in names}
    for given in config.options:
        name, colon, rest = given.partition(":")
        if not colon or name not in options:
            raise PortError(
                f"{setting('options')} {given}: give METHOD:name=value, with METHOD one of {', '.join(names)}"
            )
        options[name].append(rest)
    words = {name: name.split() or [name] for name in names}
    return {name: method_of(first, [*own, *options[name]]) for name, (first, *own) in words.items()}


def _tuned(config: CompareConfig, plan: Plan, calibrations: Sequence[Calibration], hub: Hub) -> Pinned | None:
    """Return the target's own fine-tune, if one is named, once all that is left to check has been checked.

    Raises:
        PortError: a draw that the split cannot give, a search that the head rules out, no such fine-tune.
    """
    for alpha in config.alphas:
        check_search(alpha, plan.models.head)
    for calibration in calibrations:
        check_draw(plan.samples.name, plan.samples.labels, plan.samples.task, calibration)
    tuned = hub.resolve(config.target_tuned) if config.target_tuned else None
    if tuned:
        require_weights(tuned, plan.models.library)
    return tuned


class _Draws:
    """Every method and α on one draw of samples after the other."""

    def __init__(self, bench: Bench, session: Session, calibrations: Sequence[Calibration]) -> None:
        self.bench, self.opened = bench, session
        self.drawn = {each: session.draw(bench.run.track, each) for each in calibrations}
        self.evaluator = evaluator_of(session, self.drawn.values(), bench.run.track)
        self.tuned = {"tuned": bench.tuned and str(bench.tuned), "scored": self.evaluator.indices}
        self.workspace = Workspace(_key(bench, session) | self.tuned)
        self.spaces = [self.workspace]
        self.draws: list[dict[str, Any]] = []
        self.rows: list[dict[str, Any]] = []
        self.source: Score | None = None
        self.reference: Goal | None = None

    def add(self, calibration: Calibration) -> None:
        """Add the rows of one more draw."""
        bench, track = self.bench, self.bench.run.track
        drawn = self.drawn[calibration]
        session, _ = match_blocks(self.opened, bench.config, drawn, track)
        session = session.with_head(drawn, track)
        probed = session.plan.models.head is HeadKind.PROBE
        key = {
            "draw": drawn.sha256,
            "options": bench.config.options,
            "polish": asdict(polish_of(bench.config, session.plan.models)),
            "bank": session.plan.samples.bank,
        }
        space = Workspace(_key(bench, session) | key | self.tuned)
        reference = self.reference
        if reference is None or probed:  # a probe is fitted to the draw
            reference = self.reference = self._goal(session, drawn, space if probed else self.workspace)
        start, some = _rows(bench, session, drawn, self.evaluator, calibration, space)
        self.spaces.append(space)
        assert self.source is not None  # scored with the goal
        scores = {"start": start, "source": self.source, "reference": reference.score}
        self.draws.append(drawn.record() | {name: asdict(score) for name, score in scores.items()})
        goal = reference.score if bench.tuned or comparable(session, start) else None
        self.rows += [_row_record(row, calibration, len(drawn.samples), start, goal) for row in some]

    def _goal(self, session: Session, drawn: Draw, workspace: Workspace) -> Goal:
        """Score the source, and return what ports are measured by.

        Raises:
            PortError: the source is no better than chance; a fine-tune of the target that is none.
        """
        source, self.evaluator = score_tuned(session, drawn, self.evaluator, workspace)
        self.source = source.score
        if not self.bench.config.allow_regression:
            require_better_than_chance(self.source, session.plan)
        pinned, evaluator = self.bench.tuned, self.evaluator
        if pinned is None:
            return Goal(SOURCE, session.plan.lineage.source, self.source)
        with errors_about(pinned):
            asked = open_tuned(session, *_target_tuned(self.bench, session, pinned), drawn)
            score = workspace.once(
                "the target's fine-tune", lambda: asdict(evaluator.score("the target's fine-tune", asked))
            )
        return Goal("the target's own fine-tune", pinned, Score(**score))


def _target_tuned(bench: Bench, session: Session, pinned: Pinned) -> tuple[RepoModel, Path]:
    """Return what is known of the target's own fine-tune, and its folder.

    Raises:
        PortError: it is no fine-tune of the target.
    """
    models = session.plan.models
    folder = fetch(models.library, pinned, bench.run.hub)
    mend = f"name what it was made from with {setting('target_tuned')}"
    model = repo_model(pinned, folder, bench.run.hub, models.library, models.purpose, bench.config.family, mend)
    tensors = open_model(models.library, model, folder)
    names = tensors.without(tensors.keys() - session.weights.keys())
    sites = [pair.target for pair in models.pairs]
    tau = Difference(names, session.weights, must=[s.key for site in sites for s in site.slices])
    check_fine_tune(tau, session.weights, sites, trusted=session.plan.trusted)
    return model, folder


def _key(bench: Bench, session: Session) -> dict[str, Any]:
    """Return all that the scores depend on, apart from the draw and the method."""
    plan = session.plan
    return {
        "hf_bico": __version__,
        "models": models_key(session),
        "task": asdict(plan.samples.task),
        "batch": plan.samples.size,
        "head": plan.models.head,
        "pairs": [[a.name, b.name] for a, b in plan.models.pairs],
        "evaluation": evaluation_key(plan, bench.config),
    }


def _rows(
    bench: Bench,
    session: Session,
    drawn: Draw,
    evaluator: Evaluator,
    calibration: Calibration,
    space: Workspace,
) -> tuple[Score, list[Row]]:
    """Return the target's score without a port, and the rows of every method and α on one draw."""
    n, model = len(drawn.samples), session.target.model
    what = f"N = {n}, seed {calibration.seed}"

    def score(live: nn.Module) -> Score:
        with session.target_as_it_is(drawn) as (asked, _):
            return evaluator.score(what, asked)

    start = Score(**space.once("start", lambda: asdict(score(model))))
    alphas = list(dict.fromkeys(bench.config.alphas))
    return start, compare(
        session.job(drawn),
        bench.methods,
        n,
        lambda live: ((found := score(live)).value, found.also),
        alphas=alphas,
        once=space.once,
        track=bench.run.track,
    )


def _row_record(row: Row, calibration: Calibration, n: int, start: Score, reference: Score | None) -> dict[str, Any]:
    gap = None
    if row.score is not None and reference is not None:
        gap = recovered(row.score, start.value, reference.value, start.metric)
    search = None if row.search is None else [asdict(Tried(*each)) for each in row.search]
    return {
        "n": n,
        "per_class": calibration.per_class,
        "seed": calibration.seed,
        **asdict(row),
        "recovered": gap,
        "search": search,
    }


def _report(bench: Bench, session: Session, draws: _Draws) -> CompareReport:
    """Return the report of a comparison."""
    reference, plan = draws.reference, session.plan
    assert reference is not None  # there is a draw
    start, source, goal = (_mean(draws.draws, name) for name in ("start", "source", "reference"))
    measured = goal if bench.tuned or comparable(session, start) else None
    return CompareReport(
        lineage=origins(plan.lineage, session.hashes),
        command=f"hf-bico port {asked_of(bench.config, plan.lineage)}",
        evaluation={
            "split": plan.scored.name,
            "metric": start.metric,
            "source": asdict(source),
            "zero_shot": asdict(start),
            "overlapping": plan.scored.size - len(draws.evaluator.indices),
            **({"dtype": plan.scored.dtype} if plan.scored.dtype else {}),
        },
        reference={"what": reference.what, "model": str(reference.pinned), **asdict(goal)},
        methods={name: method.options for name, method in bench.methods.items()},
        calibration=draws.draws,
        head=plan.models.head,
        task=plan.samples.task.record(),
        rows=draws.rows,
        summary=judged(summary(draws.rows), start, measured, 0 if bench.tuned else judged_classes(plan)),
        environment=Environment.of(plan.models.device, bench.run.clock.seconds),
        notes=tuple(bench.run.notes) or None,
    )


def _mean(draws: Sequence[dict[str, Any]], name: str) -> Score:
    """Return the first draw's score of a name with the means over the draws; a probe's is another in each."""
    first = Score(**draws[0][name])
    also = {metric: fmean(draw[name]["also"][metric] for draw in draws) for metric in first.also}
    return replace(first, value=fmean(draw[name]["value"] for draw in draws), also=also)


def _write(config: OutputChoices, data: dict[str, Any]) -> None:
    if config.output is None:
        return
    with staged(config.output, overwrite=config.overwrite) as stage:
        stage.mkdir()
        (stage / "compare.json").write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        pictured = draw_comparison(data["summary"], data["reference"]["what"], stage / PICTURE)
        (stage / "compare.md").write_text(markdown(data, pictured=pictured), encoding="utf-8")
