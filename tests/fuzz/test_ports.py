"""Whole ports of damaged repos, from the command line."""

import json
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from fuzz.damage import damaged, damaged_bytes, text_of
from fuzz.laws import EXAMPLES, TALLY, fuzzed, put
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from support.commands import assert_refused, hf_bico
from support.little import llama, tuned, write, write_texts

FILES = (
    "ft/config.json",
    "plus/config.json",
    "base/config.json",
    "ft/tokenizer_config.json",
    "plus/tokenizer.json",
    "plus/generation_config.json",
    "plus/model.safetensors",
    "texts/train.jsonl",
    "texts/README.md",
    "ft/README.md",
)
"""Files of which one is damaged."""
few = settings(fuzzed, max_examples=max(1, EXAMPLES // 30), deadline=timedelta(seconds=60))


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A Llama, its fine-tune, a new base, and texts."""
    root = tmp_path_factory.mktemp("fuzz")
    base = llama()
    write(base, root / "base")
    write(tuned(base), root / "ft")
    write(llama(1, hidden_size=24), root / "plus")
    write_texts(root / "texts")
    (root / "ft" / "README.md").write_text("---\nlicense: mit\n---\n")
    (root / "texts" / "README.md").write_text("---\nlicense: mit\n---\n")
    return root


def broken(data, place: Path) -> bytes:
    raw = place.read_bytes()
    if place.suffix != ".json" or data.draw(st.integers(0, 9)) == 0:
        return data.draw(damaged_bytes(raw))
    said = json.loads(raw)
    shallow = {key: each for key, each in said.items() if key != "model"}
    return text_of(said | data.draw(damaged(shallow)))


@few
@given(data=st.data())
def test_ports(root, capsys, monkeypatch, data):
    place = root / data.draw(st.sampled_from(FILES))
    out = root / "out"
    shutil.rmtree(out, ignore_errors=True)
    words = [
        "port",
        root / "ft",
        "--to",
        root / "plus",
        "--base",
        root / "base",
        "--dataset",
        root / "texts",
        "-n",
        "4",
    ]
    with put(place.parent, place.name, broken(data, place)):
        ran = hf_bico(capsys, monkeypatch, *words, "--output", out)
    if ran.code:
        assert_refused(ran)
        assert not out.exists()
    else:
        assert all(tensor.isfinite().all() for tensor in load_file(out / "model.safetensors").values())
    TALLY.add("whole ports", "one line" if ran.code else "right")
