"""Tasks as Hugging Face Jobs: each is submitted, and asked after at the next call."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import get_token

from hf_bico.core.errors import PortError
from hf_bico.io import jobs
from hf_bico.io.changes.delta import REPORT_FILE
from hf_bico.io.hub import Hub
from hf_bico.io.reference import Reference
from hf_bico.workflows.choices import CKA, INDEX
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.fleet.ledger import Entry, Ledger, State
from hf_bico.workflows.fleet.reading import Hardware, Said
from hf_bico.workflows.fleet.results import done, failed, fresh
from hf_bico.workflows.fleet.tasks import Task

REPOS = ("source", "target", "base", "dataset", "unlabelled", "maps")
"""Settings that name a repo or a folder."""
FILES = ("templates", "bank")
"""Settings that name a file."""


def require_remote(said: Said) -> None:
    """Refuse a plan whose ports would be lost with the disks of their jobs.

    Raises:
        PortError: it does not push, or does not say on what hardware.
    """
    if not said.push:
        raise PortError("a job's disk is lost when it ends: say push, the namespace that the ports go to")
    if said.hardware.flavor is None:
        raise PortError("say what the jobs run on: hardware: {flavor: a10g-small, timeout: 2h}")


def require_reachable(tasks: Iterable[Task]) -> None:
    """Refuse what a job cannot read: folders and files of this machine.

    Raises:
        PortError: a task has some.
    """
    for task in tasks:
        config = task.config
        named = {name: text for name in REPOS if (text := getattr(config, name, None))}
        here = [text for name, text in named.items() if _place(name, text).folder is not None]
        here += [str(path) for name in FILES if (path := getattr(config, name))]
        here += [config.matching] if config.matching not in (INDEX, CKA) else []
        here += [word for word in task.words if Path(word).is_file()]  # which the client would upload
        if here:
            raise PortError(f"{task.name}: a job cannot read {here[0]} of this machine: push it, and name its repo")


def _place(name: str, text: str) -> Reference:
    return Reference.of_data(text) if name in ("dataset", "unlabelled") else Reference.parse(text)


def for_a_job(task: Task) -> Task:
    """Return a task as a job does it: its result is pushed, and not kept."""
    if not isinstance(task.config, PortConfig):
        return task
    needs = task.needs and for_a_job(task.needs)
    return replace(task, config=replace(task.config, output=None), needs=needs)


def request_of(task: Task, hardware: Hardware, namespace: str) -> dict[str, Any]:
    """Return what `huggingface_hub.run_uv_job` is told of a task, but for the token, which is a secret."""
    said = {
        "script": "hf-bico",
        "script_args": task.words,
        "dependencies": list(hardware.dependencies),
        "image": hardware.image,
        "flavor": hardware.flavor,
        "timeout": hardware.timeout,
        "name": task.name.replace("/", "-").replace(".", "-")[:96],
        "labels": {"hf-bico": task.key},
        "namespace": namespace,
    }
    return {name: value for name, value in said.items() if value is not None}


class Remote:
    """Submits tasks as jobs, and asks after those that were submitted."""

    def __init__(self, ledger: Ledger, watch: Callable[[], None], hub: Hub) -> None:
        self.ledger, self.watch, self.hub = ledger, watch, hub

    def ask(self, tasks: Iterable[Task]) -> None:
        """Bring the ledger up to date on the jobs of tasks.

        Raises:
            PortError: the Hub does not answer.
        """
        for task in tasks:
            entry = self.ledger.entries.get(task.name)
            if entry is not None and entry.state is State.RUNNING and entry.job is not None:
                self._ask(task, entry, *entry.job.split("/", 1))
                self.watch()

    def _ask(self, task: Task, entry: Entry, namespace: str, id: str) -> None:
        job = jobs.find(self.hub, namespace, id)
        if job.has_failed:
            why = f"its job ended as {job.stage}" + (f" ({job.message})" if job.message else "")
            self.ledger.set(task.name, failed(entry, f"{why}: its log is at {job.url}"))
        elif job.is_done:
            repo = entry.repo
            try:
                pinned = self.hub.resolve(f"hf://{repo}")
            except PortError as error:
                self.ledger.set(task.name, failed(entry, f"its job ended well, and pushed nothing: {error}"))
                return
            url = f"{self.hub.api.endpoint}/{repo}/commit/{pinned.commit}"
            self.ledger.set(task.name, done(entry, self.hub.json(pinned, REPORT_FILE), None, url))

    def submit(self, tasks: Iterable[Task], hardware: Hardware, namespace: str) -> None:
        """Submit every task whose maps are there; the others wait for the next call."""
        secrets = {"HF_TOKEN": self.hub.token or get_token() or ""}
        for task in tasks:
            before = self.ledger.entries.get(task.name)
            needed = self.ledger.entries.get(task.needs.name) if task.needs else None
            if task.needs is not None and (needed is None or needed.state is not State.DONE):
                if needed is not None and needed.state is State.FAILED:
                    why = f"{task.needs.name} were not made: {needed.error}"
                    self.ledger.set(task.name, failed(fresh(task, before), why))
                continue
            try:
                job = jobs.submit(self.hub, request_of(task, hardware, namespace), secrets)
            except PortError as error:
                self.ledger.set(task.name, failed(fresh(task, before), str(error)))
            else:
                started = replace(fresh(task, before), state=State.RUNNING)
                self.ledger.set(task.name, replace(started, job=f"{namespace}/{job.id}", job_url=job.url))
            self.watch()
