"""A process that has imported all that a command needs, and forks a child for every command: real ones, at no wait.

Each child has the streams, the exit code and the signals of a process of its own, and may be broken at an event
(`support.events`). `Runner` starts the process and talks to it in lines of JSON; `python -m support.forked` is it.
"""

import atexit
import gc
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
LONGEST = 30.0
"""Seconds that a command may take; one that takes longer hangs."""
HUNG = "hung"
FIRST = ("hf_bico.cli.main", "hf_bico.workflows.port", "hf_bico.workflows.align", "datasets", "transformers")
"""Modules that every child needs, imported before the first."""


class Ran(NamedTuple):
    """How a command ended."""

    code: int | str
    """Its exit code, that of a shell where a signal killed it; "hung" where it did not end."""
    out: str
    err: str
    events: list[str]
    """What it did to disk and network; nothing where it was killed."""

    @property
    def error(self) -> str:
        """The last line on stderr."""
        return (self.err.strip().splitlines() or [""])[-1]


class Runner:
    """The process, and the folder that its children work in: `home` is their HF_HOME, `tmp` their TMPDIR."""

    def __init__(self, process: subprocess.Popen, root: Path) -> None:
        self.process, self.root = process, root

    def run(self, *words: str, **how: Any) -> Ran:
        """Run a command of hf-bico, or `load` and a repo: that delta's model, whose tensors' hash is printed.

        Args:
            how: what breaks it: at= and then= (see `Events`), limit= (bytes of a file).
        """
        return self.together({"words": list(map(str, words)), **how})[0]

    def together(self, *cases: Mapping[str, Any]) -> list[Ran]:
        """Start several commands at one moment, and wait for all."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(cases) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the runner died"
        return [Ran(*each) for each in json.loads(answer)]


@contextmanager
def running(root: Path, env: Mapping[str, str]) -> Iterator[Runner]:
    """Start the process, with `root` for its children to work in."""
    (root / "tmp").mkdir(parents=True)
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), env.get("PYTHONPATH", "")])
    more = {"HF_HOME": str(root / "home"), "TMPDIR": str(root / "tmp"), "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    more["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # transformers asks when it is imported, here before the command says so
    command = [sys.executable, "-m", "support.forked"]
    process = subprocess.Popen(
        command, cwd=root, env={**env, **more}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        yield Runner(process, root)
        process.stdin.close()


def serve() -> None:
    """Answer each line of cases with a line of how they ended."""
    answers = os.fdopen(os.dup(1), "w")
    setattr(re, "_MAXCACHE", 100_000)  # noqa: B010
    _load(FIRST, ())
    for line in sys.stdin:
        kept, cases = Path.cwd().with_name("streams"), json.loads(line)
        kept.mkdir(exist_ok=True)
        places = [kept / str(number) for number in range(len(cases))]
        pids = [_started(case, place) for case, place in zip(cases, places, strict=True)]
        codes = _waited(pids)
        print(json.dumps([[code, *_read(place)] for code, place in zip(codes, places, strict=True)]), file=answers)
        answers.flush()


def _imported() -> dict[str, Any]:
    """Return what a child has imported, and the patterns that it has compiled."""
    patterns = [[pattern, flags] for _, pattern, flags in re._cache if isinstance(pattern, str)]
    return {"modules": list(sys.modules), "patterns": patterns}


def _load(modules: Sequence[str], patterns: Sequence[Sequence[Any]]) -> None:
    """Import and compile the same, so that the next children need not."""
    for name in modules:
        if name not in sys.modules:
            with suppress(Exception):
                importlib.import_module(name)
    for pattern, flags in patterns:
        re.compile(pattern, flags)
    gc.freeze()  # a collection in a child would copy all of it


def _started(case: Mapping[str, Any], place: Path) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        code = _child(case, place)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _child(case: Mapping[str, Any], place: Path) -> int:
    """Run a command, and return its exit code; what it did is written beside its streams."""
    from support.events import Events, small_files

    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{place}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    events = Events(f"{Path.cwd()}{os.sep}", case)
    _hurry()
    Path(f"{place}.events").unlink(missing_ok=True)
    events.install()
    if "limit" in case:
        small_files(case["limit"])
    code = _command(case["words"])
    events.at = None
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    told = {"events": events.names, **_imported()} if case.get("tell") else {"events": []}
    if "limit" not in case:
        Path(f"{place}.events").write_text(json.dumps(told))
    return code


def _hurry() -> None:
    """Let the waits for a Hub take no time, nor the estimate's look at the device; save progress after every batch."""
    from hf_bico.io import workspace
    from hf_bico.reports import estimate

    estimate.matmul_rate = lambda *device: 1e10
    workspace.EVERY, right = 0.0, time.sleep
    time.sleep = lambda seconds: right(min(seconds, 0.001))


def _command(words: Sequence[str]) -> int:
    """Run a command as the console script does, and return its exit code."""
    sys.argv = ["hf-bico", *words]
    try:
        if words[0] == "load":
            _load_delta(words[1])
        else:
            from hf_bico.cli.main import main

            main()
    except SystemExit as stop:
        return int(stop.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def _load_delta(repo: str) -> None:
    """Print the hash of what `from_pretrained` opens; an error of ours as the command line does."""
    import hashlib

    import hf_bico

    try:
        tensors = hf_bico.from_pretrained(repo).model.state_dict()
    except hf_bico.PortError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
    digest = hashlib.sha256()
    for key in sorted(tensors):
        digest.update(key.encode() + tensors[key].cpu().numpy().tobytes())
    print(digest.hexdigest())


def _waited(pids: Sequence[int]) -> list[int | str]:
    """Return how children ended; one that does not end is killed."""
    codes: dict[int, int | str] = {}
    until = time.monotonic() + LONGEST
    while len(codes) < len(pids):
        for pid in [each for each in pids if each not in codes]:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                code = os.waitstatus_to_exitcode(status)
                codes[pid] = code if code >= 0 else 128 - code
            elif time.monotonic() > until:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                codes[pid] = HUNG
        time.sleep(0.005)
    return [codes[pid] for pid in pids]


def _read(place: Path) -> list[Any]:
    """Return what a child left: its streams, and its events with the modules that it imported."""
    out, err = (Path(f"{place}.{name}").read_text(errors="replace") for name in ("out", "err"))
    told = Path(f"{place}.events")
    said = json.loads(told.read_text()) if told.exists() else {"events": []}
    if "modules" in said:
        _load(said["modules"], said["patterns"])
    return [out, err, said["events"]]


if __name__ == "__main__":
    serve()
