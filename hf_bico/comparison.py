"""`hf-bico compare`: every method, α, N and seed on one evaluation split, from repos. Nothing is pushed."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from textwrap import shorten
from typing import Any

from torch import nn

from hf_bico import __version__
from hf_bico.blueprint import Blueprint, PortConfig, check_alpha, draft, read_bank
from hf_bico.compare import Row, compare
from hf_bico.core.errors import PortError
from hf_bico.core.methods import METHODS, Method, Track, method_of, untracked
from hf_bico.core.transport import Difference, check_fine_tune
from hf_bico.data import check_draw
from hf_bico.evaluate import Exam, Score
from hf_bico.io.checkpoints import SafeTensors, require_family
from hf_bico.io.hub import Hub
from hf_bico.io.reference import Pinned, about, sha256
from hf_bico.io.workspace import Workspace
from hf_bico.io.writer import staged
from hf_bico.prepare import Ready, evaluation_key, exam, fetch, load, models_key, prepare, within_memory
from hf_bico.report import SCHEMA, Clock, environment, search_record
from hf_bico.strategies import Calibration


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
        return [Calibration(n, per_class, self.port.strategy, seed)
                for n, per_class in sizes or [(100, None)] for seed in range(self.seeds)]

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
    ready = prepare(plan, hub, track, clock)
    examine = exam(config.port, plan, track)
    with clock("evaluate"):
        workspace, zero_shot, source, reference = _scores(config, hub, ready, examine, tuned)
    spaces, draws, rows = [workspace], [], []
    with clock("compare"):
        for calibration in calibrations:
            space, draw, some = _rows(config, ready, examine, methods, calibration, track)
            spaces.append(space)
            draws.append(draw)
            rows += [_record(row, calibration, draw["n"], zero_shot, reference.score) for row in some]
    data = {
        "schema": SCHEMA, "hf_bico": __version__, "lineage": plan.lineage.record(ready.hashes),
        "evaluation": {"split": plan.eval_name, "zero_shot": asdict(zero_shot), "source": asdict(source)},
        "reference": {"what": reference.what, "model": str(reference.pinned)} | asdict(reference.score),
        "methods": {name: asdict(method) for name, method in methods.items()}, "calibration": draws,
        "task": asdict(plan.task), "rows": rows, "summary": summary(rows),
        "environment": environment(plan.device, clock)}
    _write(config.port.output, data)
    for space in spaces:
        space.clear()
    return data


def _draft(config: CompareConfig, hub: Hub, methods: dict[str, Method],
           calibrations: Sequence[Calibration]) -> tuple[Blueprint, Pinned | None]:
    """The blueprint, checked for every draw, and the target's own fine-tune if one is named."""
    first = calibrations[0]
    plan = draft(replace(config.port, n=first.n, per_class=first.per_class, method="naive", bank=None), hub)
    for calibration in calibrations:
        check_draw(config.port.split, plan.labels, plan.task, calibration)
    tuned = hub.resolve(config.target_tuned) if config.target_tuned else None
    if tuned:
        require_family(tuned, plan.family)
    return replace(plan, bank=read_bank(config.port.bank, methods, plan.family)), tuned


def _scores(config: CompareConfig, hub: Hub, ready: Ready, examine: Exam,
            tuned: Pinned | None) -> tuple[Workspace, Score, Score, Reference]:
    """Zero-shot, source and reference, each scored once."""
    plan = ready.plan
    folder = fetch(plan, tuned, hub) if tuned else None
    if tuned:
        with about(tuned):
            change = Difference(SafeTensors(folder / plan.family.weights_file), ready.weights)
            check_fine_tune(change, ready.weights, [pair.target for pair in plan.pairs])
    key = _key(config, ready) | {"tuned": folder and sha256(folder / plan.family.weights_file)}
    workspace = Workspace(key)

    def score(what: str, model) -> Score:
        return Score(**workspace.once(what, lambda: asdict(examine(what, *model()))))

    zero_shot = score("the target", lambda: (ready.sides[1], ready.heads[1]))
    source = score("the source", lambda: load(plan, ready.folders[0]))
    if tuned is None:
        return workspace, zero_shot, source, Reference("the source's own score", plan.lineage.source, source)
    with about(tuned):
        reached = score("the target's fine-tune", lambda: load(plan, folder))
    return workspace, zero_shot, source, Reference("the target's own fine-tune", tuned, reached)


def _key(config: CompareConfig, ready: Ready) -> dict[str, Any]:
    """All that the scores depend on, but for the draw and the method."""
    plan, port = ready.plan, config.port
    return {"hf_bico": __version__, "models": models_key(ready), "task": asdict(plan.task), "batch": port.batch_size,
            "evaluation": evaluation_key(port, plan)}


