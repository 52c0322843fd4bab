"""Several processes share the work on a port: its weights are those of one process, and they end together.

They are real ones, which find one another as a launcher's do, and talk over gloo.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from threading import Event, Lock

import pytest
import torch
from safetensors.torch import load_file
from support.commands import TINY_PORT
from support.memory import least
from support.twins import distance

from hf_bico.cli.launched import Ending, Watch
from hf_bico.workflows.config import PortConfig

WEIGHTS = "open_clip_model.safetensors"
TINY = (*TINY_PORT, "-n", "20", "--batch-size", "3", "--set", "rtol=1e-2")
SECONDS = 240
"""After these a process of a test is killed."""


def free_port() -> str:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return str(held.getsockname()[1])


def started(*words: str, world: int = 2, program: tuple[str, ...] = ("-m", "hf_bico"), **more: str):
    """The processes of a command, as a launcher starts them; rank 0 first. Seeds 0 and 2 put sets in other orders."""
    both = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": str(world)} | more
    return [
        subprocess.Popen(
            [sys.executable, *program, *map(str, words)],
            env=both | {"RANK": str(rank), "LOCAL_RANK": str(rank), "PYTHONHASHSEED": str(2 * rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]


def ended(processes) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of every process."""
    try:
        said = [process.communicate(timeout=SECONDS) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *each) for process, each in zip(processes, said, strict=True)]


def written(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / WEIGHTS)


BROKEN = """
import os, signal, time
from hf_bico.cli.main import main
from hf_bico.core import collect
from hf_bico.core.errors import PortError
from hf_bico.workflows import port
def die(*given):
    os.kill(os.getpid(), signal.SIGKILL)
def refuse(*given):
    raise PortError("it is refused")
def fail(*given):
    raise ValueError("it is broken")
def wait(stage, *given):
    stage.mkdir()
    open(os.environ["FLAG"], "w").close()
    time.sleep(200)
if os.environ["RANK"] == os.environ["WHO"]:
    where, name = {"pass": (collect, "_add_batch"), "plan": (port, "make_port_plan"), "write": (port, "_write")}[
        os.environ["WHERE"]
    ]
    setattr(where, name, globals()[os.environ["DOES"]])
main()
"""
"""A port of which one process does something else at some place."""


def broken(who: int, where: str, does: str, folder: Path, **more: str):
    given = {"WHO": str(who), "WHERE": where, "DOES": does} | more
    return started(*TINY, "--output", folder / "out", program=("-c", BROKEN), **given)


def lines(err: str) -> list[str]:
    """What was said beside the stages."""
    return [line for line in err.splitlines() if not line.endswith(" …")]


def changes(folder: Path, world: Path) -> dict[str, torch.Tensor]:
    base = load_file(world / "plus" / WEIGHTS)
    return {key: tensor.double() - base[key].double() for key, tensor in load_file(folder / WEIGHTS).items()}


@pytest.fixture(scope="module")
def alone(world, tmp_path_factory):
    """The changes that one process writes, and what it says."""
    folder = tmp_path_factory.mktemp("alone") / "out"
    words = [sys.executable, "-m", "hf_bico", *TINY, "--output", str(folder)]
    ran = subprocess.run(words, capture_output=True, text=True, check=True)
    return changes(folder, world), ran.stdout.replace(str(folder), "OUT")


def test_two_processes_write_what_one_does_and_one_of_them_talks(world, alone, tmp_path):
    (code, out, err), other = ended(started(*TINY, "--output", tmp_path / "out"))
    assert code == 0, err
    assert other == (0, "", "")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "README.md").exists()
    assert distance(changes(tmp_path / "out", world), alone[0]) < 1e-5
    assert out.replace(str(tmp_path / "out"), "OUT") == alone[1]


WITHIN = """
from hf_bico.cli.main import main
from hf_bico.reports import estimate, memory
estimate.held, memory.READING = lambda device: 0, 0
main()
"""
"""A port of which the tensors alone are counted."""


