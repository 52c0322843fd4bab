"""MiniLM's fine-tune ported to mpnet by `hf-bico compare`: docs/results/real.csv, and docs/results_real.md's tables.

    python -m hub_scripts.world.real.results                      # goes on where it was
    python -m hub_scripts.world.real.results --only response -n 20
    python -m hub_scripts.world.real.results --table              # only the tables of what is there

One call of the tool makes the missing rows of one N; a call that was broken off goes on where it was. Where the
packages cannot be had, one line says so.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import fmean

from hub_scripts.world.places import DOCS
from hub_scripts.world.real.packages import MINILM, MPNET, NotToBeHad, model
from hub_scripts.world.real.texts import dataset
from hub_scripts.world.real.tune import RECIPES, SCORED, TOKENS, own_score, tuned
from hub_scripts.world.vision.tables import fill

CSV, PAGE = DOCS / "results" / "real.csv", DOCS / "results_real.md"
SOURCE, OWN = "minilm-sections", "mpnet-sections-150"
METHODS = (
    "naive",
    "theseus",
    "bico",
    "weighted",
    "response",
    "blend",
    "auto",
)
"""As `hf-bico compare --method` takes them."""
SIZES, SEEDS = (20, 100), 1
START, OF_SOURCE, OF_OWN = "target", "source", "fine-tuned"
"""Rows that no method made: mpnet as it is, MiniLM's fine-tune, mpnet's own; each under a probe of the N samples."""


@dataclass(frozen=True)
class Row:
    n: int
    """Samples; 0 for a fine-tune of RECIPES under its own classifier."""
    seed: int
    what: str
    """A method as in METHODS, or one of START, OF_SOURCE, OF_OWN."""
    accuracy: float | None
    """In per cent of SCORED test texts; None where the method refuses."""
    seconds: float = 0.0
    """The method's own time, without the collection that all share."""


def missing(rows: Sequence[Row], n: int, methods: Sequence[str] = METHODS) -> list[str]:
    """Return the methods that lack a row of a draw of N samples."""
    return [name for name in methods if len({row.seed for row in rows if (row.n, row.what) == (n, name)}) < SEEDS]


def made(n: int, methods: Sequence[str]) -> list[Row]:
    """Run the tool and read what it wrote."""
    words = ["compare", tuned(SOURCE), "--base", model(MINILM), "--to", model(MPNET), "--target-tuned", tuned(OWN)]
    words += ["--dataset", dataset(), "--head", "probe", "--max-length", TOKENS, "--batch-size", 16]
    words += ["--eval-n", SCORED, "-n", n, "--seeds", SEEDS, "--device", "cpu", "-q"]
    words += [word for name in methods for word in ("--method", name)]
    code = "import torch; torch.set_num_threads(1); from hf_bico.cli.main import main; main()"
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "table"
        call = [sys.executable, "-P", "-c", code, *map(str, words), "--output", str(out)]
        subprocess.run(call, check=True)
        return list(read(json.loads((out / "compare.json").read_text())))


def read(data: dict) -> Iterator[Row]:
    """Yield the rows of a compare.json."""
    for draw in data["calibration"]:
        for what, key in ((START, "start"), (OF_SOURCE, "source"), (OF_OWN, "reference")):
            yield Row(draw["n"], draw["seed"], what, _per_cent(draw[key]["value"]))
    for found in data["rows"]:
        yield Row(found["n"], found["seed"], found["method"], _per_cent(found["score"]), round(found["seconds"], 1))


def _per_cent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 2)


def load() -> list[Row]:
    if not CSV.is_file():
        return []
    with CSV.open(encoding="utf-8", newline="") as file:
        return [
            Row(
                int(line["n"]),
                int(line["seed"]),
                line["what"],
                float(line["accuracy"]) if line["accuracy"] else None,
                float(line["seconds"]),
            )
            for line in csv.DictReader(file)
        ]


def save(rows: Sequence[Row]) -> None:
    """Write rows; of two of one draw and name the later counts."""
    last = {(row.n, row.seed, row.what): row for row in rows}
    CSV.parent.mkdir(parents=True, exist_ok=True)
    with CSV.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in last.values())


def table(rows: Sequence[Row]) -> str:
    """Return every draw's accuracies, and the mean share of the gap to mpnet's own fine-tune that was recovered."""
    draws = sorted({(row.n, row.seed) for row in rows if row.n})
    found = {(row.n, row.seed, row.what): row.accuracy for row in rows}
    sizes = sorted({n for n, _ in draws})
    columns = [f"N = {n}, draw {seed}" for n, seed in draws] + [f"gap, N = {n}" for n in sizes]
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for what in dict.fromkeys((START, *METHODS, *(row.what for row in rows))):
        scores = [found.get((*draw, what)) for draw in draws]
        if any(score is not None for score in scores):
            cells = ["–" if score is None else f"{score:.1f}" for score in scores]
            cells += [_gap(found, [draw for draw in draws if draw[0] == n], what) for n in sizes]
            lines.append(f"| {what} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def fine_tunes(rows: Sequence[Row]) -> str:
    """Return how well the fine-tunes do under the classifiers that they were trained with."""
    lines = ["| fine-tune | steps | accuracy under its own classifier |", "|---|---|---|"]
    found = {row.what: row.accuracy for row in rows if not row.n}
    lines += [f"| {name} | {recipe.steps} | {found.get(name, '–')} |" for name, recipe in RECIPES.items()]
    return "\n".join(lines)


def _gap(found: dict[tuple[int, int, str], float | None], draws: Sequence[tuple[int, int]], what: str) -> str:
    """Return the mean over the draws, in per cent; a dash where a score is missing or there is no gap."""
    shares = []
    for draw in draws:
        start, own, score = (found.get((*draw, name)) for name in (START, OF_OWN, what))
        if start is None or own is None or score is None or own <= start or what in (START, OF_SOURCE, OF_OWN):
            return "–"
        shares.append(100 * (score - start) / (own - start))
    return f"{fmean(shares):.0f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=METHODS, metavar="METHOD", help=", ".join(METHODS))
    parser.add_argument("-n", "--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--table", action="store_true", help="only print what is there")
    args = parser.parse_args()
    try:
        for n in () if args.table else args.sizes:
            if left := missing(load(), n, args.only):
                ports = made(n, left)
                save([*load(), *ports])  # another process may have added to it
        if not args.table:
            save([*load(), *(Row(0, 0, name, own_score(name)) for name in RECIPES)])
    except NotToBeHad as error:
        sys.exit(str(error))
    rows = load()
    print(fine_tunes(rows), table(rows), sep="\n\n")
    tables = {"fine-tunes": lambda: fine_tunes(rows), "ports": lambda: table(rows)}
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), tables), encoding="utf-8")


if __name__ == "__main__":
    main()
