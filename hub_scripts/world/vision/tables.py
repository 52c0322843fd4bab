"""cells.csv → the tables in docs/results.md and docs/results_methods.md (between their markers), pictures.

    python -m hub_scripts.world.vision.tables

The share of a fine-tune's gain is the papers' gap recovered: from accuracies averaged over the tasks,
(ported − zero-shot)/(fine-tuned − zero-shot) in %; a cell gives its mean over the seeds ± their standard deviation.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from hub_scripts.world.vision.figures import IMAGES, plt, save
from hub_scripts.world.vision.results import (
    ADVICE,
    CELLS,
    FOR_CHOOSING,
    ONE_CLASS,
    SCENARIOS,
    STRATEGIES,
    TESTED,
    K,
    N,
)
from hub_scripts.world.vision.tasks import TASKS

PAGES = tuple(CELLS.parents[1] / name for name in ("results.md", "results_methods.md"))
Row = dict[str, str]
PAPER = {
    "narrow to wide": {"theseus": "4.6/6.2/9.0/10.8", "bico": "11.5/33.8/47.5/53.6", "naive": "−11.1"},
    "wide to narrow": {"theseus": "9.5/13.5/18.6/21.2", "bico": "7.3/26.5/49.1/62.7", "naive": "−56.9"},
    "wider and deeper": {"theseus": "–/–/–/9.1", "bico": "–/–/–/46.9", "naive": "0.2"},
    "narrower and shallower": {"theseus": "–/–/–/19.8", "bico": "–/–/–/50.9", "naive": "−1.5"},
}
PAPER_K = {
    "narrow to wide": {"theseus": "6.3/6.8/11.5/–/–", "bico": "38.1/50.0/59.3/–/–", "few-shot": "18.3/26.3/27.0/–/–"},
    "same shape, other data": {
        "theseus": "17.7/19.2/21.8/27.6/28.9", "bico": "43.4/50.6/58.0/65.4/67.8", "naive": "−25.9",
        "gradfix": "26.1/28.1/28.2/29.7/29.7", "transfusion": "5.1"},
}  # fmt: skip


def load() -> list[Row]:
    with CELLS.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def where(rows: Iterable[Row], **want: object) -> list[Row]:
    """The rows with these values; None is an empty field."""
    text = {key: "" if value is None else str(value) for key, value in want.items()}
    return [row for row in rows if all(row[key] == value for key, value in text.items())]


def gaps(rows: Sequence[Row], tasks: int = len(TASKS)) -> list[float]:
    """Share of a fine-tune's gain by seed, in %, from the means over so many tasks; of seeds that have them all."""
    found = []
    for seed in sorted({row["seed"] for row in rows}):
        own = [row for row in rows if row["seed"] == seed and row["score"]]
        if len(own) == tasks:
            score, zero, tuned = (
                np.mean([float(row[key]) for row in own]) for key in ("score", "zero_shot", "reference")
            )
            found.append(100 * (score - zero) / (tuned - zero))
    return found


def cell(rows: Sequence[Row]) -> str:
    found = gaps(rows)
    if not found:
        return "refused" if any(row["refusal"] for row in rows) else "–"
    return f"{np.mean(found):.1f} ± {np.std(found, ddof=1):.1f}" if len(found) > 1 else f"{found[0]:.1f}"


def markdown(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in body)])


def draws(
    rows: list[Row],
    pair: tuple[str, str],
    column: str,
    values: Sequence[int],
    methods: Sequence[str],
    paper: dict[str, str],
) -> str:
    """Methods down, N or K across, the paper's row beside."""
    at = dict(zip(("source", "target"), pair, strict=True))
    other = {"n": {"per_class": None}, "per_class": {"n": None}}[column] | {"strategy": None}
    body = [
        [
            name,
            *(cell(where(rows, **at, **other, **{column: value}, method=name)) for value in values),
            paper.get(name, ""),
        ]
        for name in methods
    ]
    return markdown(["method", *(f"{'N' if column == 'n' else 'K'} = {value}" for value in values), "paper"], body)


