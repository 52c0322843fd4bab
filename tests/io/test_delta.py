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
from huggingface_hub import HfApi, ModelCard, hf_hub_download, snapshot_download
from peft.utils import merge_utils
from safetensors.torch import load_file, save_file
from support.adapters import write_adapter
from support.commands import hf_bico as command
from support.family_twins import CASES
from support.hub import client_env
from support.repos import NAMES, batch, processor_of, write_family
from test_forms import SOURCES, publish

import hf_bico
from hf_bico import TaskVector
from hf_bico.core.errors import PortError
from hf_bico.families import Transformers
from hf_bico.io.hub import Hub
from hf_bico.io.reference import sha256
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.port import run

ONE_EACH = (
    "vit",
    "dinov2-swiglu",
    "timm",
    "clip-classifier",
    "bert",
    "roberta",
    "distilbert",
    "modernbert",
    "t5-gated",
    "gpt2",
    "llama",
    "qwen2",
    "gemma",
)
"""A family of every build: with and without biases, some of both, transposed, fused, tied."""
AUTO = {
    "text": "AutoModelForSequenceClassification",
    "image": "AutoModelForImageClassification",
    "causal": "AutoModelForCausalLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
}


def ported(repo: str, form: str, source: str = "ft", **options) -> dict:
    config = PortConfig(
        f"{repo}-{source}",
        f"{repo}-plus",
        f"{repo}-task",
        base=f"{repo}-base",
        n=22,
        form=form,
        push_to=f"{repo}-as-{form}",
        allow_regression=True,
        **options,
    )
    return run(config, Hub()).report


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
    write_adapter(tmp_path, family, merge=False, **SOURCES[family])
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


@pytest.fixture(scope="module")
def llama(hub, tmp_path_factory):
    """The repos of a Llama, its delta ported, and folders of that delta and of its base."""
    root = tmp_path_factory.mktemp("delta")
    write_family(root, "llama")
    (root / "ft").rename(root / "tuned")
    repo = publish(root, "llama", "tuned", "change")
    ported(repo, "delta", "tuned", dtype="float32")
    shutil.copytree(snapshot_download(f"{repo}-as-delta"), root / "delta")
    return repo, root


def state(opened) -> dict[str, torch.Tensor]:
    return opened.model.state_dict()


def same(a: dict, b: dict) -> bool:
    """Bit for bit: a zero's sign counts."""
    return a.keys() == b.keys() and all(torch.equal(a[key].view(torch.int32), b[key].view(torch.int32)) for key in a)


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
    "stray": (lambda folder: tensors_of(folder, magnitude), "no part of a delta"),
    "another config": (lambda folder: (folder / "adapter_config.json").write_text("{}"), "sha256 differs"),
    "scaled by config": (lambda folder: configured(folder, lambda data: data.update(alpha=7)), "it is scaled"),
    "scaled by pattern": (lambda folder: configured(folder, lambda data: data.update(alpha_pattern={"(": 2})), "scale"),
    "a list of files": (lambda folder: told(folder, lambda data: data.update(files=["x"])), "does not say"),
    "for what": (lambda folder: told(folder, lambda data: data["purpose"].update(kind="soup")), "does not say"),
    "truncated": (cut, "not a readable safetensors file"),
    "renamed": (lambda folder: tensors_of(folder, renamed), "missing.*unknown"),
    "lost": (lambda folder: tensors_of(folder, lambda tensors: tensors.popitem()), "no plain change|missing"),
    "added": (
        lambda folder: tensors_of(
            folder, lambda tensors: tensors.update({"base_model.model.model.norm.weight": torch.ones(3)})
        ),
        "model.norm.weight is unknown",
    ),
    "nan": (lambda folder: tensors_of(folder, spoiled), "NaN or Inf"),
    "reshaped": (lambda folder: tensors_of(folder, reshaped), "does not fit"),
    "scaled": (lambda folder: tensors_of(folder, scaled), "no plain change"),
    "elsewhere": (lambda folder: told(folder, lambda data: data["files"].update({"../x.safetensors": "0"})), "no file"),
    "another base": (lambda folder: told(folder, lambda data: data.update(commit="0" * 40)), "config.json is of"),
    "no delta": (lambda folder: (folder / "hf_bico.json").unlink(), "no delta repo"),
    "half a record": (lambda folder: told(folder, lambda data: data.pop("fingerprint")), "does not say"),
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
        ({"alpha": float("nan")}, "no scale"),
        ({"dtype": "int8"}, "no floating"),
        ({"dtype": "soup"}, "no floating"),
        ({"verify": "no"}, "fast or full"),
        ({"merge": "soup"}, "dare_ties"),
        ({"weights": [1.0, 2.0]}, "weights are 2"),
        ({"density": 0.0}, "share"),
        ({"device": "abacus"}, "no device"),
    ],
)
def test_options_that_are_none(options, why, llama):
    with pytest.raises(PortError, match=why):
        hf_bico.from_pretrained(llama[1] / "delta", **options)


@pytest.fixture(scope="module")
def two(llama, tmp_path_factory):
    """Two deltas of one base."""
    repo, root = llama
    other = tmp_path_factory.mktemp("other") / "delta"
    run(
        PortConfig(
            f"{repo}-tuned",
            f"{repo}-plus",
            f"{repo}-task",
            base=f"{repo}-base",
            n=8,
            method="theseus",
            form="delta",
            dtype="float32",
            output=other,
        ),
        Hub(),
    )
    return root / "delta", other


