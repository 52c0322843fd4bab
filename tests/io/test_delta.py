"""Delta repos: exact carriers, opened by stock loaders and by ours, and refused where anything is not as it was."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import peft
import pytest
import torch
import transformers
from huggingface_hub import HfApi, ModelCard, hf_hub_download
from safetensors.torch import load_file, save_file
from support.adapters import write_adapter
from support.commands import hf_bico as command
from support.deltas import LORAS, ported, publish, same, state
from support.family_twins import CASES
from support.hub import client_env
from support.repos import NAMES, batch, processor_of, write_family

import hf_bico
from hf_bico.core.errors import PortError
from hf_bico.io.hub import Hub
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.port import run

ONE_EACH = (
    "timm",
    "clip-classifier",
    "roberta",
    "modernbert",
    "t5-gated",
    "gpt2",
    "llama",
    "qwen2",
)
"""A family of every build: with and without biases, some of both, transposed, fused, tied."""
AUTO = {
    "text": "AutoModelForSequenceClassification",
    "image": "AutoModelForImageClassification",
    "causal": "AutoModelForCausalLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
}


def logits(kind: str, *models) -> list[torch.Tensor]:
    """Of models of a kind, on the same samples."""
    inputs, _ = batch(kind, processor_of(kind))
    asked = inputs | ({"decoder_input_ids": inputs["input_ids"][:, :3]} if kind == "seq2seq" else {})
    with torch.no_grad():
        return [model.eval()(**asked).logits for model in models]


def built(kind: str) -> dict:
    return {"num_labels": len(NAMES)} if kind in ("text", "image") else {}


@pytest.mark.parametrize("family", ONE_EACH)
def test_every_loader_gives_the_model_that_was_scored(family, tmp_path, hub):
    write_family(tmp_path, family)
    repo, case = publish(tmp_path, family, "ft", "change"), CASES[family]
    told, whole = (ported(repo, form) for form in ("delta", "model"))
    cls, more = getattr(transformers, case.cls), built(case.kind)
    auto = getattr(transformers, AUTO[case.kind])
    ours = hf_bico.from_pretrained(f"{repo}-as-delta", device="cpu")
    plus = cls.from_pretrained(f"{repo}-plus", **more)
    before, full, mine, stock, through_peft = logits(
        case.kind,
        plus,
        cls.from_pretrained(f"{repo}-as-model"),
        ours.model,
        auto.from_pretrained(f"{repo}-as-delta", **more),
        peft.PeftModel.from_pretrained(cls.from_pretrained(f"{repo}-plus", **more), f"{repo}-as-delta"),
    )
    moved = (before - full).norm()
    for other in (stock, through_peft):
        assert (other - mine).norm() < 1e-4 * moved
    assert 0 < (mine - full).norm() < 0.01 * moved  # bfloat16
    assert told["task_vector"]["written"]["mean_error"] == pytest.approx(2**-9, rel=0.5)
    assert told["evaluation"]["ported"]["value"] == pytest.approx(whole["evaluation"]["ported"]["value"], rel=0.02)
    assert type(ours.model) is cls


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_a_lora_stays_one_at_its_rank(family, tmp_path, hub):
    write_family(tmp_path, family)
    write_adapter(tmp_path, family, merge=False, **LORAS[family])
    repo, case = publish(tmp_path, family, "lora", "change"), CASES[family]
    for form, options in (("delta", {"dtype": "float32"}), ("model", {})):
        ported(repo, form, "lora", **options)
    config = json.loads(Path(hf_hub_download(f"{repo}-as-delta", "adapter_config.json")).read_text())
    assert config["peft_type"] == "LORA" and {config["r"], *config["rank_pattern"].values()} <= {2, 3}
    cls, more = getattr(transformers, case.cls), built(case.kind)
    before, full, mine, stock = logits(
        case.kind,
        cls.from_pretrained(f"{repo}-plus", **more),
        cls.from_pretrained(f"{repo}-as-model"),
        hf_bico.from_pretrained(f"{repo}-as-delta", device="cpu").model,
        cls.from_pretrained(f"{repo}-as-delta", **more),
    )
    assert max((mine - full).norm(), (stock - full).norm()) < 1e-4 * (before - full).norm()


def test_scale_dtype_and_what_the_native_loader_gives(llama):
    repo, root = llama
    base = transformers.LlamaForCausalLM.from_pretrained(root / "plus").state_dict()
    none, half, whole = (
        state(hf_bico.from_pretrained(f"{repo}-as-delta", device="cpu", alpha=alpha)) for alpha in (0.0, 0.5, 1.0)
    )
    assert same(none, base) and not same(whole, base)
    for key in base:
        assert torch.allclose(half[key] - base[key], (whole[key] - base[key]) / 2, atol=1e-7)
    opened = hf_bico.from_pretrained(root / "delta", device="cpu", dtype="bfloat16")
    assert {tensor.dtype for tensor in state(opened).values()} == {torch.bfloat16} and not opened.model.training
    assert all(torch.equal(state(opened)[key], whole[key].bfloat16()) for key in whole)  # rounded once
    assert opened.tokenizer("a word")["input_ids"] and opened.preprocess is None
    assert opened.model.config._name_or_path


def test_negative_zeros_of_the_base_survive_scale_0(llama, tmp_path):
    _, root = llama
    shutil.copytree(root / "plus", tmp_path / "plus")
    for path in (tmp_path / "plus").glob("model-*.safetensors"):
        tensors = load_file(path)
        for tensor in tensors.values():
            tensor.flatten()[0] = -0.0
        save_file(tensors, path, metadata={"format": "pt"})
    run(
        PortConfig(
            str(root / "tuned"),
            str(tmp_path / "plus"),
            str(root / "task"),
            method="bico",
            base=str(root / "base"),
            n=8,
            form="delta",
            output=tmp_path / "delta",
        ),
        Hub(),
    )
    with pytest.raises(PortError, match="base="):  # a folder has no commit
        hf_bico.from_pretrained(tmp_path / "delta", device="cpu")
    base = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "plus").state_dict()
    assert same(
        base, state(hf_bico.from_pretrained(tmp_path / "delta", base=str(tmp_path / "plus"), alpha=0.0, device="cpu"))
    )


def test_the_base_is_taken_at_its_commit_and_another_is_refused(llama):
    repo, root = llama
    api, delta, wanted = HfApi(), f"{repo}-as-delta", state(hf_bico.from_pretrained(f"{repo}-as-delta", device="cpu"))
    first, then = api.repo_info(f"{repo}-plus").sha, api.repo_info(delta).sha
    tensors = {path.name: load_file(path) for path in (root / "plus").glob("model-*.safetensors")}
    name, shard = next((name, shard) for name, shard in tensors.items() if any("up_proj" in key for key in shard))
    changed = {key: 1.5 * tensor if "up_proj" in key else tensor for key, tensor in shard.items()}
    save_file(changed, root / name, metadata={"format": "pt"})
    later = api.upload_file(path_or_fileobj=root / name, path_in_repo=name, repo_id=f"{repo}-plus").oid
    assert first != later
    assert same(state(hf_bico.from_pretrained(delta, device="cpu")), wanted)
    with pytest.raises(PortError) as refused:
        hf_bico.from_pretrained(delta, base=f"{repo}-plus", device="cpu")
    assert first in str(refused.value) and later in str(refused.value)
    moved = api.upload_file(path_or_fileobj=b"more", path_in_repo="note.txt", repo_id=delta).oid
    for opened in (
        hf_bico.from_pretrained(delta, revision=then, device="cpu"),
        hf_bico.from_pretrained(f"hf://{delta}@{moved}", device="cpu", verify="full"),
        hf_bico.from_pretrained(delta, base=f"{repo}-plus@{first}", device="cpu"),
    ):
        assert same(state(opened), wanted)
    with pytest.raises(PortError, match="names one itself"):
        hf_bico.from_pretrained(f"{delta}@{then}", revision=moved)
    api.upload_file(path_or_fileobj=(root / "plus" / name), path_in_repo=name, repo_id=f"{repo}-plus")


def test_what_was_opened_once_opens_offline(llama, hub, tmp_path):
    repo, _ = llama
    code = f"""
