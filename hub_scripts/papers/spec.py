"""What a file of tables says: models, datasets, protocols and tables, checked as a whole before anything is done."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from hf_bico.core.errors import PortError
from hf_bico.workflows.compare import calibrations_of, chosen
from hf_bico.workflows.config import CompareConfig
from hf_bico.workflows.plan import check_alpha
from hub_scripts.papers.kinds import (
    Section,
    count,
    each,
    file_beside,
    mapping_of,
    number,
    one_of,
    pair,
    positive,
    scale,
    share,
    text,
    whole,
)

FAMILIES = ("open_clip", "t5")


class SpecError(Exception):
    """All that is wrong with a file, a line each."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True)
class Model:
    """A pre-trained model and those of its fine-tunes that exist already."""

    ref: str
    family: str = "open_clip"
    pickled: str | None = None
    """A file of tensors to make a safetensors of, for a repo that has none."""
    tuned: tuple[tuple[str, str], ...] = ()
    """(dataset, the fine-tune's ref)"""


@dataclass(frozen=True)
class Dataset:
    """A labelled dataset: pictures, or texts where `text` names the columns."""

    ref: str
    config: str | None = None
    split: str = "train"
    eval_split: str | None = None
    eval_n: int | None = None
    image: str | None = None
    label: str | None = None
    text: tuple[str, ...] = ()
    templates: Path | None = None
    classes: int | None = None
    """For the plan alone, as is `rows`: how many classes, and rows of the evaluation split, there are."""
    rows: int | None = None


@dataclass(frozen=True)
class Protocol:
    """How a family's fine-tunes are made."""

    steps: int = 2000
    batch: int = 128
    rate: float = 1e-5
    decay: float = 0.1
    warmup: int = 200
    held_out: float = 0.1
    """Share of the training split that is kept for validation."""
    seed: int = 0
    length: int = 128
    """Tokens that a text is cut to."""


@dataclass(frozen=True)
class Table:
    """Pairs × datasets × strategies × N or K × seeds × methods × α."""

    name: str
    title: str
    pairs: tuple[tuple[str, str], ...]
    datasets: tuple[str, ...]
    n: tuple[int, ...]
    per_class: tuple[int, ...]
    strategies: tuple[str | None, ...]
    seeds: int
    methods: tuple[str, ...]
    options: tuple[str, ...]
    alphas: tuple[float | str, ...]
    paper: dict[str, tuple[float, ...]]
    """The paper's gap recovered in %, a figure a column, by method."""
    note: str | None

    @property
    def columns(self) -> list[tuple[str | None, int]]:
        """(strategy, N or K)"""
        return [(strategy, size) for strategy in self.strategies for size in self.n or self.per_class]


@dataclass(frozen=True)
class Spec:
    models: dict[str, Model]
    datasets: dict[str, Dataset]
    protocols: dict[str, Protocol]
    tables: dict[str, Table]


