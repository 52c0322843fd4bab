"""A port that is refused, and a copy of a model to spoil."""

import shutil

import pytest
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file
from support.commands import hf_bico

WEIGHTS = "open_clip_model.safetensors"


@pytest.fixture
def port(world, tmp_path, capsys, monkeypatch):
    """Runs a port of the tiny world with some words changed, in an empty folder that must stay empty."""
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    words = {
        "source": "demo/ft",
        "--to": "demo/plus",
        "--dataset": "demo/task",
        "-n": "20",
        "--output": "out",
        "--push-to": "demo/never",
    }

    def run(*extra, **changed):
        named = words | {
            {"to": "--to", "dataset": "--dataset", "n": "-n", "base": "--base"}.get(key, key): value
            for key, value in changed.items()
        }
        source = named.pop("source")
        ran = hf_bico(capsys, monkeypatch, "port", source, *(w for pair in named.items() for w in pair), *extra)
        assert not list(empty.iterdir())
        assert not HfApi().repo_exists("demo/never")
        return ran

    return run


@pytest.fixture
def copy(world, tmp_path):
    """A model of the world as a folder of one's own, to break."""

    def make(name: str):
        return shutil.copytree(world / name, tmp_path / f"own-{name}")

    return make


def rewrite(folder, change) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)
