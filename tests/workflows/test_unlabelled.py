"""Samples without labels beside the others, through the real command: what is told of them, what is refused."""

import shlex
import shutil

import datasets
import numpy as np
import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from safetensors.torch import load_file, save_file
from support.commands import assert_refused, hf_bico, json_of
from support.refusals import rewrite
from support.repos import rows, write_family
from support.world import shape

from hf_bico import PortError
from hf_bico.io.hub import Hub
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.port import run

WORDS = ("demo/ft", "--to", "demo/plus", "--dataset", "demo/task", "-n", "20", "--head", "zero-shot")
WORDS = (*WORDS, "--allow-regression")
RESPONSE = ("--method", "response", "--set", "ridge=1.0")
MORE = ("--unlabelled", "demo/more", "--unlabelled-n", "9")


@pytest.fixture(scope="module")
def more(world, tmp_path_factory):
    """Shapes of our own without labels: demo/more on the Hub, and its folder."""
    folder, generator = tmp_path_factory.mktemp("more"), np.random.default_rng(7)
    pictures = [shape(i % 4, generator) for i in range(30)]
    features = datasets.Features(picture=datasets.Image(), note=datasets.Value("string"))
    table = datasets.Dataset.from_dict({"picture": pictures, "note": ["a shape"] * 30}, features=features)
    (folder / "data").mkdir()
    table.to_parquet(folder / "data" / "pool-00000-of-00001.parquet")
    api = HfApi()
    api.create_repo("demo/more", repo_type="dataset", exist_ok=True)
    api.upload_folder(folder_path=folder, repo_id="demo/more", repo_type="dataset")
    return folder


def ported(capsys, monkeypatch, folder, *more: str) -> tuple[dict, dict]:
    """The report of a port, and its tensors."""
    report = json_of(capsys, monkeypatch, "port", *WORDS, "--output", folder, *more)
    return report, load_file(folder / "open_clip_model.safetensors")


def differs(a: dict, b: dict) -> bool:
    return any(not torch.equal(a[key], b[key]) for key in a)


def test_they_have_a_say_and_are_told_of(more, capsys, monkeypatch, tmp_path):
    plain, before = ported(capsys, monkeypatch, tmp_path / "plain", *RESPONSE)
    report, after = ported(capsys, monkeypatch, tmp_path / "more", *RESPONSE, *MORE)
    assert "unlabelled" not in plain and differs(before, after)
    told = report["unlabelled"]
    commit = HfApi().dataset_info("demo/more").sha
    assert (told["dataset"]["name"], told["dataset"]["commit"]) == ("demo/more", commit)
    samples = told["samples"]
    assert (samples["n"], samples["split"], samples["seed"]) == (9, "pool", 0)
    assert samples["columns"] == {"kind": "image", "names": {"image": "picture"}}
    assert len(samples["indices"]) == 9 and samples["content_sha256"] != report["calibration"]["content_sha256"]
    assert report["calibration"]["n"] == report["estimate"]["n"] == 20
    card = ModelCard.load(tmp_path / "more" / "README.md").text
    assert f"| samples without labels | 9 of demo/more@{commit}, split `pool`, seed 0" in card
    assert "samples without labels" not in (tmp_path / "plain" / "README.md").read_text()
    words = shlex.split(report["command"])
    assert words[words.index("--unlabelled") + 1] == f"demo/more@{commit}"
    again = hf_bico(capsys, monkeypatch, *words[1:-1], tmp_path / "again", "--allow-regression")
    assert again.code == 0, again.err
    assert not differs(after, load_file(tmp_path / "again" / "open_clip_model.safetensors"))


def test_a_polish_learns_of_them_whatever_the_method(more, capsys, monkeypatch, tmp_path):
    words = ("--method", "naive", "--polish", "2")
    _, before = ported(capsys, monkeypatch, tmp_path / "plain", *words)
    report, after = ported(capsys, monkeypatch, tmp_path / "more", *words, "--unlabelled", str(more))
    assert differs(before, after)
    samples = report["unlabelled"]["samples"]
    assert samples["n"] == 30 and report["unlabelled"]["dataset"]["local"]
    assert "of the calibration samples and of those without labels" in " ".join(
        (tmp_path / "more" / "README.md").read_text().split()
    )


def test_a_dataset_with_labels_may_be_named_and_they_are_not_looked_at(more, capsys, monkeypatch, tmp_path):
    report, _ = ported(capsys, monkeypatch, tmp_path / "out", *RESPONSE, "--unlabelled", "demo/task")
    samples = report["unlabelled"]["samples"]
    assert (samples["n"], samples["split"], samples["columns"]["names"]) == (60, "train", {"image": "image"})