def test_in_groups_of_layers_too(world, alone, tmp_path):
    memory = least(PortConfig("demo/ft", "demo/plus", "demo/task", method="bico", n=20, batch_size=3))
    given = (*TINY, "--memory", memory, "--output", tmp_path / "out")
    (code, _, err), other = ended(started(*given, program=("-c", WITHIN)))
    assert (code, other) == (0, (0, "", "")), err
    report = json.loads((tmp_path / "out" / "hf_bico.json").read_text())
    assert report["estimate"]["groups"] > 1
    assert distance(changes(tmp_path / "out", world), alone[0]) < 1e-5


def test_a_users_mistake_is_told_once(world, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    first, other = ended(started(*TINY, "--output", tmp_path / "out"))
    assert first[:2] == (2, "")
    assert len(lines(first[2])) == 1
    assert "is not a new or empty folder: name another with --output" in first[2]
    assert other == (2, "", "")


def test_what_one_of_them_refuses_ends_both_with_its_line(world, tmp_path):
    first, other = ended(broken(1, "plan", "refuse", tmp_path))
    assert (first[0], lines(first[2])) == (2, ["Error: it is refused"])
    assert other == (2, "", "")
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_one_of_them_is_shown_once(world, tmp_path):
    first, other = ended(broken(1, "pass", "fail", tmp_path))
    assert (first[0], lines(first[2])) == (1, [])
    assert other[0] == 1
    assert other[2].count("ValueError: it is broken") == 1


@pytest.mark.parametrize("who", [0, 1])
def test_one_that_is_killed_ends_the_other_with_one_line(world, tmp_path, who):
    both = ended(broken(who, "pass", "die", tmp_path))
    assert both[who][0] == -9
    code, out, err = both[1 - who]
    assert (code, out) == (1, "")
    assert lines(err) == [f"Error: process {who} of 2 was killed or lost its connection; nothing was written"]
    assert list(tmp_path.iterdir()) == []


def test_one_that_is_killed_while_the_other_writes_leaves_nothing_written(world, tmp_path):
    flag = tmp_path / "flag"
    first, other = broken(0, "write", "wait", tmp_path / "place", FLAG=str(flag))
    until = time.monotonic() + SECONDS
    while not flag.exists() and first.poll() is None and time.monotonic() < until:
        time.sleep(0.1)
    other.kill()
    began = time.monotonic()
    code, _, err = ended([first, other])[0]
    assert time.monotonic() - began < 30
    assert (code, len(lines(err))) == (1, 1)
    assert list((tmp_path / "place").iterdir()) == []


def test_a_launcher_starts_them(world, alone, tmp_path):
    launcher = ["torch.distributed.run", "--nproc_per_node", "2", "--master_port", free_port()]
    words = [sys.executable, "-m", *launcher, "-m", "hf_bico", *TINY, "--output", str(tmp_path / "out")]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS)
    assert ran.returncode == 0, ran.stderr
    assert distance(changes(tmp_path / "out", world), alone[0]) < 1e-5
    assert ran.stdout.replace(str(tmp_path / "out"), "OUT") == alone[1]


def test_other_commands_say_that_one_process_is_enough(world):
    first, other = ended(started("extract", "demo/ft", "--base", "demo/base", "--output", "x"))
    assert (first[0], other) == (2, (2, "", ""))
    assert "only port shares its work among processes" in first[2]


def test_a_word_that_comes_as_the_work_ends_kills_nobody(monkeypatch):
    """A main thread that ended by itself has given the signal back, which would kill it: seen once under load."""
    watch, sent = object.__new__(Watch), []
    watch.rank, watch.first, watch.said = 1, None, False
    watch.heard, watch.over, watch.lock, watch.turn = Event(), Event(), Lock(), Lock()
    monkeypatch.setattr(signal, "pthread_kill", lambda *given: sent.append(given))
    watch._word_of = lambda peer: Ending(1)
    watch._say = lambda ending: watch.close()  # the work ends while this process tells the others
    watch._hear(0)
    assert sent == []


def test_what_is_heard_while_a_process_speaks_is_not_told_twice():
    watch = object.__new__(Watch)
    watch.rank, watch.first = 1, None
    watch._say = lambda ending: setattr(watch, "first", Ending(2))
    assert watch.ended(Ending(2, "Error: told by rank 0")) == Ending(2)
