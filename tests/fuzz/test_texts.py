"""Damaged cards, recipes and data."""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import datasets
import pytest
import yaml
from fuzz.damage import damaged, damaged_bytes, odd
from fuzz.laws import fuzzed, put, right_or_one_line
from hypothesis import given
from hypothesis import strategies as st

from hf_bico import PortError
from hf_bico.core.pairing import read_matching
from hf_bico.io.cards import card_of
from hf_bico.io.hub import Hub
from hf_bico.tasks.samples import classes_of, draw, read_task
from hf_bico.tasks.splits import HubDataset
from hf_bico.tasks.strategies import Calibration

CARD = {
    "license": "mit",
    "base_model": ["org/base", "org/other"],
    "base_model_relation": "finetune",
    "datasets": ["org/data"],
    "tags": ["a"],
    "model-index": [{"name": "x", "results": [{"task": {"type": "t"}, "metrics": [{"type": "a", "value": 0.5}]}]}],
}
DATA = {
    "license": "mit",
    "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "train.jsonl"}]}],
    "dataset_info": {
        "features": [
            {"name": "text", "dtype": "string"},
            {"name": "label", "dtype": {"class_label": {"names": {"0": "no", "1": "yes"}}}},
        ],
        "splits": [{"name": "train", "num_examples": 12}],
    },
}
ROWS = [{"text": f"row {n} of some words", "label": n % 2} for n in range(12)]


MATCHING = {"vision": {0: 0, 1: 1, 2: 1, 3: None}, "text": [[0, 0], [1, 1], [2, 2], [3, 2]]}


def card(said) -> str:
    return f"---\n{yaml.safe_dump(said, allow_unicode=True)}---\n# A title\n"


yamls = st.text(st.sampled_from("ab: -&*x!|>{}[]'\"\n\t#%,?01.~"), max_size=60)
"""Texts of what YAML is made of."""


@fuzzed
@given(text=st.one_of(damaged(CARD).map(card), yamls.map(lambda text: f"---\n{text}\n---\n"), st.text(max_size=80)))
def test_cards_of_models(text):
    with right_or_one_line("cards of models"):
        card_of(text, "the card of a/b")


@fuzzed
@given(text=st.one_of(damaged(MATCHING).map(yaml.safe_dump), yamls))
def test_matchings(tmp_path_factory, text):
    place = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    place.write_text(text, encoding="utf-8", errors="replace")
    with right_or_one_line("matchings"):
        rule = read_matching(place)
        for tower in ("vision", "text"):
            rule(tower, 3, 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A dataset of texts and their classes."""
    folder = tmp_path_factory.mktemp("fuzz") / "data"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "README.md").write_text(card(DATA))
    return folder


def samples(folder: Path, cache: Path) -> list[tuple]:
    """All samples of a folder's first split, as a port draws them."""
    shutil.rmtree(cache, ignore_errors=True)
    datasets.config.HF_DATASETS_CACHE = cache
    hub = Hub()
    dataset = HubDataset(hub, hub.resolve(str(folder), "dataset"))
    split = dataset.split(dataset.splits[0]) if dataset.splits else dataset.split("train")
    task = read_task(dataset, split, {}, None)
    calibration = Calibration(n=6)
    return [
        (sample.inputs, sample.label)
        for sample in draw(split, "train", task, calibration, classes_of(split, task, calibration)).samples
    ]


BOMB = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}]\n" for a, b in pairwise("abcdefghijkl"))


@pytest.mark.parametrize("name", ["README.md", ".huggingface.yaml"])
def test_a_bomb_in_the_card_of_data(folder, tmp_path, name):
    """It is refused before the library makes anything of it."""
    text = f"---\n{BOMB}---\n" if name == "README.md" else BOMB
    with put(folder, name, text.encode()), pytest.raises(PortError, match="too large with its aliases"):
        samples(folder, tmp_path)


@fuzzed
@given(data=st.data())
def test_cards_of_data(folder, tmp_path_factory, data):
    text = data.draw(damaged(DATA).map(card) | yamls.map(lambda text: f"---\n{text}\n---\n"))
    text = text.encode("utf-8", "replace")
    with put(folder, "README.md", text), right_or_one_line("cards of data"):
        assert samples(folder, tmp_path_factory.getbasetemp() / "fuzz-cache")


@fuzzed
@given(data=st.data())
def test_rows(folder, tmp_path_factory, data):
    rows = [dict(row) for row in ROWS]
    for _ in range(data.draw(st.integers(1, 3))):
        row = rows[data.draw(st.integers(0, len(rows) - 1))]
        row[data.draw(st.sampled_from(["text", "label", "more"]))] = data.draw(odd)
    raw = "".join(json.dumps(row) + "\n" for row in rows).encode("utf-8", "replace")
    no_text = st.integers(0, len(raw) - 1).map(lambda at: raw[:at] + b"\x80" + raw[at + 1 :])
    raw = data.draw(st.just(raw) | damaged_bytes(raw) | no_text)
    with put(folder, "train.jsonl", raw), right_or_one_line("rows of data"):
        assert samples(folder, tmp_path_factory.getbasetemp() / "fuzz-cache")
