"""A delta that is not as it was, or whose base is not, is refused before anything is built."""

import json
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from support.deltas import state
from support.repos import NAMES, write_family

import hf_bico
from hf_bico.core.errors import PortError
from hf_bico.families import Transformers
from hf_bico.io.hub import Hub
from hf_bico.io.reference import sha256
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.port import run


def edited(root, tmp_path, change) -> str:
    folder = tmp_path / "edited"
    shutil.copytree(root / "delta", folder)
    change(folder)
    return str(folder)


def tensors_of(folder, change) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def told(folder, change) -> None:
    path = folder / "hf_bico.json"
    data = json.loads(path.read_text())
    change(data["delta"])
    path.write_text(json.dumps(data))


def cut(folder) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def renamed(tensors) -> None:
    for key in [key for key in tensors if "layers.0.mlp.up_proj" in key]:
        tensors[key.replace("layers.0", "layers.9")] = tensors.pop(key)


def spoiled(tensors) -> None:
    next(tensor for key, tensor in tensors.items() if key.endswith("lokr_w2"))[0, 0] = float("nan")


def reshaped(tensors) -> None:
    key = next(key for key in tensors if key.endswith("lokr_w2"))
    tensors[key] = tensors[key][:-1].clone()


def scaled(tensors) -> None:
    next(tensor for key, tensor in tensors.items() if key.endswith("lokr_w1"))[0, 0] = 7.0


def flipped(tensors) -> None:
    next(tensor for key, tensor in tensors.items() if key.endswith("lokr_w2"))[0, 0] += 1.0


def magnitude(tensors) -> None:
    tensors["base_model.model.model.layers.0.mlp.up_proj.lora_magnitude_vector"] = torch.ones(8)


def configured(folder, change) -> None:
    """An edited adapter_config.json, whose sha256 is told too."""
    path = folder / "adapter_config.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    told(folder, lambda record: record["files"].update({path.name: sha256(path)}))


MISTAKES = {
    "stray": (lambda folder: tensors_of(folder, magnitude), "not part of a delta"),
    "another config": (lambda folder: (folder / "adapter_config.json").write_text("{}"), "sha256 differs"),
    "scaled by config": (lambda folder: configured(folder, lambda data: data.update(alpha=7)), "it is scaled"),
    "scaled by pattern": (lambda folder: configured(folder, lambda data: data.update(alpha_pattern={"(": 2})), "scale"),
    "a list of files": (lambda folder: told(folder, lambda data: data.update(files=["x"])), "not that of a delta repo"),
    "for what": (
        lambda folder: told(folder, lambda data: data["purpose"].update(kind="soup")),
        "not that of a delta repo",
    ),
    "truncated": (cut, "not a readable safetensors file"),
    "renamed": (lambda folder: tensors_of(folder, renamed), "missing.*unknown"),
    "lost": (lambda folder: tensors_of(folder, lambda tensors: tensors.popitem()), "not a plain change|missing"),
    "added": (
        lambda folder: tensors_of(
            folder, lambda tensors: tensors.update({"base_model.model.model.norm.weight": torch.ones(3)})
        ),
        "model.norm.weight is unknown",
    ),
    "nan": (lambda folder: tensors_of(folder, spoiled), "NaN or Inf"),
    "reshaped": (lambda folder: tensors_of(folder, reshaped), "does not fit"),
    "scaled": (lambda folder: tensors_of(folder, scaled), "not a plain change"),
    "elsewhere": (
        lambda folder: told(folder, lambda data: data["files"].update({"../x.safetensors": "0"})),
        "not a file",
    ),
    "another base": (lambda folder: told(folder, lambda data: data.update(commit="0" * 40)), "config.json is of"),
    "no delta": (lambda folder: (folder / "hf_bico.json").unlink(), "not a delta repo"),
    "half a record": (lambda folder: told(folder, lambda data: data.pop("fingerprint")), "not that of a delta repo"),
    "no weights": (lambda folder: (folder / "adapter_model.safetensors").unlink(), "missing"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_not_as_it_was_is_refused_before_anything_is_built(mistake, llama, tmp_path, monkeypatch):
    change, why = MISTAKES[mistake]
    monkeypatch.setattr(Transformers, "load", lambda *args: pytest.fail("a model was built"))
    with pytest.raises(PortError, match=why):
        hf_bico.from_pretrained(edited(llama[1], tmp_path, change), device="cpu")


def test_full_verification_sees_one_number(llama, tmp_path):
    folder = edited(llama[1], tmp_path, lambda folder: tensors_of(folder, flipped))
    hf_bico.from_pretrained(folder, device="cpu")
    with pytest.raises(PortError, match="sha256 differs"):
        hf_bico.from_pretrained(folder, device="cpu", verify="full")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"alpha": float("nan")}, "not a scale"),
        ({"dtype": "int8"}, "not a floating"),
        ({"dtype": "soup"}, "not a floating"),
        ({"verify": "no"}, "fast or full"),
        ({"merge": "soup"}, "dare_ties"),
        ({"weights": [1.0, 2.0]}, "2 weights and 1 deltas"),
        ({"density": 0.0}, "share"),
        ({"device": "abacus"}, "no device"),
    ],
)
def test_options_that_are_none(options, why, llama):
    with pytest.raises(PortError, match=why):
        hf_bico.from_pretrained(llama[1] / "delta", **options)


