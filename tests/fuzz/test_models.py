"""Damaged models: configs, headers, indexes and adapters."""

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
import transformers
from fuzz.damage import damaged, damaged_bytes, damaged_safetensors, header_of, text_of
from fuzz.laws import fuzzed, put, right_or_one_line
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from support.little import llama, lora, tuned, write

from hf_bico import TaskVector
from hf_bico.families import LIBRARIES
from hf_bico.io.checkpoints import SafeTensors
from hf_bico.io.hub import Hub
from hf_bico.io.models import repo_models

CLIP_CONFIG, CONFIG = "open_clip_config.json", "config.json"


@pytest.fixture(scope="module")
def root(tmp_path_factory, world) -> Path:
    """Folders that may be damaged: a CLIP, and a Llama, its fine-tune in shards, and an adapter of it."""
    root = tmp_path_factory.mktemp("fuzz")
    shutil.copytree(world / "base", root / "clip")
    base = llama()
    write(base, root / "llama")
    write(tuned(base), root / "tuned")
    tuned(base).save_pretrained(root / "sharded", max_shard_size="20KB")
    lora(base, root / "lora", root / "llama")
    return root


def said(root: Path, place: str):
    return json.loads((root / place).read_text())


def opens_as(folder: Path) -> dict[str, torch.Tensor]:
    """Open a model as a port opens its target, and return its tensors by the names in its files."""
    hub = Hub()
    library, purpose, (model,) = repo_models([hub.resolve(str(folder))], hub, None)
    state = library.load(folder, "cpu", purpose).model.state_dict()
    return {found.key: state[name] for name, found in model.shapes.names.items() if not found.stack and name in state}


def agree(found: dict[str, torch.Tensor], stored: dict[str, torch.Tensor]) -> bool:
    """Whether what was opened is what is stored; a config may leave tensors out, or have them in another shape."""
    return bool(found) and all(torch.equal(t, stored[key]) for key, t in found.items() if t.shape == stored[key].shape)


CONFIGS = {
    "open_clip": ("clip", CLIP_CONFIG, "open_clip_model.safetensors"),
    "transformers": ("llama", CONFIG, "model.safetensors"),
}


@pytest.mark.parametrize("library", CONFIGS)
@fuzzed
@given(data=st.data())
def test_configs(root, library, data):
    model, name, weights = CONFIGS[library]
    config = data.draw(damaged(said(root, f"{model}/{name}")))
    with put(root / model, name, text_of(config)), right_or_one_line(f"configs of {library}"):
        assert agree(opens_as(root / model), load_file(root / model / weights))


@fuzzed
@given(data=st.data())
def test_tokenizers(root, data):
    name = data.draw(st.sampled_from(["tokenizer.json", "tokenizer_config.json"]))
    tokenizer = said(root, f"llama/{name}")
    if "model" in tokenizer:  # some words are as good as all
        words = list(tokenizer["model"]["vocab"])[:12]
        tokenizer["model"]["vocab"] = {word: k for k, word in enumerate(words)}
        tokenizer["model"]["merges"] = [["a", "b"]]
    with put(root / "llama", name, text_of(data.draw(damaged(tokenizer)))), right_or_one_line("tokenizers"):
        opens_as(root / "llama")


NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1"}


def by_numpy(raw: bytes) -> dict[str, np.ndarray]:
    """Read safetensors by the format's description."""
    header, rest = header_of(raw)
    header.pop("__metadata__", None)
    return {
        key: np.frombuffer(rest[slice(*at["data_offsets"])], NUMPY[at["dtype"]]).reshape(at["shape"])
        for key, at in header.items()
        if at["dtype"] in NUMPY
    }


@fuzzed
@given(data=st.data())
def test_headers_of_weights(root, data):
    raw = (root / "lora" / "adapter_model.safetensors").read_bytes()
    raw = data.draw(
        damaged_safetensors(raw) | st.builds(lambda n: struct.pack("<Q", n) + raw[8:], st.integers(0, 2**63))
    )
    with put(root / "lora", "other.safetensors", raw) as folder, right_or_one_line("headers of weights"):
        tensors = SafeTensors(folder / "other.safetensors")
        read = {key: tensors[key] for key in tensors}
        for key, array in by_numpy(raw).items():
            assert np.array_equal(read[key].numpy(), array, equal_nan=True)


@fuzzed
@given(data=st.data())
def test_indexes(root, data):
    name = "model.safetensors.index.json"
    raw = (root / "sharded" / name).read_bytes()
    text = data.draw(damaged(json.loads(raw), 2).map(text_of) | damaged_bytes(raw))
    with put(root / "sharded", name, text) as folder, right_or_one_line("indexes"):
        pinned = Hub().resolve(str(folder))
        tensors = SafeTensors.of(LIBRARIES[1], pinned, folder)
        whole = load_file(root / "tuned" / "model.safetensors")
        assert set(tensors) == set(whole)
        assert all(torch.equal(tensors[key], tensor) for key, tensor in whole.items())


@fuzzed
@given(data=st.data())
def test_adapters(root, data):
    """What is taken is what PEFT makes of it, unless its config leaves out what its file holds."""
    folder, name = root / "lora", data.draw(st.sampled_from(["adapter_config.json", "adapter_model.safetensors"]))
    raw = (folder / name).read_bytes()
    broken = damaged(json.loads(raw)).map(text_of) if name.endswith("json") else damaged_safetensors(raw)
    with put(folder, name, data.draw(broken)), right_or_one_line("adapters"):
        tau = TaskVector.from_pretrained(folder, root / "llama").tensors
        changes = {key: tau[key] for key in tau}
        for key, change in by_peft(root, folder).items():
            near = 1e-6 * max(1.0, float(change.abs().max()))  # PEFT's is a difference of weights
            assert torch.allclose(change, changes[key], atol=near) or not change.any(), key


def by_peft(root: Path, folder: Path) -> dict[str, torch.Tensor]:
    """What an adapter changes, by the library that it was made with; nothing where that does not take it."""
    model = transformers.LlamaForCausalLM.from_pretrained(root / "llama")
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    try:
        after = peft.PeftModel.from_pretrained(model, folder).merge_and_unload().state_dict()
    except Exception:  # of a hundred kinds
        return {}
    return {key: after[key] - tensor for key, tensor in before.items() if key in after}
