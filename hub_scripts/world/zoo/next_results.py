"""Ports to a base's next version, of LoRAs, and with samples without labels: docs/results/next.csv and its page.

python -m hub_scripts.world.zoo.next_results             # goes on where it was, then writes docs/results_next.md
python -m hub_scripts.world.zoo.next_results --only lora # some scenarios, bases or tasks
python -m hub_scripts.world.zoo.next_results --page      # only writes the page

Another method is another entry of METHODS; the rows that are there stay.
"""

from __future__ import annotations

import argparse
import csv
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import fmean

from hub_scripts.world.places import DOCS
from hub_scripts.world.vision.tables import fill
from hub_scripts.world.zoo.make import base, dataset, lora, merged, tuned
from hub_scripts.world.zoo.results import compared

CSV, PAGE = DOCS / "results" / "next.csv", DOCS / "results_next.md"
METHODS = ("naive", "bico", "weighted", "theseus", "response", "few-shot steps=40 rate=3e-4", "auto")
"""Each a method's name, then its options as name=value."""
BLIND = ("naive", "theseus", "response maps=output")
"""Those that never look at a label."""
SIZES, SEEDS = (20, 100), 3
SCORED = {"lm": 200}
"""Samples that a kind of model is scored on, where not all: answers are written token by token."""
LONGEST, BATCH = 96, 20


@dataclass(frozen=True)
class Scenario:
    """One fine-tune that is ported to one base."""

    name: str
    source: str
    target: str
    task: str
    methods: tuple[str, ...] = METHODS

    @property
    def is_lora(self) -> bool:
        return self.name == "lora"


SCENARIOS = (
    Scenario("next", "vit-narrow", "vit-narrow-next", "digits"),
    Scenario("next", "bert-narrow", "bert-narrow-next", "kind"),
    Scenario("next", "lm-a", "lm-a-next", "heading"),
    Scenario("lora", "lm-a", "lm-a-next", "heading"),
    Scenario("lora", "lm-a", "lm-b", "heading"),
    Scenario("no labels", "vit-narrow", "vit-narrow-next", "digits", BLIND),
    Scenario("no labels", "bert-narrow", "bert-narrow-next", "kind", BLIND),
    Scenario("no labels", "bert-narrow", "bert-wide", "kind", BLIND),
)


@dataclass(frozen=True)
class Row:
    """One method on one draw; scores in per cent, on the test split."""

    scenario: str
    source: str
    target: str
    task: str
    n: int
    seed: int
    method: str
    score: float | None
    """None where the method refuses."""
    before: float
    """The target without a port."""
    own: float
    """The target's own fine-tune."""
    tuned: float
    """The fine-tune that is ported, on its own base."""

    @property
    def what(self) -> tuple[str, str, str, str]:
        return self.scenario, self.source, self.target, self.task


def unlabelled(task: str) -> Path:
    """The task's dataset with one and the same class in every row of the training split: labels that say nothing."""
    import datasets

    folder, other = dataset(task), dataset(task).with_name(f"{task}-unlabelled")
    if not (other / "README.md").is_file():
        (other / "data").mkdir(parents=True, exist_ok=True)
        for file in sorted((folder / "data").iterdir()):
            shutil.copyfile(file, other / "data" / file.name)
        train = datasets.Dataset.from_parquet(str(next((folder / "data").glob("train-*"))))
        blank = train.remove_columns("label").add_column("label", [0] * len(train), feature=train.features["label"])
        blank.to_parquet(next((other / "data").glob("train-*")))
        shutil.copyfile(folder / "README.md", other / "README.md")
    return other


def command(scenario: Scenario, n: int, methods: Sequence[str]) -> list[object]:
    """The words behind `hf-bico compare`, all draws of one size."""
    ported, own = (lora, merged) if scenario.is_lora else (tuned, tuned)
    words: list[object] = [ported(scenario.source, scenario.task), "--base", base(scenario.source)]
    words += ["--to", base(scenario.target), "--target-tuned", own(scenario.target, scenario.task)]
    words += ["--dataset", unlabelled(scenario.task) if scenario.name == "no labels" else dataset(scenario.task)]
    words += ["-n", n, "--seeds", SEEDS, "--max-length", LONGEST, "--batch-size", BATCH]
    kind = scenario.source.split("-")[0]
    words += ["--eval-n", SCORED[kind]] if kind in SCORED else []
    for name, *options in map(str.split, methods):
        words += ["--method", name, *(word for option in options for word in ("--set", f"{name}:{option}"))]
    return words


