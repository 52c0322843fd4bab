"""What a fleet does, one command a task: its ports, and the alignments that they share."""

import hashlib
import json
import shlex
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from hf_bico.core.errors import PortError, spelling
from hf_bico.core.methods import method_of
from hf_bico.io.adapter import one_kind
from hf_bico.io.base_names import base_of
from hf_bico.io.hub import Hub
from hf_bico.io.reference import Reference
from hf_bico.tasks.columns import parse_columns
from hf_bico.workflows.bases import require_storable
from hf_bico.workflows.choices import INDEX, ReadingChoices
from hf_bico.workflows.config import AlignConfig, PortConfig
from hf_bico.workflows.fleet.cells import Cell, slug
from hf_bico.workflows.fleet.reading import OF_ALIGN, Said
from hf_bico.workflows.options import options_of, words_of
from hf_bico.workflows.plan import calibration_of, matching_of

PROGRAM = (sys.executable, "-P", "-c", "from hf_bico.cli.main import main; main()")
"""The command line in a process of its own; a folder of a user's that is called like a package does not stand in."""
MAPS = "maps"
"""The folder of an output that alignments are kept in."""
FREE = ("output", "overwrite", "batch_size", "device", "commit_message")
"""Settings that leave a result as it is."""


@dataclass(frozen=True)
class Task:
    """A command of a fleet."""

    name: str
    config: PortConfig | AlignConfig
    method: str
    needs: "Task | None" = None
    """The alignment whose maps it moves through."""
    refused: str | None = None
    """Why it cannot be run."""

    @property
    def kind(self) -> str:
        """The command: "port" or "align"."""
        return "port" if isinstance(self.config, PortConfig) else "align"

    @property
    def source(self) -> str:
        """What is carried over, or aligned."""
        return self.config.source if isinstance(self.config, PortConfig) else self.config.base

    @property
    def words(self) -> list[str]:
        """The words of its command, without the program's."""
        return [self.kind, *words_of(self.config, [each.name for each, _ in options_of(self.config)], whole=True)]

    @property
    def command(self) -> str:
        """Its command as a user would give it."""
        return shlex.join(["hf-bico", *self.words])

    @property
    def key(self) -> str:
        """Hash of all that its result depends on, as far as the plan says it."""
        config, left = self.config, {*FREE}
        if isinstance(config, AlignConfig):
            left |= {"push_to"}  # a job pushes what is a folder on this machine
        if self.needs:
            left |= {"maps"}
        said = {
            each.name: str(getattr(config, each.name))
            for each, _ in options_of(config)
            if each.name not in left and getattr(config, each.name) != each.default
        }
        maps = self.needs.key if self.needs else None
        text = json.dumps([self.kind, said, maps], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def tasks_of(said: Said, cells: tuple[Cell, ...], hub: Hub, maps_in: str | None) -> list[Task]:
    """Return the tasks of a plan: an alignment a pair of bases and method where the plan asks for it, then the ports.

    Args:
        maps_in: the namespace that maps are pushed to, where they cannot stay on this machine.
    """
    if said.align is None:
        return [Task(cell.name, cell.config, cell.method) for cell in cells]
    made: dict[str, Task] = {}
    ports = [_aligned(said, cell, hub, made, maps_in) for cell in cells]
    return [*made.values(), *ports]


def check_alignments(said: Said, cells: tuple[Cell, ...], maps_in: str | None) -> None:
    """Refuse alignments that are wrong whatever the models and the samples are.

    Raises:
        PortError: they are, or no method of the plan has maps that can be kept.
    """
    if said.align is None:
        return
    if said.output is None and maps_in is None:
        raise PortError("align: maps are kept in a folder: say output")
    with spelling(lambda name: name):
        try:
            shared = [cell for cell in cells if is_shared(cell.config)]
            for config in (_alignment(said, cell, "base", maps_in) for cell in shared):
                require_storable(method_of(config.method, config.method_options))
                calibration_of(config)
                parse_columns(config.columns)
                matching_of(config)
            for cell in () if shared else cells:
                require_storable(method_of(cell.config.method, cell.config.method_options))
        except PortError as error:
            raise PortError(f"align: {error}") from error


def is_shared(config: PortConfig) -> bool:
    """Return whether a port can move through maps that others have too."""
    return config.maps is None and method_of(config.method, config.method_options).why_not_storable is None


def _aligned(said: Said, cell: Cell, hub: Hub, made: dict[str, Task], maps_in: str | None) -> Task:
    """Return a port over shared maps if its method's can be kept; its alignment is added to those that are made."""
    if not is_shared(cell.config):
        return Task(cell.name, cell.config, cell.method)
    try:
        align = _alignment(said, cell, base_named(cell.config, hub), maps_in)
        wanted = Task(f"{MAPS}/{_place(align, cell)}", align, cell.method)
        if made.setdefault(wanted.name, wanted).key != wanted.key:
            raise PortError(
                f"its alignment is of other settings than that of another cell, {wanted.name}: say what it is made of "
                "once, such as align: {dataset: …, n: …}"
            )
    except PortError as error:
        with spelling(lambda name: name):
            return Task(cell.name, cell.config, cell.method, refused=str(error))
    rest: dict[str, Any] = {
        "method": PortConfig.method,
        "method_options": (),
        "bank": None,
        "matching": INDEX,
    }  # the maps bring these
    return Task(
        cell.name,
        replace(cell.config, maps=align.push_to or str(align.output), **rest),
        cell.method,
        made[wanted.name],
    )


def _alignment(said: Said, cell: Cell, base: str, maps_in: str | None) -> AlignConfig:
    """Return the config of the alignment that a cell moves through: what is said of all, of its target and its method.

    What is said of alignments holds before that. A dataset of their own is not read as the task's is.
    """
    config, own = cell.config, said.align or {}
    left = {"head"} | ({each.name for each in fields(ReadingChoices)} if "dataset" in own else set())
    taken: dict[str, Any] = {"dataset": config.dataset}
    taken |= {name: value for name, value in cell.said.items() if name in OF_ALIGN and name not in left}
    taken |= {name: getattr(config, name) for name in ("method_options", "bank", "matching")}
    made = AlignConfig(base, config.target, method=config.method, output=Path(MAPS), **{**taken, **own})
    if maps_in:
        return replace(made, push_to=f"{maps_in}/{_place(made, cell)}-{MAPS}")
    return replace(made, output=(said.output or Path()) / MAPS / _place(made, cell))


def _place(align: AlignConfig, cell: Cell) -> str:
    return f"{_short(align.base)}-to-{_short(align.target)}-{slug(cell.method)}"


def base_named(config: PortConfig, hub: Hub) -> str:
    """Return what a fine-tune came from, as the plan or else its card names it.

    Raises:
        PortError: nothing names it, or there is no such fine-tune.
    """
    base = config.base
    if base is None:
        whole = hub.resolve(config.source)
        source = one_kind(whole, config.source_kind, config.subfolder)
        base = base_of(source, hub, whole.inside(config.subfolder) if config.subfolder else whole)
    found = Reference.parse(base)  # one spelling of a base, whoever names it
    return str(found.folder) if found.folder else "@".join(filter(None, (f"hf://{found.name}", found.revision)))


def _short(reference: str) -> str:
    """Return a model as a part of a name, with its organisation and revision."""
    found = Reference.parse(reference)
    return slug("-".join(filter(None, (found.name, found.revision))))