def per_task(rows: list[Row], pair: tuple[str, str], n: int, methods: Sequence[str]) -> str:
    """Accuracy of every task, mean of the seeds."""
    at = where(rows, source=pair[0], target=pair[1], n=n, per_class=None, strategy=None)

    def mean(task: str | None, method: str, column: str) -> str:
        found = [float(row[column]) for row in where(at, method=method) if task in (None, row["task"]) and row[column]]
        return f"{np.mean(found):.1f}" if found else "–"

    body = [
        [
            task or "mean",
            mean(task, "bico", "zero_shot"),
            *(mean(task, name, "score") for name in methods),
            mean(task, "bico", "reference"),
        ]
        for task in (*TASKS, None)
    ]
    return markdown(["task", "zero-shot", *methods, "fine-tuned target"], body)


def across(rows: list[Row], methods: Sequence[str], n: int) -> str:
    """Methods down, scenarios across, at one N."""
    body = [
        [
            name,
            *(
                cell(where(rows, source=a, target=b, n=n, per_class=None, strategy=None, method=name))
                for a, b in SCENARIOS.values()
            ),
        ]
        for name in methods
    ]
    return markdown(["method", *SCENARIOS], body)


def advice(rows: list[Row], n: int) -> str:
    """Methods down, the pairs of the half for testing across, their mean, and the seconds of a port; of the draws that
    every method has.
    """
    tasks = [task for task in TASKS if task not in FOR_CHOOSING]
    at = [row for row in where(rows, n=n, per_class=None, strategy=None) if row["task"] in tasks and row["score"]]

    def drawn(pair: tuple[str, str], name: str) -> dict[str, list[Row]]:
        own = where(at, source=pair[0], target=pair[1], method=name)
        by_seed = {seed: where(own, seed=seed) for seed in sorted({row["seed"] for row in own})}
        return {seed: each for seed, each in by_seed.items() if len(each) == len(tasks)}

    shared = {pair: set.intersection(*(set(drawn(pair, name)) for name in ADVICE)) for pair in TESTED}
    body = []
    for name in ADVICE:
        found = {
            pair: [row for seed, each in drawn(pair, name).items() if seed in seeds for row in each]
            for pair, seeds in shared.items()
        }
        each = {pair: float(np.mean(gaps(some, len(tasks)))) for pair, some in found.items() if some}
        seconds = np.mean([float(row["seconds"]) for some in found.values() for row in some] or [float("nan")])
        cells = [f"{each[pair]:.1f}" if pair in each else "–" for pair in TESTED]
        mean = f"**{np.mean(list(each.values())):.1f}**" if each else "–"
        body.append([name, *cells, mean, f"{seconds:.1f}" if each else "–"])
    draws = [", ".join(sorted(seeds)) or "none" for seeds in shared.values()]
    head = ["method", *(f"{a} → {b}" for a, b in TESTED), "mean", "seconds"]
    return markdown(head, [*body, ["*draws*", *draws, "", ""]])


def strategies(rows: list[Row]) -> str:
    at = where(rows, source="s-x", target="m-y", per_class=None)
    paper = dict(zip(STRATEGIES, ("53.6", "53.7", "54.3", "38.6", "35.9", "23.8"), strict=True))
    body = []
    for name in STRATEGIES:
        n = ONE_CLASS if name == "one-class" else 100
        some = where(at, strategy=None if name == "random" else name, n=n)
        body.append(
            [name, *(cell(where(some, method=method)) for method in ("theseus", "bico", "weighted")), paper[name]]
        )
    return markdown(["calibration set", "theseus", "bico", "weighted", "paper's BiCo"], body)


FIELD = ("naive", "few-shot", "gradfix", "gradfix sign=vote", "transfusion", "theseus", "bico", "weighted")
IDEAS = (
    "bico",
    "bico completion=free",
    "bico completion=filled",
    "bico centred=true",
    "bico label_free=8",
    "bico label_free=8 centred=true",
    "bico steps=4",
    "bico label_free=8 centred=true steps=4",
    "weighted",
    "few-shot steps=40",
)


