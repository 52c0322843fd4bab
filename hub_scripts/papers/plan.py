"""What a file of tables comes to: the comparisons to run, the fine-tunes they need, and about how much work that is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import NamedTuple

from hf_bico import __version__
from hf_bico.core.search import GRID
from hf_bico.workflows.compare import calibrations_of, chosen
from hf_bico.workflows.config import CompareConfig
from hub_scripts.papers.spec import Dataset, Model, Protocol, Spec, Table


class Cell(NamedTuple):
    """One score of a comparison."""

    size: int
    seed: int
    method: str
    alpha: float | str


@dataclass(frozen=True)
class Unit:
    """One pair on one dataset by one strategy: what is compared in one go. Tables that ask for the same share it."""

    source: str
    target: str
    dataset: str
    strategy: str | None
    n: tuple[int, ...]
    per_class: tuple[int, ...]
    seeds: int
    methods: tuple[str, ...]
    options: tuple[str, ...]
    alphas: tuple[float | str, ...]

    @property
    def cells(self) -> list[Cell]:
        return [
            Cell(size, seed, method, alpha)
            for size in self.n or self.per_class
            for seed in range(self.seeds)
            for method in self.methods
            for alpha in self.alphas
        ]

    def __str__(self) -> str:
        return f"{self.source} → {self.target} on {self.dataset}" + (f", {self.strategy}" if self.strategy else "")

    def config(self, reference: str | None = None) -> CompareConfig:
        """The comparison of it, whose models and data are still to be named, with the target's own fine-tune."""
        return CompareConfig(
            source="",
            target="",
            dataset="",
            sizes=self.n,
            per_class=self.per_class,
            strategy=self.strategy,
            seeds=self.seeds,
            methods=self.methods,
            options=self.options,
            alphas=self.alphas,
            target_tuned=reference,
        )


class FineTune(NamedTuple):
    model: str
    dataset: str

    def __str__(self) -> str:
        return f"{self.model} on {self.dataset}"


def units_of(table: Table) -> list[Unit]:
    """In order."""
    return [
        Unit(
            source,
            target,
            dataset,
            strategy,
            table.n,
            table.per_class,
            table.seeds,
            table.methods,
            table.options,
            table.alphas,
        )
        for source, target in table.pairs
        for strategy in table.strategies
        for dataset in table.datasets
    ]


def all_units(tables: Iterable[Table]) -> list[Unit]:
    """Each once."""
    return list(dict.fromkeys(unit for table in tables for unit in units_of(table)))


def fine_tunes_of(spec: Spec, units: Iterable[Unit]) -> list[FineTune]:
    """Those that must be made: of both sides, but for those that the file names."""
    wanted = dict.fromkeys(FineTune(name, unit.dataset) for unit in units for name in (unit.source, unit.target))
    return [each for each in wanted if each.dataset not in dict(spec.models[each.model].tuned)]


def digest(*parts: Model | Dataset | Protocol | Unit, without: tuple[str, ...] = ()) -> str:
    """Names what follows from these entries of the file, but for what the plan alone reads and the fine-tunes' refs."""
    told = [
        {key: value for key, value in asdict(part).items() if key not in ("classes", "rows", "tuned", *without)}
        for part in parts
    ]
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=_words).encode()).hexdigest()[:12]


def _words(path) -> str:
    return path.read_text(encoding="utf-8")


def folder_of(spec: Spec, tune: FineTune) -> str:
    """The name of the folder that a fine-tune is kept in; how it will be evaluated is no part of it."""
    model, dataset = spec.models[tune.model], spec.datasets[tune.dataset]
    told = digest(model, dataset, spec.protocols[model.family], without=("eval_split", "eval_n"))
    return f"{tune.model}-{tune.dataset}-{told}"


