"""The page of a port, from repos or between live models."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hf_bico.core.account import Left
from hf_bico.core.errors import PortError
from hf_bico.core.riders import Rode
from hf_bico.reports.page import answers, common, layers, scores
from hf_bico.reports.page.parts import Bar, Column, Facts, Part, Section, Table, Text
from hf_bico.reports.page.parts import Page as Shown
from hf_bico.reports.page.reading import estimate_of
from hf_bico.reports.page.words import NONE, figure, fitted, options, percent, pinned, seconds, word
from hf_bico.reports.records import CalibrationRecord, HeadRecord, TaskVectorRecord, TaughtRecord
from hf_bico.reports.report import PortReport

HEADS = {
    "transport": "the fine-tune's, carried through the map of its input",
    "ridge": "a ridge classifier of the calibration samples",
    "probe": "none; features are scored by a ridge classifier of the calibration samples",
    "zero-shot": "the text features of the classes",
    "lm": "the target's own language-model head",
    "cosine": "none; features are compared by their cosines",
    "none": "none; the model gives features",
    "own": "the target's own",
}
"""Kind of head → what it is."""


def page(report: PortReport, endpoint: str) -> Shown:
    """Return what the page of a port shows.

    Raises:
        PortError: its lineage lacks a model.
    """
    lineage = report.lineage
    if missing := [role for role in ("source", "base", "target") if role not in lineage]:
        raise PortError(f"its lineage has no {missing[0]}")
    source, base, target = (lineage[role].name for role in ("source", "base", "target"))
    training = f", then trained for {report.polish.steps} steps" if report.polish else " without training"
    live = " between models in memory" if report.live else ""
    subtitle = f"A fine-tune of {base}, carried over to {target}{training}{live}."
    verdict, measured = report.verdict, report.evaluation
    sentences: tuple[str, ...] = ()
    if verdict:
        sentences = (f"{verdict.reason[:1].upper()}{verdict.reason[1:]}.", f"Next: {verdict.next}.")
    elif measured:
        sentences = (scores.way(measured),)
    return Shown(
        "a port",
        f"{source} on {target}",
        subtitle,
        tuple(each for each in _sections(report, endpoint) if each),
        word(verdict.word) if verdict else None,
        sentences,
        scores.tiles(measured) if measured else (),
    )


def _sections(report: PortReport, endpoint: str) -> Iterator[Section | None]:
    """Yield the sections in their order; a new one belongs where a reader looks for it."""
    matching, lineage = report.matching, report.lineage
    yield scores.section(report)
    yield from answers.sections(report.evaluation, endpoint)
    yield scores.tried(report.method, report.calibration.n)
    told = layers.parts(layers.layers_of(report.layers, report.moved))
    yield Section.of("layers", "Layers", told or [common.pairs(report.layers)])
    if matching and matching.cka:
        names = lineage["base"].name, lineage["target"].name
        yield common.matched(matching.cka, matching.paths or {}, names)
    yield Section.of(
        "left", "What stayed behind and what came along", [_left(report.left), _beside(report.beside or ())]
    )
    yield common.cost(report.environment, estimate_of(report.estimate))
    yield Section.of("made", "How it was made", _made(report))
    made = [common.lineage(lineage, endpoint)]
    yield Section.of(
        "lineage",
        "Lineage and versions",
        [*made, *common.versions(report.environment, report.schema, report.hf_bico, report.created)],
    )
    yield common.again(report.command)


def _left(left: Sequence[Left]) -> Part:
    """Return what stays behind, by reason."""
    reasons: dict[str, list[float]] = {}
    for row in left:
        reasons.setdefault(row.reason, []).append(row.norm**2)
    if not reasons:
        return Text("Nothing of the task vector stayed behind.")
    norms = {reason: sum(found) ** 0.5 for reason, found in reasons.items()}
    largest = max(norms.values()) or 1.0
    rows = [
        (reason, str(len(reasons[reason])), figure(norm), Bar(norm / largest))
        for reason, norm in sorted(norms.items(), key=lambda each: -each[1])[: common.MOST]
    ]
    columns = (Column("reason"), Column("tensors", "number"), Column("‖τ‖", "number"), Column("", "picture"))
    return Table("What was left behind of the task vector, by reason", columns, tuple(rows), stacked=True)


def _beside(rode: Sequence[Rode]) -> Part | None:
    """Return what moved beside the linear maps, by what it is."""
    roles: dict[str, list[Rode]] = {}
    for each in rode:
        roles.setdefault(each.role, []).append(each)
    if not roles:
        return None
    rows = [
        (role, str(len(some)), figure(_norm(some)), percent(min(each.taken for each in some)))
        for role, some in list(roles.items())[: common.MOST]
    ]
    titles = (
        Column("what"),
        Column("tensors", "number"),
        Column("‖τ‖", "number"),
        Column("least share taken", "number"),
    )
    return Table("What moved beside the linear maps", titles, tuple(rows))


def _norm(rode: Sequence[Rode]) -> float:
    return sum(each.norm**2 for each in rode) ** 0.5


def _made(report: PortReport) -> list[Part | None]:
    """Return the method, the samples, the head and the form."""
    rows = [
        *_method(report),
        *_samples(report.calibration),
        *_unlabelled(report),
        ("head", _head(report.head, report.calibration.n)),
        *_form(report.task_vector),
        *_trained(report.polish),
    ]
    samples, roles = report.calibration, report.roles or ()
    return [
        Text(report.method.summary),
        Facts("Options and calibration", tuple(rows)),
        common.listed("Indices of the calibration samples", samples.indices or ()),
        common.listed("Classes", samples.class_names or report.head.labels or ()),
        common.listed("Prompts", samples.templates or ()),
        *common.notes((*roles, *(report.notes or ()))),
    ]


def _method(report: PortReport) -> Iterator[tuple[str, str]]:
    method, matching = report.method, report.matching
    yield "method", f"{method.name} ({method.citation})"
    yield "options of the method", options(method.options)
    if method.maps:
        yield "its maps, made beforehand", options(_flat(method.maps))
    alpha = report.alpha if report.live else method.alpha
    yield "scale α", figure(alpha) + (", by a line search of the calibration loss" if method.search else "")
    if matching:
        limits = {"blocks": matching.layers, "without": matching.skip}
        yield (
            "blocks matched by",
            ", ".join([matching.rule, *(f"{name} {text}" for name, text in limits.items() if text)]),
        )


def _flat(data: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return what lies in objects within one another under joined keys; what is empty is left out."""
    found: dict[str, Any] = {}
    for key, value in data.items():
        inner = _flat(value, f"{before}{key} ") if isinstance(value, Mapping) and len(before) < 60 else None
        found |= inner if inner is not None else {} if value is None else {f"{before}{key}": value}
    return found


