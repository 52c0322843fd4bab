"""What a port changed sample by sample: against other models, class by class, and on other datasets."""

from collections.abc import Sequence

from hf_bico.reports.page import common
from hf_bico.reports.page.parts import Cell, Column, Folded, Part, Section, Span, Table, Text
from hf_bico.reports.page.pictures import Axis
from hf_bico.reports.page.words import NONE, figure
from hf_bico.reports.report import Elsewhere, Evaluation
from hf_bico.tasks.paired import ClassChange, Paired, shown_difference

AGAINST = {
    "source": "the fine-tune, on its own base",
    "zero_shot": "the new base without the port",
    "naive": "the naive copy of τ",
    "bico": "the port by bico, the paper's method",
}
"""What a port is held against → what it is called."""
FEW = 12
"""The most classes that are shown without a click."""


def sections(scores: Evaluation | None, endpoint: str) -> list[Section | None]:
    """Return what became of single answers, and scores on other datasets."""
    if scores is None:
        return []
    answers = [_paired(scores.paired or (), scores.ported.metric), *_classes(scores.classes or ())]
    return [
        Section.of("answers", "Answers that changed", answers),
        Section.of("elsewhere", "On other datasets", [_elsewhere(scores.elsewhere or (), endpoint)]),
    ]


def _paired(found: Sequence[Paired], metric: str) -> Part | None:
    """Return the port against other models on the same samples, each difference with its interval."""
    if not found:
        return None
    axis = Axis.over([0.0, *(end for each in found for end in (each.low, each.difference, each.high))])
    counted = any(each.won is not None for each in found)
    titles = [
        Column("against"),
        Column("difference (95 %)", "number"),
        Column("", "picture"),
        Column("by more than chance"),
    ]
    titles += [Column(title, "number") for title in ("won", "lost", "p")] if counted else []
    rows: list[tuple[Cell, ...]] = []
    for each in found:
        name, told = AGAINST.get(each.against, each.against), shown_difference(each, metric)
        low, value, high = sorted(map(axis.at, (each.low, each.difference, each.high)))
        counts = (NONE if each.won is None else str(each.won), NONE if each.lost is None else str(each.lost))
        more = (*counts, figure(each.p, 2)) if counted else ()
        rows.append((name, told, Span(low, value, high, f"{name}: {told}"), "yes" if each.certain else "no", *more))
    caption = "The port against others on the same samples; won and lost are answers that one of both alone has right"
    return Table(
        caption if counted else "The port against others on the same samples",
        tuple(titles),
        tuple(rows),
        lines=(axis.at(0.0),),
        stacked=True,
    )


def _classes(classes: Sequence[ClassChange]) -> list[Part]:
    """Return what became of every class, those that gained most first."""
    if not classes:
        return []
    axis = Axis(0.0, 1.0)
    ordered = sorted(classes, key=lambda each: each.before - each.after)[: common.MOST]
    rows: list[tuple[Cell, ...]] = []
    for each in ordered:
        low, high = sorted((axis.at(each.before), axis.at(each.after)))
        says = f"{each.name}: {each.before:.0%} → {each.after:.0%}"
        span = Span(low, axis.at(each.after), high, says)
        change = f"{100 * (each.after - each.before):+.0f} points"
        rows.append((each.name, f"{each.n:,}", f"{each.before:.0%}", f"{each.after:.0%}", change, span))
    titles = [Column("class"), *(Column(each, "number") for each in ("samples", "without", "with", "change"))]
    table = Table(
        "Share of every class that is right, without the port and with it (the dot)",
        (*titles, Column("", "picture")),
        tuple(rows),
        ticks=axis.ticks("{:.0%}".format, 4),
        stacked=True,
    )
    better, worse = (sum(sign * (each.after - each.before) > 0 for each in classes) for sign in (1, -1))
    told = Text(f"{better} of {len(classes)} classes gained, {worse} lost.")
    return [told, table if len(rows) <= FEW else Folded(f"Class by class: {len(classes)}", (table,))]


def _elsewhere(found: Sequence[Elsewhere], endpoint: str) -> Part | None:
    """Return scores on other datasets, to see what the port may have broken."""
    if not found:
        return None
    rows: list[tuple[Cell, ...]] = []
    for each in found[: common.MOST]:
        name = each.dataset.name
        shown = name if each.dataset.local else common.link(name, each.dataset.commit, endpoint, "dataset")
        told = shown_difference(each.paired, each.ported.metric) if each.paired else NONE
        certain = "" if each.paired is None else "yes" if each.paired.certain else "no"
        scores = (each.ported.metric, str(each.zero_shot), str(each.ported))
        rows.append((shown, f"{each.split}, {each.ported.n:,}", *scores, told, certain))
    titles = [Column("dataset"), Column("split, samples"), Column("metric")]
    titles += [Column(each, "number") for each in ("without the port", "with it", "difference (95 %)")]
    caption = "The new base without the port and with it"
    return Table(caption, (*titles, Column("by more than chance")), tuple(rows), stacked=True)
