"""Tasks on this machine: each a process of its own, several at once, all of them stopped when the fleet is."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from hf_bico.core.errors import PortError
from hf_bico.workflows.fleet.ledger import Ledger, State
from hf_bico.workflows.fleet.results import done, failed, fresh, reason, with_scores
from hf_bico.workflows.fleet.tasks import PROGRAM, Task

TICK = 0.5
"""Seconds between two looks at what the processes are at."""
GRACE = 15.0
"""Seconds that an interrupted process has to end by itself."""
BEFORE = ".before"
"""How the name of a result ends that is being made again."""


@dataclass
class Child:
    """A task that is being run."""

    task: Task
    process: subprocess.Popen[str]
    out: IO[str]
    """What it prints on stdout: its report."""
    began: float = field(default_factory=time.monotonic)
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=50))
    """What it said last."""
    stage: str | None = None
    seconds: float = 0.0

    def follow(self) -> int:
        """Read what it says until it ends, and return its exit code."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if line.rstrip().endswith("…"):
                self.stage = line.strip()
        code = self.process.wait()
        self.seconds = time.monotonic() - self.began
        return code

    def report(self) -> dict[str, Any]:
        """Return its report; empty where it gave none."""
        self.out.seek(0)
        text = self.out.read()
        return json.loads(text) if text.strip() else {}


class Local:
    """Runs tasks on this machine and keeps the ledger, from one thread; the others only wait for processes.

    Args:
        watch: called when anything has changed.
        token: of the Hub, handed on by the environment, for a command line can be read by all.
    """

    def __init__(self, ledger: Ledger, watch: Callable[[], None], token: str | None, jobs: int) -> None:
        self.ledger, self.watch, self.jobs = ledger, watch, jobs
        self.running: dict[Future[int], Child] = {}
        self.environment = dict(os.environ) | ({"HF_TOKEN": token} if token else {})
        if jobs > 1:  # torch takes all cores for every process
            self.environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))

    def run(self, tasks: list[Task]) -> None:
        """Run the tasks, those before whose maps are needed; one that fails stops none that does not need it.

        Raises:
            PortError: the ledger cannot be kept; no process is left.
        """
        waiting = list(tasks)
        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                while waiting or self.running:
                    while len(self.running) < self.jobs and (task := self._next(waiting)):
                        self._start(task, pool)
                    self.watch()
                    ended, _ = wait(self.running, TICK, FIRST_COMPLETED)
                    for future in ended:
                        self._end(self.running[future], future.result())
                        del self.running[future]
                    self._look()
            except BaseException:  # Ctrl-C too: no process goes on without us
                self._stop()
                raise

    def _next(self, waiting: list[Task]) -> Task | None:
        """Take and return the next task whose maps are there; those whose maps failed have failed."""
        for task in list(waiting):
            needed = self.ledger.entries.get(task.needs.name) if task.needs else None
            if needed is not None and needed.state is State.FAILED:
                waiting.remove(task)
                why = f"{task.needs.name if task.needs else ''} were not made: {needed.error}"
                self.ledger.set(task.name, failed(fresh(task, self.ledger.entries.get(task.name)), why))
            elif task.needs is None or (needed is not None and needed.state is State.DONE):
                waiting.remove(task)
                return task
        return None

    def _start(self, task: Task, pool: ThreadPoolExecutor) -> None:
        before = self.ledger.entries.get(task.name)
        try:
            put_aside(task.config.output, before.output if before else None)
        except PortError as error:
            self.ledger.set(task.name, failed(fresh(task, before), str(error)))
            return
        self.ledger.set(task.name, replace(fresh(task, before), state=State.RUNNING), keep=False)
        out = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 closed when the process has ended
        process = subprocess.Popen(
            [*PROGRAM, *task.words, "--format", "json"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env=self.environment,
            start_new_session=True,  # Ctrl-C is for us, who hand it on
        )
        child = Child(task, process, out)
        self.running[pool.submit(child.follow)] = child

    def _end(self, child: Child, code: int) -> None:
        """Put what came of a task into the ledger."""
        with child.out:
            entry = replace(self.ledger.entries[child.task.name], seconds=round(child.seconds, 1))
            place = child.task.config.output
            kept = bring_back(place)
            try:
                report = child.report()
            except ValueError:
                report, code = {}, code or 1
            if code == 0:
                entry = done(entry, report, kept, report.get("url"))
            else:
                entry = failed(with_scores(entry, report), reason(child.lines, code), code)
                entry = replace(entry, output=kept)
            self.ledger.set(child.task.name, entry)

    def _look(self) -> None:
        """Note what the processes are at."""
        for child in self.running.values():
            entry = self.ledger.entries[child.task.name]
            seconds = round(time.monotonic() - child.began, 1)
            self.ledger.entries[child.task.name] = replace(entry, stage=child.stage, seconds=seconds)

    def _stop(self) -> None:
        """End the processes, and say in the ledger that what they did is to be done."""
        children = list(self.running.values())
        try:
            for child in children:
                if child.process.poll() is None:
                    child.process.send_signal(signal.SIGINT)
            limit = time.monotonic() + GRACE
            for child in children:
                child.process.wait(max(0.0, limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass
        finally:
            for child in children:
                if child.process.poll() is None:
                    os.killpg(child.process.pid, signal.SIGKILL)  # with what it has started
                child.process.wait()
                child.out.close()
                bring_back(child.task.config.output)
                before = self.ledger.entries[child.task.name]
                self.ledger.set(child.task.name, fresh(child.task, before), keep=False)
            self.ledger.keep()


def put_aside(place: Path | None, known: str | None) -> None:
    """Put the folder of a result aside that is made again; `bring_back` brings it back if no new one was made.

    Args:
        known: the folder that the ledger says a task has made; any other is left alone.

    Raises:
        PortError: it is in the way, and is not of this fleet.
    """
    if place is None or not place.exists():
        return
    if known != str(place):
        raise PortError(f"{place} is there, and the ledger does not say that it is of this fleet: move it away")
    aside = place.with_name(place.name + BEFORE)
    shutil.rmtree(aside, ignore_errors=True)
    place.rename(aside)


def bring_back(place: Path | None) -> str | None:
    """Return the folder of a result, if there is one; where no new one was made, the earlier is put back."""
    if place is None:
        return None
    aside = place.with_name(place.name + BEFORE)
    if place.is_dir():
        shutil.rmtree(aside, ignore_errors=True)
    elif aside.is_dir():
        aside.rename(place)
    return str(place) if place.is_dir() else None
