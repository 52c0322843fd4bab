"""The cells of a plan: every source × target × method with its settings, as the configs of ports."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from hf_bico.core.errors import PortError, spelling
from hf_bico.core.methods import method_of
from hf_bico.core.methods.polished import Polish
from hf_bico.families import Transformers
from hf_bico.families.beside import groups_of
from hf_bico.io.changes.forms import Storage
from hf_bico.io.reference import Reference
from hf_bico.tasks.columns import parse_columns
from hf_bico.workflows.choices import INDEX
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.destination import is_wanted
from hf_bico.workflows.fleet.reading import Item, Said
from hf_bico.workflows.plan import calibration_of, check_alpha, matching_of

OPENS = ("config.json", "open_clip_config.json", "adapter_config.json", "modules.json")
"""Files of which a model's folder has one."""


class Cell(NamedTuple):
    """One port of a plan."""

    name: str
    where: str
    """Its places in the plan, for errors."""
    method: str
    """What its method is called in the table."""
    config: PortConfig
    said: Mapping[str, Any]
    """What `common`, its target and its method say: what an alignment takes from a plan."""


def cells_of(said: Said, push_to: str | None) -> tuple[Cell, ...]:
    """Return the cells of a plan, checked as far as that needs no model.

    Args:
        push_to: the namespace that ports are pushed to, if they are.

    Raises:
        PortError: settings that do not go together, two cells of one name, a folder that holds no fine-tune.
    """
    sources = [each for item in said.sources for each in expanded(item)]
    methods = said.methods or (Item("methods", PortConfig.method),)
    cells: dict[str, Cell] = {}
    for source, target, method in product(sources, said.targets, methods):
        cell = _cell(said, source, target, method, push_to)
        if cell.name in cells:
            raise PortError(
                f"{cell.where} and {cells[cell.name].where} are both called {cell.name}: give one of them a name, as "
                "{source: …, name: …}"
            )
        cells[cell.name] = cell
    return tuple(cells.values())


def expanded(item: Item) -> Iterator[Item]:
    """Yield a source, or every fine-tune in a folder of fine-tunes.

    Raises:
        PortError: the folder holds none.
    """
    folder = Path(item.value).expanduser()
    if item.value.startswith("hf://") or not folder.is_dir() or "subfolder" in item.settings or is_model(folder):
        yield item
        return
    found = [path for path in sorted(folder.iterdir()) if path.is_dir() and is_model(path)]
    if not found:
        raise PortError(f"{item.where}: {item.value} is no model, and no folder in it is one")
    if item.name and len(found) > 1:
        raise PortError(f"{item.where}.name: {item.value} holds {len(found)} fine-tunes, which cannot have one name")
    yield from (replace(item, value=str(path)) for path in found)


def is_model(folder: Path) -> bool:
    """Return whether a folder is a model's or an adapter's."""
    return any((folder / name).is_file() for name in OPENS)


def _cell(said: Said, source: Item, target: Item, method: Item, push_to: str | None) -> Cell:
    """Return a cell; what is said of its source holds before what is said of its target, of its method, of all."""
    shared = {**said.common, **method.settings, **target.settings}
    settings = {**shared, **source.settings}
    where = f"{source.where} × {target.where}" + (f" × {method.where}" if said.methods else "")
    if "dataset" not in settings:
        raise PortError(f"{source.where} has no samples: add a dataset, to it or to common")
    mapped = settings.get("maps") is not None
    if mapped and said.methods:
        raise PortError(f"{where}: maps bring the method that made them: leave out methods")
    names = [called(source), "on", called(target)]
    label = method.name or method.value
    if not mapped and (method.name or method.value != PortConfig.method):  # the default goes without saying
        names.append(slug(label))
    if settings.get("form", PortConfig.form) != PortConfig.form:
        names.append(str(settings["form"]))
    name = "-".join(names)
    chosen: dict[str, Any] = settings if mapped else {"method": method.value, **settings}
    config = PortConfig(
        source.value,
        target.value,
        **chosen,
        output=said.output and said.output / name,
        push_to=f"{push_to}/{name}" if push_to else None,
    )
    with spelling(lambda name: name):
        try:
            if config.push_to:
                validate_repo_id(config.push_to)
            check_choices(config)
        except HFValidationError as error:
            raise PortError(f"{where}: {error} Give it a shorter name, as {{source: …, name: …}}") from error
        except PortError as error:
            raise PortError(f"{where}: {error}") from error
    return Cell(name, where, "maps" if mapped else label, config, shared)


def called(item: Item) -> str:
    """Return what an entry is called in the names of its cells: a folder's name, or a repo's without its organisation.

    Raises:
        PortError: it is neither a folder nor a repo's name.
    """
    if item.name is not None:
        if not slug(item.name):
            raise PortError(f"{item.where}.name: {item.name!r} has neither letters nor digits")
        return slug(item.name)
    try:
        found = Reference.parse(item.value)
    except PortError as error:
        raise PortError(f"{item.where}: {error.message}") from error
    return slug("-".join(filter(None, (found.name.split("/")[-1], found.revision))))


def slug(text: str) -> str:
    """Return a text as a part of the name of a folder and of a repo."""
    return re.sub(r"-{2,}", "-", re.sub(r"[^\w.-]|\.(?=\.)", "-", text, flags=re.ASCII)).strip("-.")


def check_choices(config: PortConfig) -> None:
    """Refuse choices of a port that are wrong whatever the models and the samples are.

    Raises:
        PortError: they are.
    """
    for text in filter(None, (config.source, config.target, config.base, config.maps)):
        Reference.parse(text)
    Reference.of_data(config.dataset)
    if config.maps is None:
        method_of(config.method, config.method_options)
    elif config.method_options or config.bank or config.matching != INDEX:
        raise PortError("maps are made already: leave out method_options, bank and matching")
    check_alpha(config.alpha)
    calibration_of(config)
    parse_columns(config.columns)
    groups_of(config.only)
    matching_of(config)
    Polish(config.polish, config.polish_rank, config.scales)
    Storage.of(config.form, config.rank, config.energy, config.dtype, Transformers.name)
    is_wanted(config)