def test_shards_and_an_index_that_leads_elsewhere(world, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_bico.io.changes.peft.SHARD", "20KB")
    run(
        PortConfig(
            str(world / "ft"),
            str(world / "plus"),
            str(world / "task"),
            method="bico",
            base=str(world / "base"),
            n=20,
            form="delta",
            output=tmp_path / "delta",
        ),
        Hub(),
    )
    assert len(list((tmp_path / "delta").glob("delta-*-of-*.safetensors"))) > 1
    opened = hf_bico.from_pretrained(tmp_path / "delta", base=str(world / "plus"), device="cpu")
    assert not torch.equal(
        opened.model.state_dict()["visual.proj"],
        load_file(world / "plus" / "open_clip_model.safetensors")["visual.proj"],
    )
    index = tmp_path / "delta" / "delta.safetensors.index.json"
    data = json.loads(index.read_text())
    data["weight_map"][next(iter(data["weight_map"]))] = "../x.safetensors"
    index.write_text(json.dumps(data))
    for why in ("sha256 differs", r"\.\./x\.safetensors"):
        with pytest.raises(PortError, match=why):
            hf_bico.from_pretrained(tmp_path / "delta", base=str(world / "plus"), device="cpu")
        told(tmp_path / "delta", lambda data: data["files"].update({index.name: sha256(index)}))


def test_a_wider_model_keeps_what_a_narrow_base_would_round_away(llama, tmp_path):
    _, root = llama
    base = transformers.LlamaForCausalLM.from_pretrained(root / "plus").bfloat16()
    base.save_pretrained(tmp_path / "narrow")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(root / "plus" / name, tmp_path / "narrow" / name)
    run(
        PortConfig(
            str(root / "tuned"),
            str(tmp_path / "narrow"),
            str(root / "task"),
            method="bico",
            base=str(root / "base"),
            n=8,
            form="delta",
            dtype="float32",
            output=tmp_path / "delta",
        ),
        Hub(),
    )
    place = {"base": tmp_path / "narrow", "device": "cpu"}
    wide = state(hf_bico.from_pretrained(tmp_path / "delta", alpha=0.01, dtype=torch.float32, **place))
    tau = hf_bico.from_pretrained(tmp_path / "delta", delta_only=True, **place)
    for key, change in tau.tensors.items():
        assert torch.allclose(wide[key] - base.state_dict()[key].float(), 0.01 * change, atol=1e-7)
    native = hf_bico.from_pretrained(tmp_path / "delta", **place)
    assert {tensor.dtype for tensor in state(native).values()} == {torch.bfloat16}


def test_a_base_of_the_same_weights_and_another_config_is_another_function(llama, tmp_path):
    _, root = llama
    shutil.copytree(root / "plus", tmp_path / "plus")
    config = tmp_path / "plus" / "config.json"
    data = json.loads(config.read_text())
    for change, refused in (({"transformers_version": "4.0.0"}, False), ({"rms_norm_eps": 0.5}, True)):
        config.write_text(json.dumps(data | change))
        if refused:
            with pytest.raises(PortError, match="another function"):
                hf_bico.from_pretrained(root / "delta", base=tmp_path / "plus", device="cpu")
        else:
            hf_bico.from_pretrained(root / "delta", base=tmp_path / "plus", device="cpu")


def test_a_record_may_not_change_the_bases_config(tmp_path, hub):
    write_family(tmp_path, "bert")
    run(
        PortConfig(
            str(tmp_path / "ft"),
            str(tmp_path / "plus"),
            str(tmp_path / "task"),
            base=str(tmp_path / "base"),
            n=22,
            method="bico",
            form="delta",
            output=tmp_path / "delta",
            allow_regression=True,  # there is nothing to learn in these labels
        ),
        Hub(),
    )
    place = {"base": tmp_path / "plus", "device": "cpu"}
    before = hf_bico.from_pretrained(tmp_path / "delta", **place).model.config
    told(tmp_path / "delta", lambda data: data["purpose"]["config"].update(hidden_act="relu", quantization_config={}))
    after = hf_bico.from_pretrained(tmp_path / "delta", **place).model.config
    assert after.to_dict() == before.to_dict() and tuple(after.id2label.values()) == NAMES
    config = json.loads((tmp_path / "delta" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] is None  # a folder's name may be another repo's


def test_a_port_of_scale_0_is_no_delta(llama, tmp_path):
    _, root = llama
    with pytest.raises(PortError, match="nothing of the target changes"):
        run(
            PortConfig(
                str(root / "tuned"),
                str(root / "plus"),
                str(root / "task"),
                method="bico",
                base=str(root / "base"),
                n=8,
                form="delta",
                alpha=0.0,
                output=tmp_path / "delta",
            ),
            Hub(),
        )
    assert not (tmp_path / "delta").exists()
