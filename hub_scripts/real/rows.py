"""The rows of docs/results/real.csv: one method on one draw of samples between two of the real models."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

from hub_scripts.real.packages import MINILM, MPNET
from hub_scripts.real.texts import GERMAN, SECTIONS
from hub_scripts.real.tune import NEXT
from hub_scripts.world.places import DOCS

CSV = DOCS / "results" / "real.csv"
METHODS = (
    "naive",
    "transfusion",
    "gradfix",
    "theseus",
    "few-shot steps=20 rate=1e-4",
    "distil steps=20 rate=1e-4",
    "bico",
    "weighted",
    "response",
    "blend",
    "auto",
)
"""As `hf-bico compare --method` takes them."""
SIZES, SEEDS = (20, 100), 3
START, OF_SOURCE, OF_OWN = "target", "source", "fine-tuned"
"""Rows that no method made: the new base as it is, the ported fine-tune, the new base's own fine-tune."""


@dataclass(frozen=True)
class Pair:
    """A task's fine-tune of one base, ported to another."""

    task: str
    source: str
    target: str


WAYS = ((MINILM, NEXT), (MPNET, MINILM), (MINILM, MPNET))
PAIRS = tuple(Pair(task, *way) for way in WAYS for task in (GERMAN, SECTIONS))


@dataclass(frozen=True)
class Row:
    pair: Pair
    n: int
    """Samples; 0 for a fine-tune of RECIPES as it was trained."""
    seed: int
    what: str
    """A method as in METHODS, or one of START, OF_SOURCE, OF_OWN."""
    score: float | None
    """In per cent, of SCORED test rows: accuracy, or MRR@10; None where the method refuses."""
    seconds: float = 0.0
    """The method's own time, without the collection that all share; of a machine that did other work too."""

    @property
    def key(self) -> tuple[Pair, int, int, str]:
        return self.pair, self.n, self.seed, self.what


def missing(rows: Sequence[Row], pair: Pair, n: int, methods: Sequence[str] = METHODS) -> list[str]:
    """Return the methods that lack a row of a draw of N samples."""
    have = {row.key for row in rows}
    return [name for name in methods if any((pair, n, seed, name) not in have for seed in range(SEEDS))]


def load() -> list[Row]:
    if not CSV.is_file():
        return []
    with CSV.open(encoding="utf-8", newline="") as file:
        return [
            Row(
                Pair(line["task"], line["from"], line["to"]),
                int(line["n"]),
                int(line["seed"]),
                line["what"],
                float(line["score"]) if line["score"] else None,
                float(line["seconds"]),
            )
            for line in csv.DictReader(file)
        ]


def save(rows: Sequence[Row]) -> None:
    """Write rows; of two of one draw and name the later counts."""
    last = {row.key: row for row in rows}
    CSV.parent.mkdir(parents=True, exist_ok=True)
    columns = [field.name for field in fields(Row)][1:]
    with CSV.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["task", "from", "to", *columns])
        for row in last.values():
            values = asdict(row)
            writer.writerow([*values.pop("pair").values(), *("" if v is None else v for v in values.values())])