def read(scenario: Scenario, methods: Sequence[str], data: dict) -> Iterator[Row]:
    """The rows of a compare.json."""
    names = {words.split()[0]: words for words in methods}
    draws = {(draw["n"], draw["seed"]): draw for draw in data["calibration"]}
    for found in data["rows"]:
        draw = draws[found["n"], found["seed"]]
        scores = (found["score"], draw["start"]["value"], data["reference"]["value"])
        scores = [None if s is None else round(100 * s, 3) for s in (*scores, data["evaluation"]["source"]["value"])]
        what = (scenario.name, scenario.source, scenario.target, scenario.task)
        yield Row(*what, found["n"], found["seed"], names[found["method"]], *scores)


def left(scenario: Scenario, n: int, rows: list[Row]) -> list[str]:
    """The methods without a row of every draw."""
    mine = [row for row in rows if row.what == (scenario.name, scenario.source, scenario.target, scenario.task)]
    return [m for m in scenario.methods if sum(row.n == n and row.method == m for row in mine) < SEEDS]


def load() -> list[Row]:
    if not CSV.is_file():
        return []
    with CSV.open(encoding="utf-8", newline="") as file:
        return [Row(**{name: _value(name, text) for name, text in line.items()}) for line in csv.DictReader(file)]


def _value(name: str, text: str) -> str | int | float | None:
    if name in ("n", "seed"):
        return int(text)
    return (float(text) if text else None) if name in ("score", "before", "own", "tuned") else text


def save(rows: list[Row]) -> None:
    CSV.parent.mkdir(parents=True, exist_ok=True)
    with CSV.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def gap(rows: Sequence[Row]) -> float | None:
    """Per cent of the way from the target to its own fine-tune, of the means over the draws; None without a score."""
    scores = [row.score for row in rows if row.score is not None]
    start, end = (fmean([getattr(row, name) for row in rows]) for name in ("before", "own"))
    return 100 * (fmean(scores) - start) / (end - start) if scores and end != start else None


def table(rows: list[Row], name: str, n: int) -> str:
    """Means over the draws of one scenario at one N, a line a port: the score, and behind it the share of the gain."""
    mine = [row for row in rows if row.scenario == name and row.n == n]
    methods = [m for m in dict.fromkeys((*METHODS, *BLIND)) if any(row.method == m for row in mine)]
    head = ("ported to", "source", "before", *(m.split(" rate")[0] for m in methods), "own")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for what in dict.fromkeys(row.what for row in mine):
        port = [row for row in mine if row.what == what]
        ends = [f"{fmean([getattr(row, end) for row in port]):.1f}" for end in ("tuned", "before", "own")]
        cells = [_cell([row for row in port if row.method == m]) for m in methods]
        lines.append(f"| {what[2]} | " + " | ".join((*ends[:2], *cells, ends[2])) + " |")
    return "\n".join(lines)


def _cell(rows: Sequence[Row]) -> str:
    found = gap(rows) if rows else None
    if found is None:
        return "refused" if rows else "–"
    return f"{fmean([row.score for row in rows if row.score is not None]):.1f} ({found:.0f})"


def filled(page: str, rows: list[Row]) -> str:
    """The page with its tables made of the rows."""
    names = dict.fromkeys(scenario.name for scenario in SCENARIOS)
    made = {f"{name}, {n}": lambda name=name, n=n: table(rows, name, n) for name in names for n in SIZES}
    return fill(page, made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[], help="scenarios, bases or tasks; all unless given")
    parser.add_argument("--page", action="store_true", help="only write the page")
    args = parser.parse_args()
    for scenario in [] if args.page else SCENARIOS:
        if set(args.only) <= {scenario.name, scenario.source, scenario.target, scenario.task}:
            for n in SIZES:
                if missing := left(scenario, n, load()):
                    made = list(read(scenario, missing, compared(command(scenario, n, missing))))
                    save([*load(), *made])  # another process may have added to it
                    print("done:", scenario.name, scenario.source, scenario.target, n, flush=True)
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), load()), encoding="utf-8")


if __name__ == "__main__":
    main()
