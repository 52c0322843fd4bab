"""The page of a comparison."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from hf_bico.reports import tables
from hf_bico.reports.page import common
from hf_bico.reports.page.parts import (
    Cell,
    Chart,
    Column,
    Facts,
    Folded,
    Page,
    Part,
    Section,
    Span,
    Table,
    Text,
    Tile,
    Word,
)
from hf_bico.reports.page.pictures import Axis, Measure, chart
from hf_bico.reports.page.reading import Drawn, Entry, Goal, Scores, typed
from hf_bico.reports.page.words import NONE, figure, metric_of, options, score_tile, seconds, size, word
from hf_bico.reports.plain import to_plain
from hf_bico.reports.report import CompareReport


def page(report: CompareReport, endpoint: str) -> Page:
    """Return what the page of a comparison shows.

    Raises:
        PortError: a part of it is not what belongs there.
    """
    scores, goal = typed(Scores, report.evaluation), typed(Goal, report.reference)
    entries = [
        each if each.score is not None else replace(each, verdict=None)
        for each in typed(tuple[Entry, ...], report.summary)
    ]
    metric_of(scores.metric)
    data = {"evaluation": to_plain(scores), "reference": to_plain(goal), "summary": [asdict(each) for each in entries]}
    best = tables.winner(data)
    place = data["summary"].index(best) if best else None
    lineage = report.lineage
    names = {role: lineage[role].name for role in ("source", "target") if role in lineage}
    sections = [
        Section.of("methods", "Methods side by side", _methods(data, entries, place)),
        Section.of("draws", "Seeds and draws", _draws(report, scores.metric)),
        common.cost(report.environment, None),
        Section.of("made", "How it was made", _made(report, scores)),
        Section.of(
            "lineage",
            "Lineage and versions",
            [
                common.lineage(lineage, endpoint),
                *common.versions(report.environment, report.schema, report.hf_bico, report.created),
            ],
        ),
    ]
    return Page(
        "a comparison",
        " on ".join(names.values()),
        f"{len(dict.fromkeys(each.method for each in entries))} methods on the same samples.",
        tuple(each for each in sections if each),
        Word(f"best: {entries[place].method}", "good") if place is not None else word("no gain"),
        (f"{tables.advice(data)}.",),
        _tiles(scores, goal, entries, place),
    )


def _tiles(scores: Scores, goal: Goal, entries: Sequence[Entry], place: int | None) -> tuple[Tile, ...]:
    found = []
    if place is not None:
        best, metric = entries[place], metric_of(scores.metric)
        share = f"{_share(best)} of the {tables.way_of(goal.what)}" if best.recovered is not None else ""
        found.append(Tile(f"the best: {best.method}, N = {best.n}", metric.show(best.score or 0.0), share, True))
    found += [
        score_tile("the new base without a port", scores.zero_shot),
        score_tile("the fine-tune, on its own base", scores.source),
    ]
    return (*found, *([score_tile(goal.what, goal)] if goal.what != tables.SOURCE else []))


def _share(entry: Entry, way: str = "") -> str:
    if entry.recovered is None:
        return f"no {way}"
    return f"{entry.recovered:.0%}" + (f" ± {100 * entry.recovered_spread:.0f}" if entry.recovered_spread else "")


def _methods(data: dict[str, Any], entries: Sequence[Entry], place: int | None) -> list[Part | None]:
    """Return a row for every method, α and N, the winner marked, and the share against N."""
    way = tables.way_of(data["reference"]["what"])
    axis = Axis.over([0.0, 1.0, *(end for each in entries if each.recovered is not None for end in _ends(each))])
    show = metric_of(data["evaluation"]["metric"]).show
    columns = [Column("method"), Column("α", "number"), Column("N", "number")]
    columns += [Column(data["evaluation"]["metric"], "number"), Column(way, "number"), Column("", "picture")]
    columns += [Column("verdict"), Column("seconds", "number"), Column("memory", "number")]
    reasons = list(dict.fromkeys(each.refusal for each in entries if each.refusal))
    why = {reason: f"({number})" for number, reason in enumerate(reasons, 1)}  # as `tables.refusals` has them
    rows = [_row(each, axis, show, why.get(each.refusal or "", ""), k == place, way) for k, each in enumerate(entries)]
    known = any(each.recovered is not None for each in entries)
    table = Table(
        f"Means over the seeds; of the {way} the share that the port brings",
        tuple(columns),
        tuple(rows),
        frozenset() if place is None else frozenset({place}),
        axis.ticks(lambda value: f"{value:.0%}", 4) if known else (),
        (axis.at(0.0), axis.at(1.0)) if known else (),
        stacked=True,
    )
    said = [Text(tables.caption(data)), *map(Text, tables.refusals(data))]
    return [table, _against_n(data["reference"]["what"], entries, place), *said]


def _ends(entry: Entry) -> tuple[float, float, float]:
    value, spread = entry.recovered or 0.0, entry.recovered_spread or 0.0
    return value - spread, value, value + spread


def _row(entry: Entry, axis: Axis, show: Any, why: str, best: bool, way: str) -> tuple[Cell, ...]:
    n = f"{entry.n}" + (f" ({entry.per_class} a class)" if entry.per_class else "")
    alpha = entry.alpha if isinstance(entry.alpha, str) else figure(entry.alpha)
    if entry.refusal or entry.score is None:
        return (entry.method, alpha, n, "refused", NONE, "", why, NONE, NONE)
    span: Cell = ""
    if entry.recovered is not None:
        low, value, high = map(axis.at, _ends(entry))
        span = Span(low, value, high, f"{entry.method}, N = {entry.n}: {_share(entry)}", best)
    verdict = entry.verdict
    told: Cell = word(verdict.word) if verdict else ""
    if verdict and best:
        told = Word(f"{verdict.word}, best", "good")
    elif verdict and verdict.word in ("works", "partly") and not verdict.pushable:
        told = Word(f"{verdict.word}*", "plain")
    took = f"{seconds(entry.seconds)} + {seconds(entry.shared_seconds)}"
    peak = size(entry.peak_bytes) if entry.peak_bytes else NONE
    return (entry.method, alpha, n, show(entry.score), _share(entry, way), span, told, took, peak)


def _against_n(goal: str, entries: Sequence[Entry], place: int | None) -> Chart | None:
    """Return the share of every method against N; None where there is one N alone, which the table shows."""
    known = [each for each in entries if each.recovered is not None and each.n > 0]
    if len({each.n for each in known}) < 2:
        return None
    several = len({str(each.alpha) for each in known}) > 1

    def name(entry: Entry) -> str:
        return entry.method + (f", α = {entry.alpha}" if several else "")

    lines: dict[str, list[Measure]] = {}
    for each in known:
        says = f"{name(each)}, N = {each.n}: {_share(each)}"
        lines.setdefault(name(each), []).append(
            Measure(each.n, each.recovered or 0.0, each.recovered_spread or 0.0, says)
        )
    way = tables.whole_way(goal)
    return chart(
        lines,
        (f"Share of {way} against N", "calibration samples N (logarithmic)", f"% of {way}"),
        (lambda value: f"{value:g}", lambda value: f"{value:.0%}"),
        marks=(0.0, 1.0),
        strong=None if place is None else name(entries[place]),
    )


def _draws(report: CompareReport, metric: str) -> list[Part | None]:
    """Return the rows of every seed, and what was drawn."""
    way = tables.way_of(str(report.reference.get("what")))
    draws = typed(tuple[Drawn, ...], report.calibration)
    rows = [_by_seed(row, metric) for row in report.rows[: common.MOST]]
    columns = [Column("method"), *(Column(each, "number") for each in ("α", "N", "seed", metric, way))]
    drawn = [(f"N = {d.n}, seed {d.seed}", d.strategy or NONE, d.content_sha256) for d in draws[: common.MOST]]
    titles = (Column("draw"), Column("strategy"), Column("sha256 of the samples", "code"))
    lists = [common.listed(f"Indices, N = {d.n}, seed {d.seed}", d.indices) for d in draws[:20]]
    inside: list[Part] = [Table("What was drawn", titles, tuple(drawn)), *(each for each in lists if each)]
    return [
        Folded(f"Every seed: {len(report.rows)} rows", (Table("Every seed", tuple(columns), tuple(rows)),))
        if rows
        else None,
        Folded(f"What was drawn: {len(draws)} draws", tuple(inside)) if draws else None,
    ]


def _by_seed(row: Mapping[str, Any], metric: str) -> tuple[Cell, ...]:
    score, gap = (row.get(name) if isinstance(row.get(name), int | float) else None for name in ("score", "recovered"))
    alpha, refusal = row.get("alpha"), row.get("refusal")
    shown = NONE if score is None else metric_of(metric).show(score)
    first = (str(row.get("method")), str(alpha), str(row.get("n")), str(row.get("seed")))
    return (*first, "refused" if refusal else shown, NONE if gap is None else f"{gap:.0%}")


def _made(report: CompareReport, scores: Scores) -> list[Part | None]:
    rows = [("head", str(report.head)), ("split that is scored", scores.split), ("metric", scores.metric)]
    rows += [("scored in", scores.dtype)] if scores.dtype else []
    rows += [(name, options(chosen)) for name, chosen in report.methods.items()]
    return [Facts("Options", tuple(rows)), *common.notes(report.notes)]
