"""What the suites of faults share: commands that run through a proxy, and a note of how each ended."""

import json
import os
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from support.broken import Broken, publish
from support.faulty import faulty
from support.forked import running
from support.hub import client_env


@pytest.fixture(scope="session")
def broken(hub, tmp_path_factory):
    """Commands that can be broken, with what clean ones make."""
    root = tmp_path_factory.mktemp("broken") / "work"
    publish(HfApi(), root.parent / "little")
    with faulty(hub.url) as proxy:
        env = client_env(hub, root / "home") | {"HF_ENDPOINT": proxy.url}
        with running(root, env) as runner:
            made = Broken(runner, proxy, hub)
            made.start()
            yield made


@pytest.fixture
def ready(broken):
    """The same, with a warm cache and nothing else."""
    broken.proxy.faults.clear()
    broken.forget()
    yield broken
    broken.proxy.faults.clear()


@pytest.fixture
def note():
    """Notes a fault, where it struck, and what came of it, for the table in docs/reliability.md."""

    def write(kind: str, where: str, outcome: str) -> None:
        if place := os.environ.get("BICO_FAULTS"):
            with Path(place).open("a") as file:
                file.write(json.dumps([kind, where, outcome]) + "\n")

    return write
