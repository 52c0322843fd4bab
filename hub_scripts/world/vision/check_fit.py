"""What `hf-bico check` measures on every pair and task of the world, beside what a port of 100 samples recovered.

    python -m hub_scripts.world.vision.check_fit     # ten minutes on one CPU core; goes on where it was

Rows go to docs/results/check.csv; then the tables of docs/check.md and its picture are made anew.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

import numpy as np
import torch
from scipy.stats import spearmanr

from hf_bico.core.collect import Batch, Side
from hf_bico.core.folds import gather_folds, halved, held_out_loss, together
from hf_bico.core.method import Fold
from hf_bico.core.methods import BiCo
from hf_bico.core.pairing import matched
from hf_bico.core.similarity import cka_matrix
from hf_bico.core.transport import holding
from hf_bico.families import family_of
from hf_bico.reports.verdict import FITTED, GOOD_FROM, POOR_BELOW, Grade, Trial, grade, signs_of
from hub_scripts.world.places import DOCS
from hub_scripts.world.vision import cells, tune
from hub_scripts.world.vision.figures import plt, save
from hub_scripts.world.vision.results import SCENARIOS, SEEDS
from hub_scripts.world.vision.tables import fill, load, markdown, where
from hub_scripts.world.vision.tasks import TASKS

ROWS, PAGE = DOCS / "results" / "check.csv", DOCS / "check.md"
PAIRS = (*SCENARIOS.values(), ("s-y", "m-y"), ("s-y", "l-x"))
WHAT, LOSSES = ("source", "target", "task", "seed"), ("before", "after", "source_loss")
SIGNS = ("recovered", "input_residual", "output_residual", "cka", "kept")
COLUMNS = (*WHAT, "n", *SIGNS, *LOSSES, "gap", "points")
CHOSEN_ON = "0"
"""The draw whose rows the thresholds were set by."""
GRADES = (Grade.GOOD, Grade.UNCERTAIN, Grade.POOR)
Row = dict[str, str]


def measure(source: str, target: str, task: str, seed: int) -> dict[str, float]:
    """Signs and losses a sample, as a check of `FITTED` samples has them."""
    job, n = cells.job(cells.Cell(source, target, task, seed, FITTED))
    pictures, labels = (torch.cat(parts) for parts in zip(*(batch.base for batch in job.batches()), strict=True))
    samples = [Batch(*2 * [(pictures[half], labels[half])]) for half in halved(labels.tolist())]

    def on(side: Side, number: int) -> float:
        with torch.no_grad():
            return float(side.loss(side.model, samples[number].target))

    folds = [Fold(lambda k=k: [samples[k]], lambda k=k: on(job.target, 1 - k)) for k in (0, 1)]
    job, method = replace(job, folds=folds), BiCo()
    parts = gather_folds(job, method.wanted)
    before, after = on(job.target, 0) + on(job.target, 1), held_out_loss(job, method, parts)
    moved = method.carry(job, together(job, method.wanted, parts)).moved
    sites = tuple(family_of(side.model).sites(side.model) for side in (job.base, job.target))
    matrix = cka_matrix(job.base, job.target, sites, "", lambda: samples)
    with holding(job.base.model, tune.fine_tune(source, task).items()):
        trial = Trial(before, after, on(job.base, 0) + on(job.base, 1))
    signs = signs_of(moved, {"": matrix}, matched(*sites), trial.recovered)
    losses = dict(zip(LOSSES, (trial.before, trial.after, trial.source), strict=True))
    return asdict(signs) | {name: loss / n for name, loss in losses.items()}


def outcome(ports: list[Row], source: str, target: str, task: str) -> tuple[float, float]:
    """What BiCo recovered with 100 samples, mean of its draws: share of a fine-tune's gain, and points of accuracy."""
    own = where(ports, source=source, target=target, task=task, n=100, per_class=None, strategy=None, method="bico")
    points = [float(row["score"]) - float(row["zero_shot"]) for row in own]
    ways = [float(row["reference"]) - float(row["zero_shot"]) for row in own]
    return float(np.mean([gain / way for gain, way in zip(points, ways, strict=True)])), float(np.mean(points))