import hf_bico
model = hf_bico.from_pretrained("{repo}-as-delta", device="cpu").model
print(sum(float(p.abs().sum()) for p in model.parameters()))
"""
    said = []
    for offline in ("0", "1"):
        env = client_env(hub, tmp_path / "home") | {"HF_HUB_OFFLINE": offline}
        env |= {"HF_ENDPOINT": "http://127.0.0.1:9"} if offline == "1" else {}
        ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
        said.append(ran.stdout)
        assert ran.returncode == 0, ran.stderr
    assert said[0] == said[1]


def test_open_clips_delta_is_ours_and_opens_as_the_model(world, tmp_path, capsys, monkeypatch):
    for form in ("model", "delta"):
        ran = command(
            capsys,
            monkeypatch,
            "port",
            "demo/ft",
            "--base",
            "demo/base",
            "--to",
            "demo/plus",
            "--method",
            "bico",
            "--dataset",
            "demo/task",
            "-n",
            20,
            "--method",
            "bico",
            "--as",
            form,
            "--output",
            tmp_path / form,
            "--push-to",
            f"demo/clip-{form}",
            "--allow-regression",
            *(["--dtype", "float32"] if form == "delta" else []),
        )
        assert ran.code == 0, ran.err
    opened = hf_bico.from_pretrained("demo/clip-delta", device="cpu", verify="full")
    whole = load_file(tmp_path / "model" / "open_clip_model.safetensors")
    assert same(whole, {key: opened.model.state_dict()[key] for key in whole})
    assert callable(opened.preprocess) and opened.tokenizer(["a circle"]).shape[0] == 1
    stored = load_file(tmp_path / "delta" / "delta.safetensors")
    assert stored and all(tensor.any() for tensor in stored.values()) and set(stored) < set(whole)
    card = ModelCard.load("demo/clip-delta")
    assert (card.data.library_name, card.data.base_model_relation) == ("hf-bico", "adapter")
    assert 'hf_bico.from_pretrained("demo/clip-delta")' in card.text
    ran = command(
        capsys,
        monkeypatch,
        "port",
        "demo/ft",
        "--base",
        "demo/base",
        "--to",
        "demo/plus",
        "--dataset",
        "demo/task",
        "-n",
        20,
        "--push-to",
        "demo/clip-delta",
        "--allow-regression",
    )
    assert ran.code == 0, ran.err  # in another form: nothing of the delta stays beside it
    files = set(HfApi().list_repo_files("demo/clip-delta"))
    assert "open_clip_model.safetensors" in files and "delta.safetensors" not in files
    with pytest.raises(PortError, match="not a delta repo"):
        hf_bico.from_pretrained("demo/clip-delta")