def _rows(config: CompareConfig, ready: Ready, examine: Exam, methods: dict[str, Method], calibration: Calibration,
          track: Track) -> tuple[Workspace, dict[str, Any], list[Row]]:
    """Every method and α on one draw."""
    drawn = ready.draw(config.port, calibration, track)
    space = Workspace(_key(config, ready) | {"draw": drawn.sha256, "options": config.options, "bank": ready.plan.bank})
    n, side, head = len(drawn.samples), ready.sides[1], ready.heads[1]

    def score(model: nn.Module) -> float:
        return examine(f"N = {n}, seed {calibration.seed}", side, head).accuracy

    job, alphas = ready.job(drawn, config.port.batch_size, track), list(dict.fromkeys(config.alphas))
    with within_memory():
        return space, drawn.record(), compare(job, methods, n, score, alphas=alphas, once=space.once)


def _record(row: Row, calibration: Calibration, n: int, zero_shot: Score, reference: Score) -> dict[str, Any]:
    way = reference.accuracy - zero_shot.accuracy
    recovered = None if row.score is None or way <= 0 else (row.score - zero_shot.accuracy) / way
    return {"n": n, "per_class": calibration.per_class, "seed": calibration.seed} | asdict(row) | {
        "recovered": recovered, "search": search_record(row.search)}


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Over the seeds, an entry a method, α and N: means, spreads (sample standard deviations) and the most memory.

    A refusal in any seed is the entry's; the recovered share is None where there is no way up.
    """
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["alpha"], row["n"], row["per_class"]), []).append(row)
    entries = []
    for (method, alpha, n, per_class), some in groups.items():
        entry = {"method": method, "alpha": alpha, "n": n, "per_class": per_class, "seeds": len(some),
                 "refusal": next((row["refusal"] for row in some if row["refusal"]), None)}
        for name in ("score", "recovered", "scale", "seconds", "shared_seconds"):
            values = [row[name] for row in some]
            whole = entry["refusal"] is None and None not in values
            entry[name] = fmean(values) if whole else None
            entry[f"{name}_spread"] = stdev(values) if whole and len(values) > 1 else None
        entries.append(entry | {"peak_bytes": max(row["peak_bytes"] for row in some)})
    return entries


def cells(data: dict[str, Any]) -> Iterator[list[str]]:
    """The summary as a table, its header first: a row a method and α, a column an N."""
    entries = data["summary"]
    columns = list(dict.fromkeys((entry["n"], entry["per_class"]) for entry in entries))
    yield ["method", "α", *(f"N = {n}" + (f" ({k} a class)" if k else "") for n, k in columns), "peak memory"]
    for method, alpha in dict.fromkeys((entry["method"], entry["alpha"]) for entry in entries):
        found = {(e["n"], e["per_class"]): e for e in entries if (e["method"], e["alpha"]) == (method, alpha)}
        peak = max(entry["peak_bytes"] for entry in found.values()) / 1e9
        yield [method, alpha if isinstance(alpha, str) else f"{alpha:g}", *(_cell(found[column]) for column in columns),
               f"{peak:.2f} GB" if peak else "–"]


def _cell(entry: dict[str, Any]) -> str:
    if entry["refusal"]:
        return f"refused: {shorten(entry['refusal'], 100, placeholder=' …')}"
    gap, spread = entry["recovered"], entry["recovered_spread"]
    gap = "no gap" if gap is None else f"{gap:.0%}" + ("" if spread is None else f" ± {100 * spread:.0f}")
    return f"{entry['score']:.1%}, {gap}, {entry['seconds']:.1f} + {entry['shared_seconds']:.1f} s"


def caption(data: dict[str, Any]) -> str:
    """What the cells say and what the gap is measured to."""
    scores, reference = data["evaluation"], data["reference"]
    seeds = max((entry["seeds"] for entry in data["summary"]), default=0)
    return (f"Split {scores['split']}, {scores['zero_shot']['n']} samples: zero-shot "
            f"{scores['zero_shot']['accuracy']:.1%}, fine-tuned source {scores['source']['accuracy']:.1%}. A cell is "
            f"the mean accuracy over {seeds} seed{'s'[:seeds != 1]}, the share of the gap to {reference['what']} "
            f"({reference['accuracy']:.1%}) ± its spread over the seeds in points, and seconds: the method's own + the "
            f"collection's that all share.")


def markdown(data: dict[str, Any]) -> str:
    header, *rows = cells(data)
    lineage = data["lineage"]
    refused = dict.fromkeys(row["refusal"] for row in data["rows"] if row["refusal"])
    lines = [f"# {lineage['source']['name']} on {lineage['target']['name']}", "", caption(data), "",
             f"| {' | '.join(header)} |", "|" + "---|" * len(header), *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join([*lines, *(f"\nRefused: {reason}." for reason in refused)]) + "\n"


def _write(output: Path | None, data: dict[str, Any]) -> None:
    if output is None:
        return
    with staged(output) as stage:
        stage.mkdir()
        (stage / "compare.json").write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (stage / "compare.md").write_text(markdown(data), encoding="utf-8")
