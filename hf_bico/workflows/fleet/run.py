"""A fleet: plan, ledger, and what is still to be done, on this machine or as jobs."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.utils import WeakFileLock

from hf_bico.core.errors import PortError, setting
from hf_bico.core.notes import note
from hf_bico.io.hub import Hub
from hf_bico.io.writer import require_writable
from hf_bico.workflows.config import FleetConfig
from hf_bico.workflows.fleet.cells import Cell, cells_of
from hf_bico.workflows.fleet.ledger import FILE, Entry, Ledger, OnDisk, OnHub, State
from hf_bico.workflows.fleet.local import Local
from hf_bico.workflows.fleet.reading import Said, read
from hf_bico.workflows.fleet.remote import Remote, for_a_job, request_of, require_reachable, require_remote
from hf_bico.workflows.fleet.results import failed, fresh, is_done
from hf_bico.workflows.fleet.tasks import Task, check_alignments, is_shared, tasks_of

HERE, JOBS = "here", "hf-jobs"
"""Where cells are ported."""
LOCK = ".fleet.lock"

Watch = Callable[[Mapping[str, Entry]], None]
"""Is told of the tasks of a plan whenever one has changed."""


@dataclass(frozen=True)
class Fleet:
    """A plan, checked, and what it makes."""

    said: Said
    tasks: tuple[Task, ...]
    namespace: str
    """Who runs its jobs; empty where there are none."""

    @property
    def is_remote(self) -> bool:
        """Whether its tasks are jobs."""
        return bool(self.namespace)

    def shown(self) -> list[Any]:
        """Return the command of every task, or the request of its job."""
        if not self.is_remote:
            return [task.command for task in self.tasks]
        return [request_of(task, self.said.hardware, self.namespace) for task in self.tasks if not task.refused]


def open_fleet(config: FleetConfig, hub: Hub) -> Fleet:
    """Return what a plan makes, every choice checked that needs no model; nothing is written.

    Raises:
        PortError: whatever is wrong in the plan, with its file and key.
    """
    if config.on not in (HERE, JOBS):
        raise PortError(f"{setting('on')} is {HERE} or {JOBS}, not {config.on!r}")
    said, remote = read(config.plan), config.on == JOBS
    with _naming(config.plan):
        cells_of(said, None)
        if remote:
            require_remote(said)
        user, push_to = _namespace(said, hub, remote)
        cells = cells_of(said, push_to)
        maps_in = push_to if remote else None
        check_alignments(said, cells, maps_in)
        tasks = tasks_of(said, cells, hub, maps_in)
        if remote:
            tasks = [for_a_job(task) for task in tasks]
            require_reachable(tasks)
    _note_unshared(said, cells)
    return Fleet(said, tuple(tasks), (said.hardware.namespace or user) if remote else "")


def run(fleet: Fleet, config: FleetConfig, hub: Hub, watch: Watch) -> Ledger:
    """Do what is to be done of a plan, and return the ledger.

    Raises:
        PortError: the ledger cannot be read or kept, or another process is at work on it. What a cell refuses is in it.
    """
    with _locked(fleet.said):
        keeper = OnHub(hub, fleet.said.ledger) if fleet.said.ledger else OnDisk(_ledger_file(fleet.said))
        ledger = Ledger(keeper)
        remote = Remote(ledger, lambda: watch(entries_of(fleet, ledger)), hub)
        remote.ask(fleet.tasks)
        todo = _begun(fleet, ledger)
        watch(entries_of(fleet, ledger))
        if fleet.is_remote:
            remote.submit(todo, fleet.said.hardware, fleet.namespace)
        else:
            Local(ledger, remote.watch, hub.token, config.jobs).run(todo)
        ledger.keep()
        watch(entries_of(fleet, ledger))
        return ledger


def entries_of(fleet: Fleet, ledger: Ledger) -> dict[str, Entry]:
    """Return the entries of the tasks of a plan, in its order; of alignments those that were of use."""
    return {task.name: ledger.entries[task.name] for task in fleet.tasks if task.name in ledger.entries}


def _begun(fleet: Fleet, ledger: Ledger) -> list[Task]:
    """Return the tasks that are to be done now, and put every one of the plan into the ledger.

    What has a job is left to it, whatever the plan says by now; maps that no port needs are not made.
    """

    def is_open(task: Task) -> bool:
        entry = ledger.entries.get(task.name)
        at_work = entry is not None and entry.state is State.RUNNING and entry.job is not None
        return not at_work and not is_done(task, entry, fleet.is_remote)

    ports = [task for task in fleet.tasks if task.kind == "port" and is_open(task)]
    needed = {task.needs.name for task in ports if task.needs}
    todo = []
    for task in fleet.tasks:
        if task in ports or (task.name in needed and is_open(task)):
            entry = fresh(task, ledger.entries.get(task.name))
            ledger.set(task.name, failed(entry, task.refused) if task.refused else entry, keep=False)
            todo += [] if task.refused else [task]
    ledger.keep()
    return todo


def _namespace(said: Said, hub: Hub, remote: bool) -> tuple[str, str | None]:
    """Return the token's owner, where that matters, and the namespace to push to, if there is one.

    Raises:
        PortError: nothing can be pushed to it with this token.
    """
    if not said.push and not remote:
        return "", None
    user, namespaces = hub.writer()
    wanted = user if said.push is True else str(said.push)
    for part, name in (("push", wanted), ("ledger", (said.ledger or wanted).split("/")[0])):
        if name not in namespaces:
            raise PortError(f"{part}: {user} may not write to {name}: name one of {', '.join(sorted(namespaces))}")
    return user, wanted


def _note_unshared(said: Said, cells: tuple[Cell, ...]) -> None:
    if said.align is None:
        return
    alone = (cell.config for cell in cells if cell.config.maps is None)
    for name in sorted({config.method for config in alone if not is_shared(config)}):
        note(f"the maps of {name} cannot be kept, so each of its ports makes its own")


def _ledger_file(said: Said) -> Path:
    assert said.output is not None  # or the ledger is a repo
    return said.output / FILE


@contextmanager
def _naming(plan: Path) -> Iterator[None]:
    """Put the plan's file before the errors of the block."""
    try:
        yield
    except PortError as error:
        raise PortError(f"{plan}: {error.message}") from error


def _locked(said: Said) -> Any:
    """Return a context that another fleet with the same output cannot enter meanwhile.

    Raises:
        PortError: one has, or nothing can be written there.
    """
    return _lock(said.output) if said.output else nullcontext()


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    require_writable(folder / FILE)
    folder.mkdir(parents=True, exist_ok=True)
    held = WeakFileLock(folder / LOCK, timeout=0.2)
    try:
        held.__enter__()
    except TimeoutError as error:  # filelock's is one
        raise PortError(f"another fleet is at work in {folder}: wait for it, or stop it") from error
    try:
        yield
    finally:
        held.__exit__(None, None, None)
