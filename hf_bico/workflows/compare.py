"""`hf-bico compare`: every method, α, N and seed on one evaluation split, from repos. Nothing is pushed."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from torch import nn

from hf_bico import __version__
from hf_bico.core.compare import Row, compare
from hf_bico.core.errors import PortError
from hf_bico.core.methods import METHODS, Method, Track, method_of, untracked
from hf_bico.core.transport import Difference, check_fine_tune
from hf_bico.families.heads import PROBE
from hf_bico.io.checkpoints import Named, SafeTensors, require_weights
from hf_bico.io.hub import Hub
from hf_bico.io.reference import Pinned, errors_about
from hf_bico.io.workspace import Workspace
from hf_bico.io.writer import staged
from hf_bico.reports.report import SCHEMA, Clock, environment, search_record
from hf_bico.reports.tables import markdown
from hf_bico.tasks.evaluation import Evaluator
from hf_bico.tasks.requirements import check_search, read_bank, require_task
from hf_bico.tasks.samples import Draw, check_draw
from hf_bico.tasks.scores import Score, recovered
from hf_bico.tasks.strategies import Calibration
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.plan import Blueprint, check_alpha, draft
from hf_bico.workflows.session import (
    Ready,
    evaluation_key,
    exam,
    fetch,
    models_key,
    own_side,
    prepare,
    score_source,
    within_memory,
)


@dataclass(frozen=True)
class CompareConfig:
    """Every choice of a comparison."""

    port: PortConfig
    """What all ports of it share; its method, α, N and seed are not read, but that the seed draws `eval_n` samples."""
    sizes: tuple[int, ...] = ()
    per_class: tuple[int, ...] = ()
    seeds: int = 3
    methods: tuple[str, ...] = ()
    """All unless given."""
    options: tuple[str, ...] = ()
    """Each as "method:name=value"."""
    alphas: tuple[float | str, ...] = (1.0,)
    target_tuned: str | None = None
    """A fine-tune of the target itself, which the gap is then measured to; else it is to the source's own score."""

    def calibrations(self) -> list[Calibration]:
        """One a size and seed."""
        if self.sizes and self.per_class:
            raise PortError("--per-class and -n both say how many samples: give one of them")
        if self.seeds < 1:
            raise PortError(f"--seeds {self.seeds} asks for no draws")
        sizes = [(None, k) for k in dict.fromkeys(self.per_class)] or [(n, None) for n in dict.fromkeys(self.sizes)]
        return [
            Calibration(n, per_class, self.port.strategy, seed)
            for n, per_class in sizes or [(100, None)]
            for seed in range(self.seeds)
        ]

    def chosen(self) -> dict[str, Method]:
        """The methods by name, with their options.

        Raises:
            PortError: no such method or option, or an option of a method that is not compared.
        """
        names = list(dict.fromkeys(self.methods)) or list(METHODS)
        options: dict[str, list[str]] = {name: [] for name in names}
        for option in self.options:
            name, colon, rest = option.partition(":")
            if not colon or name not in options:
                raise PortError(f"--set {option}: here it is METHOD:name=value, with METHOD one of {', '.join(names)}")
            options[name].append(rest)
        return {name: method_of(name, given) for name, given in options.items()}


@dataclass(frozen=True)
class Reference:
    """What the gap is measured to."""

    what: str
    pinned: Pinned
    score: Score


def run(config: CompareConfig, hub: Hub, track: Track = untracked) -> dict[str, Any]:
    """The whole comparison as plain data; also written to the port's `output` if it has one.

    Raises:
        PortError: whatever stands in the way. What a method refuses is in its row.
    """
    clock = Clock()
    with clock("resolve"):
        methods, calibrations = config.chosen(), config.calibrations()
        for alpha in config.alphas:
            check_alpha(alpha)
        plan, tuned = _draft(config, hub, methods, calibrations)
        for alpha in config.alphas:
            check_search(alpha, plan.head)
    ready = prepare(plan, hub, track, clock)
    examine = exam(config.port, plan, track)
    workspace = Workspace(_key(config, ready) | {"tuned": tuned and str(tuned)})
    spaces, draws, rows = [workspace], [], []
    with clock("compare"):
        for calibration in calibrations:
            drawn = ready.draw(config.port, calibration, track)
            ready.match(config.port, drawn, config.port.batch_size, track)
            ready.equip(drawn, config.port.batch_size, track)
            space = Workspace(
                _key(config, ready)
                | {"draw": drawn.sha256, "options": config.options, "bank": plan.bank, "tuned": tuned and str(tuned)}
            )
            if not draws or plan.head == PROBE:  # a probe is fitted to the draw
                source, reference = _scores(
                    config, hub, ready, drawn, examine, tuned, space if plan.head == PROBE else workspace
                )
            start, some = _rows(config, ready, drawn, examine, methods, calibration, track, space)
            spaces.append(space)
            draws.append(drawn.record() | {"start": asdict(start)})
            goal = reference.score if tuned or ready.comparable(start) else None
            rows += [_record(row, calibration, len(drawn.samples), start, goal) for row in some]
    start = Score(**draws[0]["start"])
    data = {
        "schema": SCHEMA,
        "hf_bico": __version__,
        "lineage": plan.lineage.record(ready.hashes),
        "evaluation": {
            "split": plan.eval_name,
            "metric": start.metric,
            "source": asdict(source),
            "zero_shot": asdict(replace(start, value=fmean(draw["start"]["value"] for draw in draws))),
        },
        "reference": {"what": reference.what, "model": str(reference.pinned)} | asdict(reference.score),
        "methods": {name: asdict(method) for name, method in methods.items()},
        "calibration": draws,
        "head": plan.head,
        "task": asdict(plan.task),
        "rows": rows,
        "summary": summary(rows),
        "environment": environment(plan.device, clock),
    }
    _write(config.port.output, data)
    for space in spaces:
        space.clear()
    return data


