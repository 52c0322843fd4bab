"""What a fleet has done, kept where the next call finds it: a file on disk, or one in a dataset repo."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from hf_bico import __version__
from hf_bico.core.errors import PortError
from hf_bico.core.notes import note
from hf_bico.io.hub import Hub, Moved
from hf_bico.io.outside import parse_json
from hf_bico.io.writer import staged

FILE = "fleet.json"
SCHEMA = 1


class State(StrEnum):
    """How far a task is."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class Entry:
    """A task of a fleet, as far as it is."""

    key: str
    """Hash of all that its result depends on, as far as the plan says it."""
    kind: str
    """The command: port or align."""
    source: str
    target: str
    method: str
    command: str
    state: State = State.WAITING
    code: int | None = None
    """Its exit code."""
    error: str | None = None
    """Why it failed, in one line."""
    dataset: str | None = None
    metric: str | None = None
    scores: dict[str, float | None] = field(default_factory=dict)
    """By what was scored: source, zero_shot, naive and ported."""
    recovered: float | None = None
    """The share of the gap to the source's own score that was recovered."""
    verdict: str | None = None
    seconds: float | None = None
    output: str | None = None
    """The folder that it lies in."""
    repo: str | None = None
    """The repo that it is pushed to."""
    url: str | None = None
    """The commit that it was pushed in."""
    job: str | None = None
    """The Hugging Face Job that does it, as namespace/id."""
    job_url: str | None = None
    stage: str | None = None
    """What it is at; where it is running on this machine."""


class Keeper(Protocol):
    """Where a ledger is kept."""

    every: bool
    """Whether all changes are kept, those too that a stopped process makes void."""

    def read(self) -> str | None:
        """Return the ledger as it was kept last, None where there is none."""

    def write(self, text: str) -> None:
        """Keep the ledger, whole or not at all; a `Moved` if somebody else kept another meanwhile."""


class OnDisk:
    """A ledger in a folder."""

    every = True

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> str | None:
        return self.path.read_text(encoding="utf-8") if self.path.is_file() else None

    def write(self, text: str) -> None:
        with staged(self.path) as stage:
            stage.write_text(text, encoding="utf-8")


class OnHub:
    """A ledger in a dataset repo: a commit a change, on the head seen last. A new repo is private."""

    every = False

    def __init__(self, hub: Hub, repo: str) -> None:
        self.hub, self.repo = hub, repo
        self.head: str | None = None

    def read(self) -> str | None:
        found = self.hub.existing(self.repo, "dataset")
        self.head = found.commit if found else None
        if not found or FILE not in found.files:
            return None
        return (self.hub.fetch(found, (FILE,)) / FILE).read_text(encoding="utf-8")

    def write(self, text: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / FILE).write_text(text, encoding="utf-8")
            options: dict[str, Any] = {"private": True, "kind": "dataset"}
            self.hub.push(Path(folder), self.repo, parent=self.head, message="Keep the ledger", **options)
        found = self.hub.existing(self.repo, "dataset")
        self.head = found.commit if found else None


class Ledger:
    """The entries of a fleet by the names of their tasks, in memory and where they are kept.

    Entries that no plan has any more stay.

    Raises:
        PortError: what is kept is no ledger of this version.
    """

    def __init__(self, keeper: Keeper) -> None:
        self.keeper = keeper
        self.entries: dict[str, Entry] = _read(keeper)
        self._mine: set[str] = set()
        self._unkept = False

    def set(self, name: str, entry: Entry, *, keep: bool = True) -> None:
        """Change an entry, and keep it.

        Args:
            keep: whether it is worth a commit, where the ledger is a repo.
        """
        self.entries[name] = entry
        self._mine.add(name)
        self._unkept = True
        if not (keep or self.keeper.every):
            return
        try:
            self.keep()
        except PortError as error:
            if self.keeper.every:
                raise
            note(f"the ledger was not kept, which the next change tries again: {error}")  # the Hub is away for a while

    def keep(self) -> None:
        """Keep what has changed; changes that others kept meanwhile stay.

        Raises:
            PortError: it cannot be kept.
        """
        if not self._unkept:
            return
        try:
            self.keeper.write(self.text())
        except Moved:
            mine = {name: self.entries[name] for name in self._mine}
            self.entries = _read(self.keeper) | mine
            self.keeper.write(self.text())
        self._unkept = False

    def to_json(self) -> dict[str, Any]:
        """Return the ledger as plain JSON data."""
        cells = {
            name: {key: value for key, value in asdict(entry).items() if key != "stage"}
            for name, entry in self.entries.items()
        }
        return {"schema": SCHEMA, "hf_bico": __version__, "cells": cells}

    def text(self) -> str:
        """Return the ledger as it is kept."""
        return json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n"


def _read(keeper: Keeper) -> dict[str, Entry]:
    text = keeper.read()
    if text is None:
        return {}
    try:
        data = parse_json(text.encode(), FILE)
        if data["schema"] != SCHEMA:
            raise PortError(f"{FILE} has the schema {data['schema']!r}; this version reads {SCHEMA}")
        return {name: _entry(said) for name, said in data["cells"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PortError(f"{FILE} is not the ledger of a fleet: move it away, or name another place") from error


def _entry(said: Mapping[str, Any]) -> Entry:
    known = {each.name for each in fields(Entry)}
    entry = Entry(**{name: value for name, value in said.items() if name in known})
    return replace(entry, state=State(entry.state))
