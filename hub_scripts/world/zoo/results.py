"""Every pair of the zoo under `hf-bico compare`, as rows of docs/results/zoo.csv and as tables.

python -m hub_scripts.world.zoo.results                        # goes on where it was
python -m hub_scripts.world.zoo.results --only lm-a --tables   # rows of some pairs; print the tables
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import fmean

from hub_scripts.world.places import DOCS
from hub_scripts.world.zoo.make import PAIRS, base, dataset, kind_of, tuned

CSV = DOCS / "results" / "zoo.csv"
METHODS = ("naive", "theseus", "bico", "weighted")
HEADS = {"vit": ("transport", "ridge"), "bert": ("transport", "ridge"), "minilm": ("transport", "ridge"), "lm": ("lm",)}
OWN = ("source", "target", "fine-tuned")
"""Rows that no method made: the source's own score, the target's without a port, its own fine-tune's."""


@dataclass(frozen=True)
class Row:
    source: str
    target: str
    task: str
    head: str
    metric: str
    n: int
    seed: int
    what: str
    """A method, or one of OWN."""
    alpha: str
    """As asked for."""
    scale: float
    """The α it is of."""
    score: float | None
    """In per cent but for perplexity; None where the method refuses."""


@dataclass(frozen=True)
class Cell:
    """One call of `hf-bico compare`."""

    source: str
    target: str
    task: str
    head: str
    alphas: tuple[str, ...]
    sizes: tuple[int, ...]
    seeds: int
    methods: tuple[str, ...] = METHODS

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.source, self.target, self.task, self.head


def cells(sizes: tuple[int, ...] = (50, 100), seeds: int = 2) -> Iterator[Cell]:
    """Both ways of every pair whose two models have a fine-tune; lm-c is a target alone."""
    for (a, b), tasks in PAIRS.items():
        for source, target in ((a, b), (b, a)) if b != "lm-c" else ((a, b),):
            for task in tasks:
                for head in HEADS[kind_of(source)]:
                    yield Cell(source, target, task, head, ("1",) if head == "ridge" else ("1", "auto"), sizes, seeds)


def rows_of(cell: Cell) -> list[Row]:
    """Runs the tool and reads what it wrote."""
    words = [
        tuned(cell.source, cell.task),
        "--base",
        base(cell.source),
        "--to",
        base(cell.target),
        "--dataset",
        dataset(cell.task),
        "--target-tuned",
        tuned(cell.target, cell.task),
        "--seeds",
        cell.seeds,
        "--head",
        cell.head,
        "--max-length",
        160,
        "--batch-size",
        16,
    ]
    words += [word for name in cell.methods for word in ("--method", name)]
    words += [word for n in cell.sizes for word in ("-n", n)] + [w for a in cell.alphas for w in ("--alpha", a)]
    return list(read(cell, compared(words)))


TABLES = "--only", "linear"
"""What all tables so far were made with."""


def compared(words: Iterable[object]) -> dict:
    """What `hf-bico compare WORDS` writes to its compare.json; it runs in a process of its own, on one thread."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "table"
        code = "import torch; torch.set_num_threads(1); from hf_bico.cli.main import main; main()"
        subprocess.run(
            [sys.executable, "-P", "-c", code, "compare", *map(str, words), *TABLES, "--output", str(out), "-q"],
            check=True,
        )
        return json.loads((out / "compare.json").read_text())


def read(cell: Cell, data: dict) -> Iterator[Row]:
    """The rows of a compare.json."""
    metric = data["evaluation"]["metric"]
    size = 1 if metric == "perplexity" else 100

    def row(n: int, seed: int, what: str, score: float | None, alpha: str = "", scale: float = 0.0) -> Row:
        return Row(
            *cell.key, metric, n, seed, what, alpha, round(scale, 4), None if score is None else round(size * score, 3)
        )

    for draw in data["calibration"]:
        told = (draw["n"], draw["seed"])
        yield row(*told, "source", data["evaluation"]["source"]["value"])
        yield row(*told, "target", draw["start"]["value"])
        yield row(*told, "fine-tuned", data["reference"]["value"])
        for name in ("perplexity",):
            if name in draw["start"]["also"]:
                yield Row(*cell.key, name, *told, "target", "", 0.0, round(draw["start"]["also"][name], 3))
    for found in data["rows"]:
        yield row(
            found["n"], found["seed"], found["method"], found["score"], str(found["alpha"]), found["scale"] or 0.0
        )


def load() -> list[Row]:
    if not CSV.is_file():
        return []
    with CSV.open(encoding="utf-8", newline="") as file:
        return [
            Row(
                **(
                    line
                    | {
                        "n": int(line["n"]),
                        "seed": int(line["seed"]),
                        "scale": float(line["scale"]),
                        "score": float(line["score"]) if line["score"] else None,
                    }
                )
            )
            for line in csv.DictReader(file)
        ]


def save(rows: list[Row]) -> None:
    CSV.parent.mkdir(parents=True, exist_ok=True)
    with CSV.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def table(rows: list[Row], n: int, alpha: str) -> str:
    """Means over the seeds at one N and α, a line a pair, task and head."""
    found: dict[tuple, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.n == n and row.score is not None and (row.what in OWN or row.alpha == alpha):
            found[row.task, row.source, row.target, row.head, row.metric][row.what].append(row.score)
    names = ("source", "target", *METHODS, "fine-tuned")
    lines = ["| task | direction | head | " + " | ".join(names) + " |", "|---" * (3 + len(names)) + "|"]
    for (task, source, target, head, metric), scores in found.items():
        if "source" in scores:
            cells = " | ".join(f"{fmean(scores[name]):.1f}" if scores[name] else "–" for name in names)
            unit = "" if metric == "accuracy" else f" ({metric})"
            lines.append(f"| {task}{unit} | {source} → {target} | {head} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[], help="sources, targets or tasks; all unless given")
    parser.add_argument("-n", "--sizes", nargs="+", type=int, default=[50, 100])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--tables", action="store_true", help="only print the tables of what is there")
    args = parser.parse_args()
    rows = load()
    done = {(row.source, row.target, row.task, row.head) for row in rows}
    for cell in [] if args.tables else cells(tuple(args.sizes), args.seeds):
        if cell.key not in done and set(args.only) <= {cell.source, cell.target, cell.task}:
            made = rows_of(cell)
            save([*load(), *made])  # another process may have added to it
            print("done:", *cell.key, flush=True)
    rows = load()
    for n in sorted({row.n for row in rows}):
        for alpha in ("1", "1.0", "auto"):
            if any(row.alpha == alpha and row.n == n for row in rows):
                print(f"\nN = {n}, α = {alpha}\n{table(rows, n, alpha)}")


if __name__ == "__main__":
    main()