def test_auto_chooses_with_them(more, capsys, monkeypatch, tmp_path):
    """Either half of the samples has all of those without labels beside it: other losses, of the same candidates."""
    (plain, _), (report, _) = (
        ported(capsys, monkeypatch, tmp_path / name, "--method", "auto", *words)
        for name, words in (("plain", ()), ("more", MORE))
    )
    ours, theirs = (
        {each["method"]: each["loss"] for each in told["method"]["choice"]["tried"] if not each["options"]}
        for told in (report, plain)
    )
    assert ours.keys() == theirs.keys()
    assert {name for name in ours if ours[name] != theirs[name]} == {"bico", "response", "blend"}


def test_what_nothing_would_use_is_refused(more, capsys, monkeypatch):
    def refused(*words: str):
        return hf_bico(capsys, monkeypatch, "port", *WORDS, *words)

    for method in ("naive", "weighted", "few-shot"):
        assert_refused(refused("--method", method, *MORE), f"nothing would use samples without labels: {method}")
    assert_refused(refused(*RESPONSE, "--unlabelled-n", "3"), "--unlabelled-n", "--unlabelled names")
    assert_refused(refused(*RESPONSE, *MORE[:3], "31"), "31 samples asked for, but the split 'pool' has 30")
    assert_refused(refused(*RESPONSE, "--unlabelled", "demo/none"), "demo/none")


def test_a_dataset_of_another_kind_is_refused(more, capsys, monkeypatch, tmp_path):
    datasets.Dataset.from_dict({"text": ["a", "b"]}).to_parquet(tmp_path / "train.parquet")
    ran = hf_bico(capsys, monkeypatch, "port", *WORDS, *RESPONSE, "--unlabelled", str(tmp_path))
    assert_refused(ran, "has no image column", "'image'", "text (string)")


@pytest.mark.parametrize(
    ("name", "head"),
    [("bert", "transport"), ("t5-classifier", None), ("vit", "ridge"), ("bert", "probe"), ("bert", "none")],
)
def test_they_are_shown_to_models_of_texts_and_images(name, head, tmp_path):
    """Every objective passes them: the walk of a response, the maps, and the steps of a polish."""
    write_family(tmp_path, name)
    kind = "image" if name == "vit" else "text"
    one = datasets.Image() if kind == "image" else datasets.Value("string")
    some = datasets.Dataset.from_dict({"it": rows(kind, "train")[kind][:22]}, features=datasets.Features(it=one))
    (tmp_path / "more").mkdir()
    some.to_parquet(tmp_path / "more" / "train.parquet")
    if head in ("probe", "none"):  # a model of features: its base with other attention
        tensors = load_file(tmp_path / "base" / "model.safetensors")
        tensors = {key: tensor * (1.1 if "attention" in key else 1.0) for key, tensor in tensors.items()}
        shutil.rmtree(tmp_path / "ft")
        shutil.copytree(tmp_path / "base", tmp_path / "ft")
        save_file(tensors, tmp_path / "ft" / "model.safetensors", {"format": "pt"})
    if head == "none":  # samples that ask nothing beside more of them
        shutil.rmtree(tmp_path / "task")
        for split in ("train", "test"):
            (tmp_path / "task").mkdir(exist_ok=True)
            datasets.Dataset.from_dict({"text": rows("text", split)["text"]}).to_parquet(
                tmp_path / "task" / f"{split}.parquet"
            )
    done = run(
        PortConfig(
            *(str(tmp_path / part) for part in ("ft", "plus", "task")),
            base=str(tmp_path / "base"),
            n=22,
            method="response",
            method_options=("maps=output",),
            head=None if head in ("probe", "none") else head,
            polish=0 if head == "none" else 2,
            unlabelled=str(tmp_path / "more"),
            allow_regression=True,
        ),
        Hub(),
    )
    assert done.report["unlabelled"]["samples"]["n"] == 22
    assert done.report["unlabelled"]["samples"]["columns"]["names"] == {kind: "it"}
    assert head == "none" or done.report["polish"]["learnt"] == "the fine-tune's own answers"


def test_language_models_and_text_towers_are_refused(more, world, tmp_path):
    write_family(tmp_path / "words", "gpt2")
    places = [str(tmp_path / "words" / part) for part in ("ft", "plus", "task")]
    chosen = {"method": "bico", "n": 20, "unlabelled": str(more), "allow_regression": True}
    with pytest.raises(PortError, match="a language model is asked for the tokens"):
        run(PortConfig(*places, base=str(tmp_path / "words" / "base"), **chosen), Hub())
    folder = shutil.copytree(world / "ft", tmp_path / "ft")
    rewrite(folder, lambda tensors: tensors["transformer.resblocks.0.mlp.c_fc.weight"].mul_(1.01))
    with pytest.raises(PortError, match="the fine-tune changed its text tower"):
        run(PortConfig(str(folder), "demo/plus", "demo/task", base="demo/base", **chosen), Hub())
