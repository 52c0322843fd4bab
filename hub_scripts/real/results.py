"""Real models' fine-tunes ported by `hf-bico compare`: docs/results/real.csv, docs/results_real.md's tables and figure.

    python -m hub_scripts.real.results                      # fetches, fine-tunes, ports; goes on where it was
    python -m hub_scripts.real.results --pair 0 3 -n 20     # some pairs by number, some N
    python -m hub_scripts.real.results --table              # only the page of what is there

One call of the tool makes the missing rows of a pair and an N; a call that was broken off goes on where it was. Where
the packages cannot be had, one line says so.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from hub_scripts.real.packages import NotToBeHad
from hub_scripts.real.page import write
from hub_scripts.real.rows import METHODS, OF_OWN, OF_SOURCE, PAIRS, SEEDS, SIZES, START, Pair, Row, load, missing, save
from hub_scripts.real.texts import SECTIONS, dataset
from hub_scripts.real.tune import RECIPES, SCORED, TOKENS, base, told, tuned


def command(pair: Pair, n: int, methods: Sequence[str]) -> list[str]:
    """Return the words behind `hf-bico`."""
    words: list[object] = ["compare", tuned(f"{pair.source}-{pair.task}"), "--base", base(pair.source)]
    words += ["--to", base(pair.target), "--target-tuned", tuned(f"{pair.target}-{pair.task}")]
    words += ["--dataset", dataset(pair.task), "--max-length", TOKENS, "--batch-size", 16]
    words += ["--eval-n", SCORED, "--score-dtype", "bfloat16"]
    words += ["-n", n, "--seeds", SEEDS, "--device", "cpu", "-q"]
    words += ["--head", "probe"] if pair.task == SECTIONS else []
    return [str(word) for word in [*words, *(word for name in methods for word in ("--method", name))]]


def made(pair: Pair, n: int, methods: Sequence[str]) -> list[Row]:
    """Run the tool and read what it wrote."""
    code = "import torch; torch.set_num_threads(1); from hf_bico.cli.main import main; main()"
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "table"
        call = [sys.executable, "-P", "-c", code, *command(pair, n, methods), "--output", str(out)]
        subprocess.run(call, check=True)
        return list(read(pair, json.loads((out / "compare.json").read_text())))


def read(pair: Pair, data: dict) -> Iterator[Row]:
    """Yield the rows of a compare.json."""
    for draw in data["calibration"]:
        for what, key in ((START, "start"), (OF_SOURCE, "source"), (OF_OWN, "reference")):
            yield Row(pair, draw["n"], draw["seed"], what, _per_cent(draw[key]["value"]))
    for found in data["rows"]:
        score, seconds = _per_cent(found["score"]), round(found["seconds"], 1)
        yield Row(pair, found["n"], found["seed"], found["method"], score, seconds)


def _per_cent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 2)


def own(name: str) -> Row:
    """Return what a fine-tune of RECIPES scores as it was trained."""
    recipe, found = RECIPES[name], told(name)
    return Row(Pair(recipe.task, recipe.base, recipe.base), 0, 0, name, found["score"], found["seconds"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    numbers = "; ".join(f"{i} {pair.task}: {pair.source} to {pair.target}" for i, pair in enumerate(PAIRS))
    parser.add_argument("--pair", nargs="+", type=int, default=range(len(PAIRS)), metavar="I", help=numbers)
    parser.add_argument("--only", nargs="+", default=METHODS, metavar="METHOD", help=", ".join(METHODS))
    parser.add_argument("-n", "--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--table", action="store_true", help="only write the page of what is there")
    args = parser.parse_args()
    try:
        for pair in () if args.table else [PAIRS[i] for i in args.pair]:
            for n in args.sizes:
                if left := missing(load(), pair, n, args.only):
                    ports = made(pair, n, left)
                    save([*load(), *ports])  # another process may have added to it
        if not args.table:
            save([*load(), *(own(name) for name in RECIPES)])
    except NotToBeHad as error:
        sys.exit(str(error))
    write(load())


if __name__ == "__main__":
    main()
