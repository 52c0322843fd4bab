"""Models as people save them: marks of wrappers, parts that lack or are empty, quantised weights, two things in one."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.little import llama, lora, rename, tuned, write

from hf_bico.core.errors import PortError
from hf_bico.core.notes import noted
from hf_bico.io.adapter import WEIGHTS, one_kind
from hf_bico.io.base_names import base_of
from hf_bico.io.changes.source import open_model
from hf_bico.io.changes.vectors import TaskVector
from hf_bico.io.fits import borrowed, check_models
from hf_bico.io.hub import Hub
from hf_bico.io.models import repo_models
from hf_bico.workflows.arithmetic import extract


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A base, its fine-tune, and an adapter of it."""
    place = tmp_path_factory.mktemp("saved")
    base = llama()
    write(base, place / "base")
    write(tuned(base), place / "ft")
    lora(base, place / "lora", place / "base")
    return place


def copied(root, tmp_path, name: str = "ft"):
    return shutil.copytree(root / name, tmp_path / name)


def opened(root, folder):
    """What is known of a fine-tune, its base and a target, and the library."""
    hub = Hub()
    library, _, models = repo_models(
        [hub.resolve(str(each)) for each in (folder, root / "base", root / "base")], hub, None
    )
    check_models(library, models)
    return library, models


WRAPPED = {
    "DDP": "module.",
    "compiled": "_orig_mod.",
    "compiled DDP": "module._orig_mod.",
    "PEFT's outer model": "base_model.model.",
    "Lightning": "model.",
}


@pytest.mark.parametrize("mark", WRAPPED.values(), ids=WRAPPED)
def test_marks_of_wrappers_are_taken_off_and_said(root, tmp_path, mark):
    folder = rename(copied(root, tmp_path), lambda tensors: {mark + key: t for key, t in tensors.items()})
    with noted() as lines:
        library, models = opened(root, folder)
    tensors, whole = open_model(library, models[0], folder), load_file(root / "ft" / "model.safetensors")
    assert tensors.keys() == whole.keys() and all(torch.equal(tensors[key], whole[key]) for key in whole)
    if mark != "model.":  # a doubled one is transformers' own business
        assert models[0].own_way and len(lines) == 1 and repr(mark) in lines[0]


def test_marks_in_the_middle_of_a_name_are_taken_off(root, tmp_path):
    def wrapped(key: str) -> str:
        return "_fsdp_wrapped_module." + key.replace(
            "layers.0.", "layers.0._fsdp_wrapped_module._checkpoint_wrapped_module."
        )

    folder = rename(copied(root, tmp_path), lambda tensors: {wrapped(key): t for key, t in tensors.items()})
    library, models = opened(root, folder)
    whole = load_file(root / "ft" / "model.safetensors")
    assert all(torch.equal(t, whole[key]) for key, t in open_model(library, models[0], folder).items())


def test_a_body_saved_without_its_head_takes_its_bases(root, tmp_path):
    def bare(tensors):
        return {key.removeprefix("model."): t for key, t in tensors.items() if key != "lm_head.weight"}

    _, models = opened(root, rename(copied(root, tmp_path), bare))
    assert borrowed(*models[:2]) == {"lm_head.weight"}


def test_a_linear_map_is_never_taken_from_the_base(root, tmp_path):
    lacking = "model.layers.1.mlp.up_proj.weight"
    folder = rename(copied(root, tmp_path), lambda tensors: {k: t for k, t in tensors.items() if k != lacking})
    with pytest.raises(PortError, match=rf"{lacking} is missing"):
        opened(root, folder)


def packed(**parts):
    def change(tensors):
        found = {}
        for key, tensor in tensors.items():
            found |= (
                {key.removesuffix(".weight") + end: t for end, t in parts.items()} if "proj" in key else {key: tensor}
            )
        return {key: tensor.clone() for key, tensor in found.items()}

    return change


INTS, ONES = torch.ones(2, 16, dtype=torch.int32), torch.ones(1, 16)
QUANTISED = {
    "GPTQ, 4 bits": ({"quant_method": "gptq", "bits": 4}, {".qweight": INTS, ".qzeros": INTS, ".scales": ONES}),
    "AWQ, 4 bits": ({"quant_method": "awq", "bits": 4}, {".qweight": INTS, ".qzeros": INTS, ".scales": ONES}),
    "FP8": ({"quant_method": "fp8"}, {".weight": ONES.to(torch.float8_e4m3fn), ".weight_scale_inv": ONES}),
    "bitsandbytes, 4 bits": (
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        {".weight": INTS.to(torch.uint8), ".weight.absmax": ONES, ".weight.quant_map": ONES},
    ),
    "bitsandbytes, 8 bits": (None, {".weight": INTS.to(torch.int8), ".SCB": ONES}),
    "COMPRESSED-TENSORS": ({"quant_method": "compressed-tensors"}, {".weight_packed": INTS, ".weight_scale": ONES}),
}


