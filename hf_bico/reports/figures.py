"""Pictures for cards and reports."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hf_bico.reports.report import Evaluation, PortReport
from hf_bico.reports.tables import whole_way
from hf_bico.tasks.scores import METRICS

MOST_VALUES = 12
"""The most blocks on a side for which values are written into a picture's cells."""


COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours that can be told apart by eyes that mix red and green (Okabe and Ito 2008)."""
WIDE = 0.082
"""Inches of a letter of a label, rather more than less."""
MATCHING_FILE, SCORES_FILE = "matching.png", "scores.png"


def draw_report(folder: Path, report: PortReport) -> None:
    """Draw the pictures of a report into its folder: the scores, and the layer matching where blocks were compared."""
    if report.evaluation:
        draw_scores(report.evaluation, folder / SCORES_FILE)
    found = report.matching
    if found and found.paths and found.cka:
        towers = {tower: Matched(np.array(matrix), found.paths[tower]) for tower, matrix in found.cka.items()}
        base, target = (report.lineage[role].name.split("/")[-1] for role in ("base", "target"))
        draw_matching(towers, (base, target), folder / MATCHING_FILE)


def draw_scores(scores: Evaluation, file: Path) -> None:
    """Draw every model's score with its 95 % interval, a line each, this port's at the bottom in colour.

    The ground is white, so that the picture reads on a dark page too.
    """
    from matplotlib.figure import Figure

    metric = METRICS[scores.ported.metric]
    times = 100 if metric.share else 1
    rows = [row for row in scores.rows if scores.comparable or row[1] is not scores.source]
    names = [f"{label} (this model)" if score is scores.ported else label for label, score in rows[::-1]]
    left, wide, high = 0.3 + WIDE * max(map(len, names)), 3.9, 0.42 * len(rows) + 0.2
    figure = Figure(figsize=(left + wide + 0.3, high + 0.7), facecolor="white")
    panel = _panel(figure, (left, 0.6, wide, high))
    for place, (_, score) in enumerate(reversed(rows)):
        own = score is scores.ported
        values = [times * each for each in (score.value, score.low, score.high)]
        panel.plot(values[1:], [place] * 2, color=COLOURS[1] if own else "#555555", linewidth=2.2)
        panel.plot(values[0], place, marker="D" if own else "o", markersize=8, color=COLOURS[1] if own else "#222222")
        panel.annotate(
            metric.show(score.value), (values[0], place), (0, 7), textcoords="offset points", ha="center", fontsize=8
        )
    panel.set_yticks(range(len(rows)), names)
    panel.set_ylim(-0.6, len(rows) - 0.3)
    panel.set_xlabel(f"{metric.name}{' in %' if metric.share else ''}{'' if metric.higher else ', less is better'}")
    panel.grid(axis="x", color="#dddddd", linewidth=0.8)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.tick_params(axis="y", length=0)
    figure.savefig(file, dpi=150)


def _panel(figure, place: tuple[float, float, float, float]):
    """Return axes of a figure at left, bottom, width and height in inches; to find a layout takes as long again."""
    wide, high = figure.get_size_inches()
    left, bottom, width, height = place
    return figure.add_axes((left / wide, bottom / high, width / wide, height / high))


class Matched(NamedTuple):
    """How the blocks of one tower are matched."""

    matrix: np.ndarray
    """(L_B, L_A) CKA of block inputs."""
    path: Sequence[int | None]
    """For every block of B its block of A, or None."""


def draw_matching(towers: Mapping[str, Matched], names: tuple[str, str], file: Path) -> None:
    """Draw the CKA matrix of every tower, side by side, with the chosen path framed in it; PNG or SVG by the
    file's name.

    Args:
        names: what the source's base and the target are called.
    """
    from matplotlib.figure import Figure

    widths = [max(2.4, 0.34 * matched.matrix.shape[1] + 0.6) for matched in towers.values()]
    height = max(2.2, 0.34 * max(len(matched.matrix) for matched in towers.values()) + 0.4)
    figure, left = Figure(figsize=(sum(widths) + 0.8 * len(widths) + 1.1, height + 1.0), facecolor="white"), 0.7
    for width, (tower, matched) in zip(widths, towers.items(), strict=True):
        panel = _panel(figure, (left, 0.6, width, height))
        left += width + 0.8
        shown = panel.imshow(matched.matrix, vmin=0, vmax=1, origin="lower", aspect="auto", cmap="viridis")
        _draw_path(panel, matched)
        panel.set_xlabel(f"block of {names[0]}")
        panel.set_ylabel(f"block of {names[1]}")
        panel.set_title(tower)
        for axis, count in zip((panel.xaxis, panel.yaxis), reversed(matched.matrix.shape), strict=True):
            axis.set_ticks(range(0, count, 1 + count // 17))
    figure.colorbar(shown, cax=_panel(figure, (left - 0.6, 0.6, 0.16, height)), label="linear CKA of the block inputs")
    figure.savefig(file, dpi=150)


def _draw_path(panel, matched: Matched) -> None:
    """Draw a frame around every cell of the path, and the values where there is room."""
    from matplotlib.patches import Rectangle

    for target, source in enumerate(matched.path):
        if source is not None:
            panel.add_patch(
                Rectangle((source - 0.46, target - 0.46), 0.92, 0.92, fill=False, edgecolor="tab:red", linewidth=1.8)
            )
    if max(matched.matrix.shape) <= MOST_VALUES:
        for (target, source), value in np.ndenumerate(matched.matrix):
            panel.text(
                source,
                target,
                f"{value:.2f}",
                ha="center",
                va="center",
                fontsize=6,
                color="black" if value > 0.6 else "white",
            )


MARKERS = "os^Dv<>P"


def draw_comparison(summary: Sequence[Mapping[str, Any]], goal: str, file: Path) -> bool:
    """Draw the share of the way to the goal that every method brings against N; return whether there is one to draw.

    Args:
        summary: entries with `method`, `alpha`, `n`, and `recovered` and its spread over the seeds.
        goal: what ports are measured by.
    """
    from matplotlib.figure import Figure

    known = [entry for entry in summary if entry["recovered"] is not None]
    if not known:
        return False
    scales, sizes = {entry["alpha"] for entry in known}, sorted({entry["n"] for entry in known})
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for entry in known:
        name = entry["method"] + (f", α = {entry['alpha']}" if len(scales) > 1 else "")
        lines.setdefault(name, []).append(entry)
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    panel = figure.subplots()
    for number, (name, entries) in enumerate(lines.items()):
        entries = sorted(entries, key=lambda entry: entry["n"])
        heights, spreads = ([100 * (entry[key] or 0) for entry in entries] for key in ("recovered", "recovered_spread"))
        style: Any = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)], "capsize": 3}
        panel.errorbar([entry["n"] for entry in entries], heights, spreads, label=name, **style)
    panel.axhline(0, color="grey", linewidth=0.8)
    panel.axhline(100, color="grey", linewidth=0.8, linestyle="--")
    panel.set_xscale("log")
    panel.set_xticks(sizes, [str(size) for size in sizes], minor=False)
    panel.minorticks_off()
    panel.set_xlabel("calibration samples N")
    panel.set_ylabel(f"% of {whole_way(goal)}")
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    figure.savefig(file, dpi=150)
    return True