def read(path: Path) -> Spec:
    """
    Raises:
        SpecError: the file is no YAML, or wrong; all of it listed.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SpecError([f"{path}: {' '.join(str(error).split())}"]) from error
    problems: list[str] = []
    top = Section.of(path.name, data, problems)
    parts = {
        name: Section.of(name, top.data.pop(name, {}), problems)
        for name in ("models", "datasets", "protocols", "tables")
    }
    top.end(tuple(parts))
    models = {
        name: _model(Section.of(f"models.{name}", entry, problems)) for name, entry in parts["models"].data.items()
    }
    datasets = {
        name: _dataset(Section.of(f"datasets.{name}", entry, problems), path.parent)
        for name, entry in parts["datasets"].data.items()
    }
    protocols = {
        family: _protocol(Section.of(f"protocols.{family}", parts["protocols"].data.pop(family, {}), problems))
        for family in FAMILIES
    }
    parts["protocols"].end(FAMILIES)
    tables = {
        name: _table(Section.of(f"tables.{name}", entry, problems), name)
        for name, entry in parts["tables"].data.items()
    }
    if not tables:
        problems.append("tables: at least one is expected")
    problems += [
        f"models.{name}.tuned: no dataset {other!r}; there are {', '.join(datasets)}"
        for name, model in models.items()
        for other, _ in model.tuned
        if other not in datasets
    ]
    for table in filter(None, tables.values()):
        problems += _wrong(table, models, datasets)
    if problems:
        raise SpecError(problems)
    return Spec(models, datasets, protocols, tables)


def _names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind) if field.name != "name")


def _model(section: Section) -> Model:
    values = {
        "ref": section.take("ref", text),
        "family": section.take("family", one_of(*FAMILIES), "open_clip"),
        "pickled": section.take("pickled", text, None),
        "tuned": section.take("tuned", mapping_of(text), {}),
    }
    section.end(_names(Model))
    return Model(**values | {"tuned": tuple((values["tuned"] or {}).items())})


def _dataset(section: Section, folder: Path) -> Dataset:
    values: dict[str, Any] = {"ref": section.take("ref", text), "split": section.take("split", text, "train")}
    values |= {key: section.take(key, text, None) for key in ("config", "eval_split", "image", "label")}
    values |= {key: section.take(key, count, None) for key in ("eval_n", "classes", "rows")}
    values |= {
        "text": section.take("text", each(text), ()),
        "templates": section.take("templates", file_beside(folder), None),
    }
    section.end(_names(Dataset))
    if values["text"] and (values["templates"] or values["image"]):
        section.problems.append(f"{section.where}: templates and image are for pictures, not with text")
    return Dataset(**values)


def _protocol(section: Section) -> Protocol:
    kinds = {
        "steps": count,
        "batch": count,
        "rate": positive,
        "decay": number,
        "warmup": whole,
        "held_out": share,
        "seed": whole,
        "length": count,
    }
    values = {key: section.take(key, kind, getattr(Protocol, key)) for key, kind in kinds.items()}
    section.end(tuple(kinds))
    if None not in values.values() and values["warmup"] >= values["steps"]:
        section.problems.append(
            f"{section.where}.warmup: less than steps ({values['steps']}) is expected, not {values['warmup']}"
        )
    return Protocol(**values)


def _table(section: Section, name: str) -> Table | None:
    """None where something is wrong with it already."""
    before = len(section.problems)
    values = {
        "title": section.take("title", text, name),
        "pairs": section.take("pairs", each(pair)),
        "datasets": section.take("datasets", each(text)),
        "n": section.take("n", each(count), ()),
        "per_class": section.take("per_class", each(count), ()),
        "strategies": section.take("strategies", each(text), (None,)),
        "seeds": section.take("seeds", count, 3),
        "methods": section.take("methods", each(text)),
        "options": section.take("options", each(text), ()),
        "alphas": section.take("alphas", each(scale), (1.0,)),
        "paper": section.take("paper", mapping_of(each(number)), {}),
        "note": section.take("note", text, None),
    }
    section.end(_names(Table))
    return Table(name, **values) if len(section.problems) == before else None


def _wrong(table: Table, models: dict[str, Model], datasets: dict[str, Dataset]) -> list[str]:
    """What of a table does not go with the rest of the file, or with hf_bico."""
    where, problems = f"tables.{table.name}", []
    used = dict.fromkeys(name for some in table.pairs for name in some)
    problems += [
        f"{where}.pairs: no model {name!r}; there are {', '.join(models)}" for name in used if name not in models
    ]
    problems += [
        f"{where}.datasets: no dataset {name!r}; there are {', '.join(datasets)}"
        for name in table.datasets
        if name not in datasets
    ]
    families = {models[name].family for name in used if name in models} - {None}
    if len(families) > 1:
        problems.append(f"{where}.pairs: models of one family are expected, not of {' and '.join(sorted(families))}")
    for name in table.datasets:
        if name in datasets and bool(datasets[name].text) != (families == {"t5"}):
            problems.append(
                f"{where}.datasets: open_clip takes pictures and t5 takes texts (datasets with `text`), "
                f"which {name} is not"
            )
    if families == {"t5"} and any(name and name.startswith("centroid") for name in table.strategies):
        problems.append(f"{where}.strategies: those by centroids are for pictures")
    if bool(table.n) == bool(table.per_class):
        problems.append(f"{where}: one of n and per_class is expected")
    return problems + _refused(where, table) + _paper(where, table)


def _refused(where: str, table: Table) -> list[str]:
    """What hf_bico itself says to methods, options, α, and draws."""
    problems: dict[str, None] = {}
    for strategy in table.strategies:
        sizes = ((), table.per_class) if table.per_class else (table.n, ())
        config = CompareConfig(
            source="",
            target="",
            dataset="",
            sizes=sizes[0],
            per_class=sizes[1],
            strategy=strategy,
            seeds=table.seeds,
            methods=table.methods,
            options=table.options,
        )
        alphas = (partial(check_alpha, alpha) for alpha in table.alphas)
        for check in (partial(chosen, config), partial(calibrations_of, config), *alphas):
            try:
                check()
            except PortError as error:
                problems[f"{where}: {error}"] = None
    return list(problems)


def _paper(where: str, table: Table) -> list[str]:
    problems = [
        f"{where}.paper.{name}: a figure a column is expected, {len(table.columns)}, not {len(figures)}"
        for name, figures in table.paper.items()
        if len(figures) != len(table.columns)
    ]
    problems += [
        f"{where}.paper.{name}: one of the table's methods is expected"
        for name in table.paper
        if name not in table.methods
    ]
    if table.paper and (len(table.pairs) > 1 or len(table.alphas) > 1):
        problems.append(f"{where}.paper: its figures are of one pair at one α; make a table of each")
    return problems