@pytest.mark.parametrize("name", QUANTISED)
def test_quantised_weights_are_named_as_what_they_are(root, tmp_path, name):
    said, parts = QUANTISED[name]
    folder = rename(copied(root, tmp_path), packed(**parts))
    place = folder / "config.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | ({"quantization_config": said} if said else {})))
    with pytest.raises(PortError, match=rf"ft .* is quantised \({name}\).*as SOURCE") as found:
        opened(root, folder)
    assert "do not fit" not in str(found.value)
    hub = Hub()
    three = [hub.resolve(str(each)) for each in (root / "lora", folder, root / "base")]
    with pytest.raises(PortError, match="the full model that it was made from with base="):
        repo_models(three, hub, None)


def test_floats_that_a_config_calls_quantised_are_read(root, tmp_path):
    folder = copied(root, tmp_path)
    place = folder / "config.json"
    said = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    place.write_text(json.dumps(json.loads(place.read_text()) | {"quantization_config": said}))
    _, models = opened(root, folder)
    assert not hasattr(models[0].skeleton.config, "quantization_config")


@pytest.mark.parametrize("hit", ["lora_", "down_proj.lora_B"])
def test_an_adapter_saved_empty_by_a_sharded_trainer_is_called_that(root, tmp_path, hit):
    folder = copied(root, tmp_path, "lora")
    tensors = load_file(folder / WEIGHTS)
    save_file({k: torch.zeros(0) if hit in k else t for k, t in tensors.items()}, folder / WEIGHTS)
    with pytest.raises(PortError, match=r"are empty \(base_model.*saved by a sharded trainer.*gather"):
        opened(root, folder)


def test_a_model_saved_empty_or_with_its_adapter_beside_its_weights_is_called_that(root, tmp_path):
    folder = rename(copied(root, tmp_path), lambda tensors: {k: torch.zeros(0) for k in tensors})
    with pytest.raises(PortError, match=r"21 of 21 tensors of ft .* are empty"):
        opened(root, folder)
    shutil.copy(root / "ft" / "model.safetensors", folder)
    rename(folder, lambda tensors: tensors | {"model.layers.0.self_attn.q_proj.lora_A.default.weight": ONES})
    with pytest.raises(PortError, match=r"an adapter that is not merged \(.*merge_and_unload"):
        opened(root, folder)


def test_of_a_model_and_an_adapter_in_one_folder_one_is_taken(root, tmp_path):
    folder = copied(root, tmp_path)
    for name in ("adapter_config.json", WEIGHTS):
        shutil.copy(root / "lora" / name, folder)
    both = Hub().resolve(str(folder))
    with noted() as lines:
        whole = one_kind(both)
    assert len(lines) == 1 and "source_kind= adapter" in lines[0]
    with noted() as lines:
        assert one_kind(both, "model") == whole and WEIGHTS not in whole.files
        adapter = one_kind(both, "adapter")
    assert not lines and "model.safetensors" not in adapter.files and WEIGHTS in adapter.files
    plain = Hub().resolve(str(root / "base"))
    assert one_kind(plain) is plain
    with pytest.raises(PortError, match="holds no adapter"):
        one_kind(plain, "adapter")
    with pytest.raises(PortError, match="give model or adapter"):
        one_kind(plain, "both")


@pytest.mark.parametrize("where", ["folder", "repo"])
def test_a_checkpoint_in_a_folder_of_the_repo_is_chosen(root, tmp_path, where):
    place = tmp_path / "run"
    shutil.copytree(root / "ft", place / "checkpoint-500")
    (place / "README.md").write_text("---\nlicense: mit\n---\n")
    name = str(place)
    if where == "repo":
        hub = Hub("hf_local_demo")
        name = "demo/run-with-checkpoints"
        hub.api.create_repo(name)
        hub.api.upload_folder(folder_path=place, repo_id=name)
    with pytest.raises(PortError, match=r"there is one in checkpoint-500: .*"):
        extract(name, str(root / "base"), tmp_path / "no.safetensors", Hub())
    with pytest.raises(PortError, match=r"has no folder 'checkpoint-9'; it has checkpoint-500"):
        extract(name, str(root / "base"), tmp_path / "no.safetensors", Hub(), "checkpoint-9")
    vector, count = extract(name, str(root / "base"), tmp_path / "tau.safetensors", Hub(), "checkpoint-500")
    assert count == 14 and "checkpoint-500" in vector.lineage["source"]


