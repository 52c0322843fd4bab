"""Every cell of the world's tables, two processes; what is done is kept, and a second start goes on.

    python -m hub_scripts.world.vision.results                 # all of it: about an hour on two CPU cores
    python -m hub_scripts.world.vision.results --part first    # one part

Rows go to docs/results/cells.csv; `tables.py` makes the tables and pictures from it.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

import torch

from hub_scripts.world.places import DOCS
from hub_scripts.world.vision.cells import ABLATION, IDEAS, POLICIES, Cell, run
from hub_scripts.world.vision.tasks import TASKS

CELLS = DOCS / "results" / "cells.csv"
WHAT = ("source", "target", "task", "seed", "n", "per_class", "strategy")
COLUMNS = (*WHAT, "method", "score", "refusal", "seconds", "zero_shot", "source_score", "reference")
SEEDS, N, K = range(3), (10, 20, 50, 100), (1, 2, 5, 10, 20)
SCENARIOS = {
    "narrow to wide": ("s-x", "m-y"), "wide to narrow": ("m-y", "s-x"), "same shape, other data": ("s-x", "s-y"),
    "wider and deeper": ("s-x", "l-x"), "narrower and shallower": ("l-x", "s-x"),
}  # fmt: skip
UPWARDS = ("narrow to wide", "same shape, other data", "wider and deeper")
STRATEGIES = ("random", "class-balanced", "centroid-near", "centroid-far", "half-class", "one-class")
FOR_CHOOSING = ("digits", "textures", "symbols", "fine-shapes")
"""Tasks that methods are chosen and tuned on; the others are for testing, once."""
ADVICE = ("naive", "bico", "weighted", "response", "blend", "auto", "auto + polish", "few-shot steps=100", "distil")
"""What is asked of the half of the world that nothing was chosen on."""
TESTED = (("s-x", "m-y"), ("s-x", "l-x"), ("s-x", "s-y"), ("m-y", "s-x"))
ONE_CLASS = 50  # some tasks have hardly more training images of a class


def over(source: str, target: str, **options) -> Iterator[Cell]:
    """One cell a task and seed."""
    for task, seed in itertools.product(TASKS, SEEDS):
        yield Cell(source, target, task, seed, **options)


def parts() -> dict[str, list[Cell]]:
    """The tables' cells; a cell that two tables share is named in both and run once, with the methods of both."""
    by = {
        "N": [cell for pair in (*SCENARIOS.values(), ("s-y", "m-y"), ("s-y", "l-x")) for n in N
              for cell in over(*pair, n=n)],
        "K": [cell for pair in (("s-x", "m-y"), ("s-x", "s-y")) for k in K for cell in over(*pair, per_class=k)],
        "ablation": [cell for pair in SCENARIOS.values() for cell in over(*pair, n=100, methods=ABLATION)],
        "policies": [cell for pair in SCENARIOS.values() for n in (20, 100)
                     for cell in over(*pair, n=n, methods=POLICIES)],
        "advice": [Cell(*pair, task, seed, n=n, methods=ADVICE) for seed in SEEDS for n in (20, 100)
                   for pair in TESTED for task in TASKS if task not in FOR_CHOOSING],
        "strategies": [cell for name in STRATEGIES[1:]
                       for cell in over("s-x", "m-y", n=ONE_CLASS if name == "one-class" else 100, strategy=name,
                                        methods=("theseus", "bico", "weighted"))],
        "ideas": [cell for name in UPWARDS for n in (20, 100) for cell in over(*SCENARIOS[name], n=n, methods=IDEAS)],
    }  # fmt: skip
    return by


def merged(cells: Iterable[Cell]) -> list[Cell]:
    """Each draw once, with all methods that any of the tables wants of it."""
    methods: dict[Cell, dict[str, None]] = {}
    for cell in cells:
        methods.setdefault(replace(cell, methods=()), {}).update(dict.fromkeys(cell.methods))
    return [replace(cell, methods=tuple(names)) for cell, names in methods.items()]


def done(path: Path) -> set[tuple[str, ...]]:
    """(what, method) of the rows that are there, as text."""
    if not path.exists():
        return set()
    with path.open(encoding="utf-8", newline="") as file:
        return {tuple(row[name] for name in (*WHAT, "method")) for row in csv.DictReader(file)}


def text(value: object) -> str:
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def left(cells: Iterable[Cell], there: set[tuple[str, ...]]) -> list[Cell]:
    """The cells with the methods that are still to be run."""
    out = []
    for cell in merged(cells):
        key = tuple(text(getattr(cell, name)) for name in WHAT)
        methods = tuple(name for name in cell.methods if (*key, name) not in there)
        out += [replace(cell, methods=methods)] if methods else []
    return out


def rows(cell: Cell) -> list[list[str]]:
    torch.set_num_threads(1)
    result = run(cell)
    what = [text(getattr(cell, name)) for name in WHAT]
    shared = [text(result[name]) for name in ("zero_shot", "source", "reference")]
    return [
        [*what, row["method"], text(row["score"]), text(row["refusal"]).split(":")[0], text(row["seconds"]), *shared]
        for row in result["rows"]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", action="append", choices=parts(), help="else all")
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    cells = left(itertools.chain(*(parts()[name] for name in args.part or parts())), done(CELLS))
    CELLS.parent.mkdir(parents=True, exist_ok=True)
    start, fresh = time.time(), not CELLS.exists()
    with CELLS.open("a", encoding="utf-8", newline="") as file, ProcessPoolExecutor(args.processes) as workers:
        out = csv.writer(file, lineterminator="\n")
        if fresh:
            out.writerow(COLUMNS)
        for count, finished in enumerate(as_completed([workers.submit(rows, cell) for cell in cells]), 1):
            out.writerows(finished.result())
            file.flush()
            print(f"{count}/{len(cells)} cells, {time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
