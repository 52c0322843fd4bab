"""An interrupted port resumes with its own input alone: whatever changes the result changes the key."""

import json

import pytest
from safetensors.torch import load_file
from support.world import config as world_config
from support.world import fine_tune, write_model

from hf_bico import PortConfig
from hf_bico.io.hub import Hub
from hf_bico.workflows import port
from hf_bico.workflows.plan import make_port_plan
from hf_bico.workflows.run import Run
from hf_bico.workflows.session import open_session

OTHER_INPUTS = {
    "models": {"source": "other"},
    "method": {"method_options": ("completion=filled",)},
    "evaluation": {"eval_n": 7},
    "calibration": {"seed": 1, "eval_n": 8},
}
"""Part of the key → choices that change it."""


def key_of(world, **choices) -> dict:
    config = PortConfig(
        choices.pop("source", "demo/ft"), "demo/plus", "demo/task", base="demo/base", **{"n": 8, **choices}
    )
    running = Run(Hub())
    session = open_session(make_port_plan(config, Hub()), running)
    return json.loads(json.dumps(port._key(config, session, session.draw(running.track))))


@pytest.fixture(scope="module")
def own(world):
    return key_of(world)


@pytest.fixture(scope="module")
def other_source(world, tmp_path_factory):
    folder, small = tmp_path_factory.mktemp("sources") / "other", world_config(32, 2, 32)
    base = load_file(world / "base" / "open_clip_model.safetensors")
    write_model(folder, small, fine_tune(small, base, seed=9))
    return str(folder)


@pytest.mark.parametrize("part", OTHER_INPUTS)
def test_another_input_is_another_key(world, own, other_source, part):
    choices = dict(OTHER_INPUTS[part])
    if "source" in choices:
        choices["source"] = other_source
    found = key_of(world, **choices)
    assert part in {name for name in own.keys() | found.keys() if own.get(name) != found.get(name)}


def test_another_version_is_another_key(world, own, monkeypatch):
    monkeypatch.setattr(port, "__version__", "0.0.0")
    assert {name for name, value in key_of(world).items() if own.get(name) != value} == {"hf_bico"}


def test_the_same_input_is_the_same_key(world, own):
    assert key_of(world) == own
    assert set(own) == {*OTHER_INPUTS, "hf_bico"}


@pytest.mark.parametrize(
    "choices",
    [
        {"alpha": 0.5},
        {"batch_size": 3},
        {"form": "delta"},
        {"layers": "0"},
        {"eval_split": "train"},
        {"columns": "image=image,label=label"},
        {"strategy": "class-balanced"},
    ],
    ids=str,
)
def test_every_choice_that_tells_in_the_result_is_in_the_key(world, own, choices):
    assert key_of(world, **choices) != own