def said_base(root, tmp_path, base: str, revision: str | None = None):
    folder = copied(root, tmp_path, "lora")
    place = folder / "adapter_config.json"
    place.write_text(
        json.dumps(json.loads(place.read_text()) | {"base_model_name_or_path": base, "revision": revision})
    )
    hub = Hub()
    return base_of(hub.resolve(str(folder)), hub)


def test_an_adapter_says_its_base(root, tmp_path):
    with noted() as lines:
        assert said_base(root, tmp_path / "a", str(root / "base"), "unsloth") == str(root / "base")
    assert len(lines) == 1 and "no revision 'unsloth'" in lines[0]
    assert said_base(root, tmp_path / "b", "org/base", "v2") == "org/base@v2"
    with pytest.raises(PortError, match=r"trained on /home/me/base, a folder that is not on this machine.*base="):
        said_base(root, tmp_path / "c", "/home/me/base")
    with pytest.raises(PortError, match=r"4 bits.*with base=, such as unsloth/tiny$"):
        said_base(root, tmp_path / "d", "unsloth/tiny-unsloth-bnb-4bit")


@pytest.mark.parametrize(("file", "how"), [("pytorch_model.bin", "pickled"), ("model-Q4_K_M.gguf", "gguf_file")])
def test_weights_of_another_kind_are_refused_with_how_to_convert_them(root, tmp_path, file, how):
    folder = copied(root, tmp_path)
    (folder / "model.safetensors").rename(folder / file)
    with pytest.raises(PortError, match=rf"{how}.*save_pretrained\(FOLDER\)"):
        opened(root, folder)


def test_weights_of_gguf_alone_are_called_that(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "model-Q4_K_M.gguf").write_bytes(b"GGUF")
    hub = Hub()
    with pytest.raises(PortError, match=r"own .* has only quantised GGUF weights \(model-Q4_K_M.gguf\): convert them"):
        repo_models([hub.resolve(str(tmp_path / "own"))], hub, None)


def test_a_model_that_runs_its_own_code_is_refused_without_an_option_that_does_not_exist(root, tmp_path):
    folder = copied(root, tmp_path)
    place = folder / "config.json"
    said = {"model_type": "mine", "auto_map": {"AutoConfig": "configuration_mine.Mine"}}
    place.write_text(json.dumps(json.loads(place.read_text()) | said))
    with pytest.raises(PortError, match="a mine is run by code of its own repo") as found:
        opened(root, folder)
    assert "trust" not in str(found.value)


NAMES = {
    "DDP": lambda key: "module." + key,
    "compiled inside": lambda key: key.replace("base_model.model.", "base_model.model._orig_mod."),
    "of a live model": lambda key: key.replace(".weight", ".default.weight"),
    "without PEFT's prefix": lambda key: key.removeprefix("base_model.model."),
}


@pytest.mark.parametrize("change", NAMES.values(), ids=NAMES)
def test_an_adapter_is_read_under_other_names_than_pefts(root, tmp_path, change):
    folder = copied(root, tmp_path, "lora")
    save_file({change(key): t for key, t in load_file(folder / WEIGHTS).items()}, folder / WEIGHTS)
    with noted() as lines:
        mine, theirs = (TaskVector.from_pretrained(place).tensors for place in (folder, root / "lora"))
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in theirs)
    assert any(theirs[key].any() for key in theirs) and len(lines) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"trainable_token_indices": {"embed_tokens": [500, 503]}},
        {"modules_to_save": ["embed_tokens", "lm_head"]},
    ],
    ids=["LoRA of embeddings", "tokens one by one", "embeddings whole"],
)
def test_an_adapter_of_more_tokens_than_its_base_is_read(root, tmp_path, options):
    larger = llama()
    larger.resize_token_embeddings(504, mean_resizing=False)
    whole = lora(larger, tmp_path / "lora", root / "base", **options).state_dict()
    tau = TaskVector.from_pretrained(tmp_path / "lora").tensors
    base = load_file(root / "base" / "model.safetensors")
    for key in (key for key in base if "proj" in key):
        assert torch.allclose(tau[key], whole[key] - base[key], atol=1e-6), key
    assert "model.embed_tokens.weight" not in tau


@pytest.mark.parametrize("options", [{"layers_to_transform": [1]}, {"target_modules": "all-linear"}, {"bias": "all"}])
def test_what_an_adapter_leaves_alone_has_no_change(root, tmp_path, options):
    whole = lora(llama(), tmp_path / "lora", root / "base", **options).state_dict()
    tau, base = TaskVector.from_pretrained(tmp_path / "lora").tensors, load_file(root / "base" / "model.safetensors")
    assert all(torch.allclose(tau[key], whole[key] - base[key], atol=1e-6) for key in base)