def test_deltas_of_one_base_add_up(two):
    base = state(hf_bico.from_pretrained(two[0], alpha=0.0, device="cpu"))
    a, b = (hf_bico.from_pretrained(each, delta_only=True) for each in two)
    got = state(hf_bico.from_pretrained(two, weights=[0.5, -2.0], device="cpu"))
    for key in base:
        change = sum(
            weight * vector.tensors[key] if key in vector.tensors else 0.0 for weight, vector in ((0.5, a), (-2.0, b))
        )
        assert torch.allclose(got[key], base[key] + change, atol=1e-6)
    both = hf_bico.from_pretrained(two, weights=[0.5, -2.0], delta_only=True)
    assert both.norm() == pytest.approx((0.5 * a - 2 * b).norm())


@pytest.mark.parametrize("merge", ["ties", "dare_linear", "dare_ties"])
def test_merges_are_pefts(merge, two):
    a, b = (hf_bico.from_pretrained(each, delta_only=True) for each in two)
    got, again = (
        hf_bico.from_pretrained(two, weights=[1.0, 0.5], merge=merge, density=0.3, seed=3, delta_only=True)
        for _ in range(2)
    )
    other = hf_bico.from_pretrained(two, weights=[1.0, 0.5], merge=merge, density=0.3, seed=4, delta_only=True)
    key = next(iter(a.tensors))
    parts = [a.tensors[key], b.tensors[key]]
    assert torch.equal(got.tensors[key], again.tensors[key])
    if merge == "ties":
        assert torch.equal(got.tensors[key], merge_utils.ties(parts, torch.tensor([1.0, 0.5]), 0.3))
    else:
        assert not torch.equal(got.tensors[key], other.tensors[key])
    whole = hf_bico.from_pretrained(two, weights=[1.0, 0.5], merge=merge, density=1.0, delta_only=True)
    if merge == "dare_linear":
        assert torch.allclose(whole.tensors[key], parts[0] + 0.5 * parts[1], atol=1e-7)


def test_vectors_are_a_vector_space(two, tmp_path):
    a, b = (TaskVector.from_pretrained(each) for each in two)
    assert (a + b - b - a).norm() < 1e-6 * a.norm()
    assert (2.0 * a * 0.5 - a).norm() == 0 and (-a).norm() == a.norm() > 0
    assert (a + b).norm() <= a.norm() + b.norm()
    assert (a - b).save(tmp_path / "tau.safetensors") > 0
    kept = TaskVector.from_pretrained(tmp_path / "tau.safetensors")
    assert (kept + b - a).norm() < 1e-6 * a.norm() and kept.lineage["base"] == a.lineage["base"]
    with pytest.raises(PortError, match="exists"):
        a.save(tmp_path / "tau.safetensors")


def test_vectors_of_two_bases_do_not_add_up(llama, two):
    repo, _ = llama
    fine_tune = TaskVector.from_pretrained(f"{repo}-tuned", base=f"{repo}-base")
    assert fine_tune.norm() > 0
    with pytest.raises(PortError, match="different bases"):
        fine_tune + TaskVector.from_pretrained(two[0])


def test_a_delta_applied_is_the_model_it_opens_as(llama, tmp_path, capsys, monkeypatch):
    _, root = llama
    ran = command(capsys, monkeypatch, "apply", root / "delta", "--to", root / "plus", "--output", tmp_path / "sum")
    assert ran.code == 0, ran.err
    whole = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "sum").state_dict()
    assert same(whole, state(hf_bico.from_pretrained(root / "delta", device="cpu")))
    ran = command(capsys, monkeypatch, "apply", root / "delta", "--to", root / "base", "--output", tmp_path / "no")
    assert ran.code == 2 and "is not the base of" in ran.err and not (tmp_path / "no").exists()


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
            "--dataset",
            "demo/task",
            "-n",
            20,
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
    with pytest.raises(PortError, match="no delta repo"):
        hf_bico.from_pretrained("demo/clip-delta")


def test_shards_and_an_index_that_leads_elsewhere(world, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_bico.io.changes.peft.SHARD", "20KB")
    run(
        PortConfig(
            str(world / "ft"),
            str(world / "plus"),
            str(world / "task"),
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
            form="delta",
            output=tmp_path / "delta",
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


def test_dare_leaves_the_generator_as_it_was_and_one_delta_is_merged_too(two):
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    one = hf_bico.from_pretrained(two[0], merge="dare_linear", density=0.2, delta_only=True)
    plain = hf_bico.from_pretrained(two[0], delta_only=True)
    key = next(iter(plain.tensors))
    assert 0.1 < float((one.tensors[key] != 0).float().mean()) < 0.4
    assert torch.equal(torch.rand(3), wanted)


def test_what_no_vector_can_do(two, tmp_path):
    tau = TaskVector.from_pretrained(two[0])
    for wrong in (lambda: tau + 1, lambda: tau * "x"):
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(PortError, match="no scale"):
        tau * float("inf")
    with pytest.raises(PortError, match="NaN or Inf"):
        TaskVector({"x": torch.tensor([float("nan")])}, {}).save(tmp_path / "nan.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_port_of_scale_0_is_no_delta(llama, tmp_path):
    _, root = llama
    with pytest.raises(PortError, match="nothing of the target changes"):
        run(
            PortConfig(
                str(root / "tuned"),
                str(root / "plus"),
                str(root / "task"),
                base=str(root / "base"),
                n=8,
                form="delta",
                alpha=0.0,
                output=tmp_path / "delta",
            ),
            Hub(),
        )
    assert not (tmp_path / "delta").exists()