def tables(rows: list[Row]) -> dict[str, Callable[[], str]]:
    by = {
        f"N {name}": (lambda pair=pair, name=name: draws(rows, pair, "n", N, FIELD, PAPER.get(name, {})))
        for name, pair in SCENARIOS.items()
    }
    by |= {
        f"K {name}": (lambda pair=SCENARIOS[name], name=name: draws(rows, pair, "per_class", K, FIELD, PAPER_K[name]))
        for name in PAPER_K
    }
    by |= {
        f"tasks {name}": (lambda pair=pair: per_task(rows, pair, 100, ("naive", "theseus", "bico", "weighted")))
        for name, pair in SCENARIOS.items()
    }
    return by | {
        "N other sources": lambda: "\n\n".join(
            f"{a} → {b}\n\n" + draws(rows, (a, b), "n", N, ("naive", "theseus", "bico", "weighted"), paper)
            for (a, b), paper in (
                (("s-y", "m-y"), {"bico": "8.1/24.9/43.4/52.1", "theseus": "1.4/4.0/7.2/8.1"}),
                (("s-y", "l-x"), {"bico": "–/–/–/48.2", "theseus": "–/–/–/−4.6"}),
            )
        ),
        "ablation": lambda: across(rows, ("input-only", "output-only", "gradient-only", "theseus", "bico"), 100),
        "ideas 20": lambda: across(rows, IDEAS, 20),
        "ideas 100": lambda: across(rows, IDEAS, 100),
        "strategies": lambda: strategies(rows),
        "advice 20": lambda: advice(rows, 20),
        "advice 100": lambda: advice(rows, 100),
    }


def fill(page: str, made: dict[str, Callable[[], str]]) -> str:
    """The page with every `<!-- table: NAME -->` … `<!-- end -->` made anew."""

    def table(match: re.Match) -> str:
        return f"<!-- table: {match[1]} -->\n\n{made[match[1]]()}\n\n<!-- end -->"

    return re.sub(r"<!-- table: (.+?) -->.*?<!-- end -->", table, page, flags=re.DOTALL)


def draw_gaps(rows: list[Row]) -> None:
    """Share of a fine-tune's gain against N, a panel a scenario."""
    figure, axes = plt.subplots(1, len(SCENARIOS), figsize=(3.2 * len(SCENARIOS), 3.4), sharey=True)
    for axis, (name, (a, b)) in zip(axes, SCENARIOS.items(), strict=True):
        for method in ("naive", "theseus", "bico", "weighted"):
            found = [gaps(where(rows, source=a, target=b, n=n, strategy=None, method=method)) for n in N]
            if all(found):
                axis.errorbar(N, [np.mean(f) for f in found], [np.std(f) for f in found], marker=".", label=method)
        axis.set(title=name, xlabel="N", xscale="log", xticks=N, xticklabels=N)
        axis.minorticks_off()
        axis.axhline(0, color="grey", linewidth=0.5)
    axes[0].set_ylabel("of a fine-tune's gain, %")
    axes[0].legend()
    save(figure, "gap.png")


def draw_tasks(rows: list[Row], pair: tuple[str, str] = ("s-x", "m-y")) -> None:
    """Accuracy of every task at N = 100."""
    at = where(rows, source=pair[0], target=pair[1], n=100, per_class=None, strategy=None)
    bars = {
        "zero-shot": ("bico", "zero_shot"),
        "naive": ("naive", "score"),
        "theseus": ("theseus", "score"),
        "bico": ("bico", "score"),
        "weighted": ("weighted", "score"),
        "fine-tuned target": ("bico", "reference"),
    }
    figure, axis = plt.subplots(figsize=(10, 3.5))
    for index, (label, (method, column)) in enumerate(bars.items()):
        height = [np.mean([float(row[column]) for row in where(at, method=method, task=task)]) for task in TASKS]
        axis.bar(np.arange(len(TASKS)) + 0.14 * (index - 2.5), height, 0.14, label=label)
    axis.set_xticks(range(len(TASKS)), TASKS)
    axis.set_ylabel("accuracy, %")
    axis.legend(fontsize="small", ncols=3)
    save(figure, "tasks.png")


def main() -> None:
    rows = load()
    for page in PAGES:
        page.write_text(fill(page.read_text(encoding="utf-8"), tables(rows)), encoding="utf-8")
    for draw in (draw_gaps, draw_tasks):
        draw(rows)
    print(f"{', '.join(page.name for page in PAGES)} and {IMAGES.name}/ are made of {len(rows)} rows")


if __name__ == "__main__":
    main()
