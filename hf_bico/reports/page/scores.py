"""What was measured of a port, and what its method tried on held-out samples."""

from collections.abc import Sequence

from hf_bico.reports.page.parts import Bar, Cell, Column, Part, Section, Span, Table, Text, Tile
from hf_bico.reports.page.pictures import Axis
from hf_bico.reports.page.words import NONE, figure, metric_of, percent, score_tile
from hf_bico.reports.records import Measured, MethodRecord
from hf_bico.reports.report import Evaluation, PortReport
from hf_bico.tasks.scores import Score


def tiles(scores: Evaluation) -> tuple[Tile, ...]:
    """Return the numbers that matter most."""
    found = [
        score_tile("the new base, with the port", scores.ported, marked=True),
        score_tile("the new base, without it", scores.zero_shot),
        score_tile("the fine-tune, on its own base", scores.source),
    ]
    if scores.recovered is not None:
        found.append(Tile("of the way between the two", f"{scores.recovered:.0%}", f"{scores.ported.n:,} samples"))
    return tuple(found)


def section(report: PortReport) -> Section | None:
    """Return the scores with their intervals, as a table and as a picture."""
    scores = report.evaluation
    if scores is None:
        return Section.of("scores", "Scores", _measured(report.scores or ()))
    metric = metric_of(scores.ported.metric)
    said = f"{metric.says}. Split {scores.split}, which the calibration did not see; {scores.ported.n:,} samples."
    said += f" Models ran in {scores.dtype} by autocast." if scores.dtype else ""
    if not scores.comparable:
        said += " The source cuts texts into different tokens, so its score is not on the same scale."
    caption = f"{metric.title} with 95 % intervals"
    return Section.of("scores", "Scores", [_scored(caption, scores), Text(said)])


def _scored(caption: str, scores: Evaluation) -> Part:
    """Return the scores on one axis; the target without the port is marked on all of it."""
    rows = scores.rows
    show = metric_of(scores.ported.metric).show
    axis = Axis.over([end for _, each in rows if _drawn(scores, each) for end in (each.low, each.value, each.high)])
    also = list(scores.ported.also)
    cells = [
        (
            label,
            show(each.value),
            f"{show(each.low)} – {show(each.high)}",
            *(figure(each.also.get(name)) for name in also),
            _span(axis, each, f"{label}: {show(each.value)}", marked=each is scores.ported)
            if _drawn(scores, each)
            else "on another scale",
        )
        for label, each in rows
    ]
    titles = [Column("model"), Column(scores.ported.metric, "number"), Column("95 % interval", "number")]
    titles += [Column(name, "number") for name in also]
    return Table(
        caption,
        (*titles, Column("", "picture")),
        tuple(cells),
        frozenset({len(rows) - 1}),
        axis.ticks(show, 5),
        (axis.at(scores.zero_shot.value),),
        stacked=True,
    )


def _drawn(scores: Evaluation, score: Score) -> bool:
    return scores.comparable or score is not scores.source


def _span(axis: Axis, score: Score, says: str, *, marked: bool) -> Span:
    low, value, high = sorted((axis.at(score.low), axis.at(score.value), axis.at(score.high)))
    return Span(low, value, high, says, marked)


def _measured(scores: Sequence[Measured]) -> list[Part]:
    """Return what the author of a live port measured."""
    if not scores:
        return [Text("No scores were measured: nothing is known of how well this model does its task.")]
    rows = [(each.label, figure(each.value)) for each in scores]
    return [Table("As measured by the author's own script", (Column("what"), Column("value", "number")), tuple(rows))]


def tried(method: MethodRecord, n: int) -> Section | None:
    """Return what was tried on held-out samples: methods, and scales.

    Args:
        n: the number of calibration samples, over which losses are summed.
    """
    return Section.of("tried", "What was tried", [_methods(method, n), _scales(method)])


def _methods(method: MethodRecord, n: int) -> Part | None:
    choice = method.choice
    if choice is None:
        return None
    losses = [choice.without, *(each.loss for each in choice.tried if each.loss is not None)]
    largest = max(losses) or 1.0
    rows: list[tuple[Cell, ...]] = [_loss("the new base without a port", "0", choice.without, n, largest, "")]
    for each in choice.tried:
        if each.loss is None:
            rows.append((each.name, NONE, NONE, "", f"refused: {each.refusal}" if each.refusal else "refused"))
        else:
            taken = "taken" if each == choice.chosen else ""
            rows.append(_loss(each.name, figure(each.alpha), each.loss, n, largest, taken))
    marked = frozenset(number for number, row in enumerate(rows) if row[-1] == "taken")
    columns = (
        Column("method"),
        Column("α", "number"),
        Column("loss a sample", "number"),
        Column("", "picture"),
        Column(""),
    )
    caption = "Each made from one half of the calibration samples and scored on the other, at its best scale"
    return Table(caption, columns, tuple(rows), marked, stacked=True)


def _loss(name: str, alpha: str, loss: float, n: int, largest: float, taken: str) -> tuple[Cell, ...]:
    each = loss / max(n, 1)
    return (name, alpha, figure(each), Bar(loss / largest), taken)


def _scales(method: MethodRecord) -> Part | None:
    if not method.search:
        return None
    largest = max(each.loss for each in method.search) or 1.0
    rows = [(figure(each.alpha), figure(each.loss), Bar(each.loss / largest)) for each in method.search]
    marked = frozenset(number for number, each in enumerate(method.search) if each.alpha == method.alpha)
    columns = (Column("α"), Column("calibration loss", "number"), Column("", "picture"))
    return Table("Scales that were tried", columns, tuple(rows), marked)


def way(scores: Evaluation) -> str:
    """Return in a sentence what was gained, for reports without a verdict."""
    show, start, ported = metric_of(scores.ported.metric).show, scores.zero_shot, scores.ported
    told = f"The port scores {show(ported.value)}, the new base without it {show(start.value)}"
    return told + (f": {percent(scores.recovered)} of the way." if scores.recovered is not None else ".")
