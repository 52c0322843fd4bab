"""Damaged files of our own: deltas, maps, and their records."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from fuzz.damage import damaged, damaged_bytes, damaged_safetensors, text_of
from fuzz.laws import fuzzed, put, right_or_one_line
from hypothesis import given
from hypothesis import strategies as st
from support.alignments import aligned
from support.deltas import same, state

import hf_bico
from hf_bico.core.low_rank import as_dense
from hf_bico.io.hub import Hub
from hf_bico.io.maps.files import MAPS_FILE, MapsRecord
from hf_bico.io.maps.shards import MapReader
from hf_bico.io.maps.stored import open_maps

RECORD, CONFIG, WEIGHTS = "hf_bico.json", "adapter_config.json", "adapter_model.safetensors"


@pytest.fixture(scope="module")
def delta(llama, tmp_path_factory) -> tuple[Path, Path, dict[str, torch.Tensor]]:
    """Folders of a delta and of its base, and the tensors of the model that they make."""
    _, root = llama
    folder = tmp_path_factory.mktemp("fuzz") / "delta"
    shutil.copytree(root / "delta", folder)
    return folder, root / "plus", state(hf_bico.from_pretrained(folder, base=root / "plus"))


@pytest.fixture(scope="module")
def maps(world, tmp_path_factory) -> tuple[Path, dict]:
    """A folder of maps, and the maps."""
    folder = tmp_path_factory.mktemp("fuzz") / "maps"
    aligned(folder)
    return folder, read(folder)


def read(folder: Path) -> dict[str, tuple]:
    """All maps of a folder by what they lead to, as a port over them reads them."""
    made = open_maps(str(folder), Hub()).made
    reader = MapReader(folder, made, list(made.entries.values()), "cpu")
    return {name: (entry.base, entry.scale, reader.read(entry)) for name, entry in made.entries.items()}


def alike(a: tuple, b: tuple) -> bool:
    """Whether two maps are between the same sites and have the same factors."""
    (*site, one), (*other, two) = a, b
    return site == other and all(
        torch.equal(as_dense(p), as_dense(q)) if p is not None and q is not None else p is q
        for p, q in ((one.left, two.left), (one.right, two.right))
    )


@fuzzed
@given(data=st.data())
def test_deltas(delta, data):
    """With every byte compared, what opens is what was written."""
    folder, base, clean = delta
    name = data.draw(st.sampled_from([RECORD, CONFIG, WEIGHTS]))
    raw = (folder / name).read_bytes()
    if name == WEIGHTS:
        raw = data.draw(damaged_safetensors(raw))
    else:
        said = json.loads(raw)
        if name == RECORD:  # of the rest a delta is not made
            said["delta"] = data.draw(damaged(said["delta"]))
        raw = text_of(said if name == RECORD else data.draw(damaged(said)))
    with put(folder, name, raw), right_or_one_line("deltas"):
        assert same(state(hf_bico.from_pretrained(folder, base=base, verify="full")), clean)


@fuzzed
@given(data=st.data())
def test_maps(maps, data):
    folder, clean = maps
    name = data.draw(st.sampled_from([MAPS_FILE, MAPS_FILE, "maps-00001.safetensors"]))
    raw = (folder / name).read_bytes()
    broken = damaged(json.loads(raw)).map(text_of) if name == MAPS_FILE else damaged_bytes(raw)
    with put(folder, name, data.draw(broken)), right_or_one_line("maps"):
        found = read(folder)
        same_ones = all(alike(each, clean[site]) for site, each in found.items() if site in clean)
        assert same_ones or name == MAPS_FILE  # which says what is whose, and alone can
        assert all(as_dense(x).isfinite().all() for *_, m in found.values() for x in (m.left, m.right) if x is not None)


@fuzzed
@given(data=st.data())
def test_records_of_maps(maps, data):
    raw = (maps[0] / MAPS_FILE).read_bytes()
    text = data.draw(st.one_of(damaged(json.loads(raw), 6).map(text_of), damaged_bytes(raw), st.binary(max_size=40)))
    with right_or_one_line("records of maps"):
        MapsRecord.read(text)