def _draft(
    config: CompareConfig, hub: Hub, methods: dict[str, Method], calibrations: Sequence[Calibration]
) -> tuple[Blueprint, Pinned | None]:
    """The blueprint, checked for every draw, and the target's own fine-tune if one is named."""
    first = calibrations[0]
    plan = draft(replace(config.port, n=first.n, per_class=first.per_class, method="naive", bank=None), hub)
    for calibration in calibrations:
        check_draw(config.port.split, plan.labels, plan.task, calibration)
    tuned = hub.resolve(config.target_tuned) if config.target_tuned else None
    if tuned:
        require_weights(tuned, plan.library)
    bank = read_bank(config.port.bank, methods, plan.library, plan.purpose, plan.task)
    for method in methods.values():
        require_task(plan.purpose, plan.task, plan.lineage, method)
    return replace(plan, bank=bank), tuned


def _scores(
    config: CompareConfig,
    hub: Hub,
    ready: Ready,
    drawn: Draw,
    examine: Evaluator,
    tuned: Pinned | None,
    workspace: Workspace,
) -> tuple[Score, Reference]:
    """The source's score and the reference's, each taken once."""
    source = score_source(ready, drawn, config.port.batch_size, examine, workspace)
    if tuned is None:
        return source, Reference("the source's own score", ready.plan.lineage.source, source)
    with errors_about(tuned):
        folder = _target_tuned(hub, ready, tuned)
        model, objective = own_side(ready, folder, drawn, config.port.batch_size)
        score = workspace.once(
            "the target's fine-tune", lambda: asdict(examine("the target's fine-tune", objective, model))
        )
    return source, Reference("the target's own fine-tune", tuned, Score(**score))


def _target_tuned(hub: Hub, ready: Ready, tuned: Pinned) -> Path:
    """Its folder.

    Raises:
        PortError: it is no fine-tune of the target.
    """
    plan = ready.plan
    folder = fetch(plan, tuned, hub)
    stored = SafeTensors.of(plan.library, tuned, folder)
    skeleton = plan.library.skeleton(folder, plan.purpose)
    names = Named(
        stored, {key: name for key, name in plan.library.names(skeleton, stored).items() if key in ready.weights}
    )
    check_fine_tune(Difference(names, ready.weights), ready.weights, [pair.target for pair in plan.pairs])
    return folder


def _key(config: CompareConfig, ready: Ready) -> dict[str, Any]:
    """All that the scores depend on, but for the draw and the method."""
    plan, port = ready.plan, config.port
    return {
        "hf_bico": __version__,
        "models": models_key(ready),
        "task": asdict(plan.task),
        "batch": port.batch_size,
        "head": plan.head,
        "pairs": [[a.name, b.name] for a, b in plan.pairs],
        "evaluation": evaluation_key(port, plan),
    }


def _rows(
    config: CompareConfig,
    ready: Ready,
    drawn: Draw,
    examine: Evaluator,
    methods: dict[str, Method],
    calibration: Calibration,
    track: Track,
    space: Workspace,
) -> tuple[Score, list[Row]]:
    """The target's score without a port, and every method and α on one draw."""
    n, size, model = len(drawn.samples), config.port.batch_size, ready.sides[1].model
    what = f"N = {n}, seed {calibration.seed}"

    def score(live: nn.Module) -> Score:
        with ready.dressed(drawn, size) as (objective, _):
            return examine(what, objective, live)

    start = Score(**space.once("start", lambda: asdict(score(model))))
    job, alphas = ready.job(drawn, size, track), list(dict.fromkeys(config.alphas))
    with within_memory():
        return start, compare(job, methods, n, lambda live: score(live).value, alphas=alphas, once=space.once)


def _record(row: Row, calibration: Calibration, n: int, start: Score, reference: Score | None) -> dict[str, Any]:
    known = row.score is not None and reference is not None
    gap = recovered(row.score, start.value, reference.value, start.metric) if known else None
    return (
        {"n": n, "per_class": calibration.per_class, "seed": calibration.seed}
        | asdict(row)
        | {"recovered": gap, "search": search_record(row.search)}
    )


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Over the seeds, an entry a method, α and N: means, spreads (sample standard deviations) and the most memory.

    A refusal in any seed is the entry's; the recovered share is None where there is no way up.
    """
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["alpha"], row["n"], row["per_class"]), []).append(row)
    entries = []
    for (method, alpha, n, per_class), some in groups.items():
        entry = {
            "method": method,
            "alpha": alpha,
            "n": n,
            "per_class": per_class,
            "seeds": len(some),
            "refusal": next((row["refusal"] for row in some if row["refusal"]), None),
        }
        for name in ("score", "recovered", "scale", "seconds", "shared_seconds"):
            values = [row[name] for row in some]
            whole = entry["refusal"] is None and None not in values
            entry[name] = fmean(values) if whole else None
            entry[f"{name}_spread"] = stdev(values) if whole and len(values) > 1 else None
        entries.append(entry | {"peak_bytes": max(row["peak_bytes"] for row in some)})
    return entries


def _write(output: Path | None, data: dict[str, Any]) -> None:
    if output is None:
        return
    with staged(output) as stage:
        stage.mkdir()
        (stage / "compare.json").write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (stage / "compare.md").write_text(markdown(data), encoding="utf-8")