def key_of(spec: Spec, unit: Unit) -> str:
    """Under which a comparison's scores are kept: another file, or an edited one, never gets them by mistake."""
    models = [spec.models[name] for name in (unit.source, unit.target)]
    tuned = [dict(model.tuned).get(unit.dataset, "") for model in models]
    entries = digest(*models, spec.datasets[unit.dataset], spec.protocols[models[0].family], unit)
    return hashlib.sha256(" ".join([__version__, entries, *tuned]).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Work:
    """Samples that go through a model, counted once a model."""

    tuning: int = 0
    """Forward and backward, of the fine-tunes to be made."""
    calibration: int = 0
    """Forward and backward."""
    evaluation: int = 0
    """Forward."""

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(asdict(self).values(), asdict(other).values(), strict=True)))


def work_of(spec: Spec, unit: Unit) -> Work | None:
    """A comparison's own, without its fine-tunes; None where the file does not say how large the dataset is."""
    dataset, config = spec.datasets[unit.dataset], unit.config()
    rows = dataset.eval_n or dataset.rows
    if rows is None or (unit.per_class and dataset.classes is None):
        return None
    methods, calibration, evaluation = chosen(config).values(), 0, 0
    collections = {method.wanted.draws for method in methods if method.wanted.signals} or {0}
    for choice in calibrations_of(config):
        n = choice.size(dataset.classes or 0)
        calibration += 2 * n * len(collections) + n * sum(
            getattr(method, "steps", 0) for method in methods if not method.wanted.signals
        )
        evaluation += len(methods) * sum(
            rows + (n * (len(GRID) + 2) if alpha == "auto" else 0) for alpha in unit.alphas
        )
    fixed = 3 * rows  # zero-shot, the source's fine-tune and the target's; of texts the probe makes it one a draw
    return Work(0, calibration, evaluation + fixed * (len(calibrations_of(config)) if dataset.text else 1))


def tuning_of(spec: Spec, made: Iterable[FineTune]) -> Work:
    protocols = [spec.protocols[spec.models[each.model].family] for each in made]
    return Work(sum(protocol.steps * protocol.batch for protocol in protocols))


def told(spec: Spec, tables: Iterable[Table], done: Iterable[Unit] = (), kept: Iterable[FineTune] = ()) -> str:
    """The plan in words, less what is done. Nothing is read for it."""
    tables, done, kept = list(tables), set(done), set(kept)
    units = all_units(tables)
    left = [unit for unit in units if unit not in done]
    made = [each for each in fine_tunes_of(spec, left) if each not in kept]
    works = [work_of(spec, unit) for unit in left]
    work = sum(filter(None, works), tuning_of(spec, made))
    lines = [
        *(line for table in tables for line in _described(table)),
        f"to do: {len(left)} of {len(units)} comparisons (those that tables share count once), "
        f"{sum(len(unit.cells) for unit in left)} cells",
        f"fine-tunes to make: {len(made)}",
        *(f"  {each}" for each in made),
        f"fine-tuning: {_many(work.tuning)} samples forward and backward",
        f"calibration: {_many(work.calibration)} samples forward and backward",
        f"evaluation: {_many(work.evaluation)} samples forward",
    ]
    if None in works:
        lines.append(
            f"not counted: {works.count(None)} comparisons on datasets whose classes or rows the file does not say"
        )
    return "\n".join(lines)


def _described(table: Table) -> list[str]:
    units = units_of(table)
    sizes = f"N = {_list(table.n)}" if table.n else f"K = {_list(table.per_class)} a class"
    rows = {
        "pairs": ", ".join(f"{a} → {b}" for a, b in table.pairs),
        "datasets": _list(table.datasets),
        "samples": f"{sizes}, seeds 0 to {table.seeds - 1}",
        "strategies": _list(name or "as is" for name in table.strategies) if any(table.strategies) else "",
        "methods": _list(table.methods),
        "α": _list(table.alphas),
        "cells": f"{sum(len(unit.cells) for unit in units)} in {len(units)} comparisons",
    }
    return [f"table {table.name}: {table.title}", *(f"  {name:12}{row}" for name, row in rows.items() if row)]


def _list(values: Iterable) -> str:
    return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)


def _many(n: int) -> str:
    return f"{n:,}".replace(",", " ")
