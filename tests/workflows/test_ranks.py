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

import pytest
import torch
from safetensors.torch import load_file
from support.commands import TINY_PORT

WEIGHTS = "open_clip_model.safetensors"
TINY = (*TINY_PORT, "-n", "20", "--batch-size", "3")
SECONDS = 240
"""After these a process of a test is killed."""


def free_port() -> str:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return str(held.getsockname()[1])


def started(*words: str, world: int = 2, program: tuple[str, ...] = ("-m", "hf_bico"), **more: str):
    """The processes of a command, as a launcher starts them; rank 0 first."""
    both = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": str(world)} | more
    return [
        subprocess.Popen(
            [sys.executable, *program, *map(str, words)],
            env=both | {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
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


def test_two_processes_write_what_one_does_and_one_of_them_talks(world, tmp_path):
    alone = subprocess.run(
        [sys.executable, "-m", "hf_bico", *TINY, "--output", tmp_path / "one"], capture_output=True, text=True
    )
    assert alone.returncode == 0, alone.stderr
    (code, out, err), other = ended(started(*TINY, "--output", tmp_path / "two"))
    assert code == 0, err
    assert other == (0, "", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]
    one, two, base = written(tmp_path / "one"), written(tmp_path / "two"), written(world / "plus")
    assert one.keys() == two.keys()
    for key in base:
        change = (one[key] - base[key]).double()
        assert torch.allclose((two[key] - base[key]).double(), change, rtol=1e-3, atol=1e-4 * float(change.abs().max()))
    assert out.replace("two", "one") == alone.stdout