def measured() -> list[Row]:
    if not ROWS.exists():
        return []
    with ROWS.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def run() -> None:
    """Append the rows that are not there yet."""
    torch.set_num_threads(1)
    ports, there = load(), {tuple(row[name] for name in WHAT) for row in measured()}
    fresh = not ROWS.exists()
    with ROWS.open("a", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        if fresh:
            out.writerow(COLUMNS)
        for seed, (source, target), task in itertools.product(SEEDS, PAIRS, TASKS):
            if (source, target, task, str(seed)) in there:
                continue
            found = measure(source, target, task, seed)
            figures = [*(found[name] for name in (*SIGNS, *LOSSES)), *outcome(ports, source, target, task)]
            out.writerow([source, target, task, seed, FITTED, *(f"{value:.4f}" for value in figures)])
            file.flush()


def column(rows: Sequence[Row], name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in rows])


def graded(rows: Sequence[Row]) -> dict[Grade, list[Row]]:
    return {each: [row for row in rows if grade(float(row["recovered"])) is each] for each in GRADES}


def record(rows: Sequence[Row]) -> tuple[int, int, float]:
    """How many ports, how many of them gained, and the median share of a fine-tune's gain."""
    gap = column(rows, "gap")
    return len(rows), int((gap > 0).sum()), float(np.median(gap)) if len(rows) else float("nan")


def correlations(rows: Sequence[Row]) -> str:
    """Spearman's ρ of every sign with what the port recovered: draw by draw, over all tasks and within one."""

    def rho(some: Sequence[Row], name: str, against: str) -> float:
        return spearmanr(column(some, name), column(some, against))[0]

    draws = [[row for row in rows if row["seed"] == str(seed)] for seed in SEEDS]
    body = []
    for name in SIGNS:
        within = [rho([row for row in rows if row["task"] == task], name, "gap") for task in TASKS]
        body.append(
            [
                name.replace("_", " "),
                *(f"{rho(some, name, 'gap'):+.2f}" for some in draws),
                f"{rho(rows, name, 'points'):+.2f}",
                f"{np.mean(within):+.2f}",
            ]
        )
    return markdown(["", *(f"draw {seed}" for seed in SEEDS), "points, all draws", "within a task, mean"], body)


def grades(rows: Sequence[Row]) -> str:
    body = []
    ranges = (f"≥ {GOOD_FROM}", "between", f"< {POOR_BELOW}")
    for (each, some), where_ in zip(graded(rows).items(), ranges, strict=True):
        cells_ = [
            f"{gained} of {ports}, {median:+.0%}"
            for ports, gained, median in (
                record([row for row in some if (row["seed"] == CHOSEN_ON) is first]) for first in (True, False)
            )
        ]
        body.append([each.value, where_, *cells_])
    return markdown(["verdict", "recovered in small", f"gained, median share: draw {CHOSEN_ON}", "draws 1 and 2"], body)


def tables(rows: Sequence[Row]) -> dict[str, Callable[[], str]]:
    return {"correlations": lambda: correlations(rows), "grades": lambda: grades(rows)}


def draw(rows: Sequence[Row]) -> None:
    """What a check sees against what the port recovered, a panel a sign and a colour a task."""
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), sharey=True)
    for axis, name in zip(axes, ("recovered", "input_residual", "cka"), strict=True):
        for task in TASKS:
            own = [row for row in rows if row["task"] == task]
            axis.scatter(column(own, name), 100 * column(own, "gap"), s=9, label=task)
        rho = spearmanr(column(rows, name), column(rows, "gap"))[0]
        axis.set(
            title=f"ρ = {rho:+.2f}",
            xlabel={"recovered": "loss's gap recovered in small"}.get(name, name.replace("_", " ")),
        )
        axis.axhline(0, color="grey", linewidth=0.5)
    for edge in (POOR_BELOW, GOOD_FROM):
        axes[0].axvline(edge, color="grey", linestyle="--", linewidth=0.8)
    axes[0].set_xlim(-1, None)  # two lie further down
    axes[0].set_ylabel("of a fine-tune's gain, by a port, N = 100, %")
    axes[2].legend(fontsize="x-small")
    save(figure, "check.png")


def main() -> None:
    run()
    rows = measured()
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), tables(rows)), encoding="utf-8")
    draw(rows)


if __name__ == "__main__":
    main()