def _samples(samples: CalibrationRecord) -> Iterator[tuple[str, str]]:
    """Yield which samples the maps were made from."""
    yield "calibration samples N", f"{samples.n:,}" + (f", {samples.per_class} a class" if samples.per_class else "")
    told = {
        "split": samples.split,
        "configuration": samples.config,
        "strategy": samples.strategy,
        "seed": samples.seed,
        "drawn from the first rows": samples.window,
        "batches": samples.batches,
        "answer": samples.answer,
    }
    yield from ((name, str(value)) for name, value in told.items() if value is not None)
    if samples.columns:
        yield "columns", f"{samples.columns.kind.value}: {options(samples.columns.names)}"
    if samples.bank:
        yield "general prompts", f"{samples.bank.prompts}, sha256 {samples.bank.sha256}"
    yield "sha256 of the samples", samples.content_sha256


def _unlabelled(report: PortReport) -> Iterator[tuple[str, str]]:
    more = report.unlabelled
    if more:
        name = pinned(more.dataset.name, more.dataset.commit)
        told = f"{more.samples.n} of {name}, split {more.samples.split}, seed {more.samples.seed}"
        yield "samples without labels", f"{told}, sha256 {more.samples.content_sha256}"


def _head(head: HeadRecord, n: int) -> str:
    """Return which head the target has, and how well it fits."""
    told = HEADS.get(head.kind.value, head.kind.value)
    told += f" ({fitted(head.input)})" if head.input else ""
    if head.tried:
        told += "; by the loss a held-out sample: "
        told += ", ".join(f"{kind} {figure(loss / max(n, 1), 3)}" for kind, loss in head.tried.items())
    return told + (f"; behind the model, as in the source: {head.behind}" if head.behind else "")


def _form(vector: TaskVectorRecord) -> Iterator[tuple[str, str]]:
    """Yield how large τ is, how much of it moved, and how it is written."""
    yield "size of the task vector", f"{figure(vector.relative_norm)} × its base's weights"
    yield "moved by maps", f"{percent(vector.moved_share)} of ‖τ‖²"
    yield "of which in the maps' span", percent(vector.kept_share)
    if vector.adapter:
        yield "the source is an adapter", options(_flat(vector.adapter))
    if vector.written:
        lost = percent(vector.written.mean_error)
        dtype = f" in {vector.written.dtype}" if vector.written.dtype else ""
        form = vector.written.form.value
        yield "written as", form + ("" if vector.whole else f"{dtype}; {lost} of a layer's ‖τ‖ was lost on average")
        ranks = sorted({cut.rank for cut in vector.written.layers if cut.rank is not None})
        if ranks:
            yield "ranks of its layers", str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"


def _trained(taught: TaughtRecord | None) -> Iterator[tuple[str, str]]:
    if taught:
        views = " on other views of the samples" if taught.views else ""
        took = f"{taught.steps} steps of {taught.what} towards {taught.learnt}{views}, {seconds(taught.seconds)}"
        yield "trained", took
        tried = ", ".join(f"{figure(each.rate)}: {figure(each.loss)}" for each in taught.tried)
        yield "rate", figure(taught.rate) + (f" (held-out loss: {tried})" if tried else "")
        yield "loss, first and last", " → ".join(map(figure, taught.losses)) or NONE
