"""docs/results_real.md: the tables between its markers and the figure, from docs/results/real.csv."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev

from hub_scripts.real.rows import METHODS, OF_OWN, OF_SOURCE, PAIRS, SIZES, START, Pair, Row
from hub_scripts.real.texts import SECTIONS
from hub_scripts.real.tune import RECIPES
from hub_scripts.world.places import DOCS
from hub_scripts.world.vision.figures import plt, save
from hub_scripts.world.vision.tables import fill

PAGE, FIGURE = DOCS / "results_real.md", "real.png"
COLOURS = {20: "#0072b2", 100: "#d55e00"}


def write(rows: Sequence[Row]) -> None:
    """Write the page's tables and its figure."""
    tables = {str(number): (lambda pair=pair: table(rows, pair)) for number, pair in enumerate(PAIRS)}
    tables["fine-tunes"] = lambda: fine_tunes(rows)
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), tables), encoding="utf-8")
    draw(rows)


def scores(rows: Sequence[Row], pair: Pair, n: int, what: str) -> list[float]:
    """Return the scores of every draw, in per cent."""
    some = [row for row in rows if (row.pair, row.n, row.what) == (pair, n, what)]
    return [row.score for row in sorted(some, key=lambda row: row.seed) if row.score is not None]


def gap(rows: Sequence[Row], pair: Pair, n: int, what: str) -> float | None:
    """Return the mean share, in per cent, of the gain of the new base's own fine-tune that a port brings."""
    found = [scores(rows, pair, n, name) for name in (START, OF_OWN, what)]
    if what in (START, OF_SOURCE, OF_OWN) or not all(found) or len({len(some) for some in found}) > 1:
        return None
    start, own, ported = map(fmean, found)
    return 100 * (ported - start) / (own - start) if own > start else None


def table(rows: Sequence[Row], pair: Pair) -> str:
    """Return a pair's scores: mean and standard deviation over the draws, and the share of the fine-tune's gain."""
    sizes = [n for n in SIZES if scores(rows, pair, n, START)]
    if not sizes:
        return "Not measured yet."
    lines = ["| | " + " | ".join(f"N = {n} | of the gain" for n in sizes) + " |", "|---" * (1 + 2 * len(sizes)) + "|"]
    for what in (START, *METHODS, OF_SOURCE, OF_OWN):
        cells = [cell for n in sizes for cell in _cells(rows, pair, n, what)]
        if any(cell != "–" for cell in cells):
            lines.append(f"| {what} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cells(rows: Sequence[Row], pair: Pair, n: int, what: str) -> tuple[str, str]:
    found, share = scores(rows, pair, n, what), gap(rows, pair, n, what)
    if not found:
        refused = any((row.pair, row.n, row.what) == (pair, n, what) for row in rows)
        return "refused" if refused else "–", "–"
    spread = f" ± {stdev(found):.1f}" if len(found) > 1 else ""
    return f"{fmean(found):.1f}{spread}", "–" if share is None else f"{share:.0f} %"


def fine_tunes(rows: Sequence[Row]) -> str:
    """Return how well the fine-tunes do as they were trained."""
    lines = ["| fine-tune | steps | texts a step | score |", "|---|---|---|---|"]
    found = {row.what: row.score for row in rows if not row.n}
    lines += [f"| {name} | {r.steps} | {r.batch} | {found.get(name, '–')} |" for name, r in RECIPES.items()]
    return "\n".join(lines)


def draw(rows: Sequence[Row]) -> None:
    """Draw the scores of every pair that has some: a dot a draw, lines for the new base as it is (dotted) and for its
    own fine-tune.
    """
    pairs = [pair for pair in PAIRS if any(row.pair == pair and row.n for row in rows)]
    if not pairs:
        return
    wide = min(2, len(pairs))
    tall = -(-len(pairs) // wide)
    figure, axes = plt.subplots(tall, wide, figsize=(4.5 * wide, 3.2 * tall), sharey=True, squeeze=False)
    for axis, pair in zip(axes.flat, pairs, strict=False):
        for shift, n in zip((-0.15, 0.15), SIZES, strict=True):
            for what, style in ((START, ":"), (OF_OWN, "-")):
                if found := scores(rows, pair, n, what):
                    axis.axvline(fmean(found), color=COLOURS[n], linestyle=style, linewidth=1)
            for place, method in enumerate(METHODS):
                found = scores(rows, pair, n, method)
                axis.plot(found, [place + shift] * len(found), "o", color=COLOURS[n], markersize=4)
        metric = "accuracy, %" if pair.task == SECTIONS else "MRR@10, %"
        axis.set(title=f"{pair.task}: {pair.source} → {pair.target}", xlabel=metric, yticks=range(len(METHODS)))
        axis.set_yticklabels([method.split()[0] for method in METHODS])
        axis.grid(axis="x", alpha=0.3)
    axes[0, 0].invert_yaxis()
    for n, colour in COLOURS.items():
        axes[0, 0].plot([], [], "o", color=colour, markersize=4, label=f"N = {n}")
    axes[0, 0].legend(fontsize="small")
    save(figure, FIGURE)


if __name__ == "__main__":
    from hub_scripts.real.rows import load

    write(load())
