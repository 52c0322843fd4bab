"""Choices that cannot be right are refused before the first download; names are understood, or something is offered."""

import pytest
from huggingface_hub import HfApi
from support.commands import assert_refused, hf_bico

from hf_bico import PortError
from hf_bico.io.hub import Hub
from hf_bico.io.reference import Reference

WORDS = {
    "port": ("port", "a/b", "--to", "c/d", "--dataset", "e/f", "--base", "g/h"),
    "check": ("check", "a/b", "--to", "c/d", "--base", "g/h"),
    "compare": ("compare", "a/b", "--to", "c/d", "--dataset", "e/f", "--base", "g/h"),
    "align": ("align", "a/b", "c/d", "--dataset", "e/f", "--output", "maps"),
    "eval": ("eval", "a/b", "--dataset", "e/f"),
}
WRONG = [
    ("port compare align check eval", ("-n", "-5"), "-n -5 asks for no samples"),
    ("port compare align check", ("--per-class", "0"), "--per-class 0 asks for no samples"),
    ("port compare", ("--eval-n", "-1"), "--eval-n -1 asks for no samples"),
    ("port", ("--as", "soup"), "--as soup is not a form"),
    ("port", ("--rank", "4"), "need --as lora"),
    ("port", ("--as", "lora", "--rank", "0"), "--rank must be 1 or more"),
    ("port", ("--as", "delta", "--dtype", "int4"), "--dtype int4: a delta is stored in"),
    ("port compare align check", ("--matching", "nothing.yaml"), "nothing.yaml"),
    ("port compare align check", ("--layers", "5-x"), "--layers"),
    ("port compare align check", ("--family", "bert"), "only generic can be named"),
    ("port compare align check", ("--head", "hydra"), "--head hydra: a head is one of transport, ridge"),
    ("port compare check", ("--only", "soup"), "--only soup"),
    ("port compare check eval", ("--score-dtype", "int4"), "int4"),
    ("port compare align check eval", ("--columns", "soup=x"), "soup"),
    ("port compare align check eval", ("--device", "abacus"), "no device 'abacus'"),
    ("port compare check", ("--source-kind", "soup"), "--source-kind soup: give model or adapter"),
    ("port align", ("--private",), "about a push"),
    ("port align", ("--bank", "nothing.txt"), "nothing.txt"),
]


@pytest.mark.parametrize(
    ("command", "words", "why"),
    [(command, words, why) for commands, words, why in WRONG for command in commands.split()],
    ids=lambda each: each if isinstance(each, str) and " " not in each else None,
)
def test_nothing_is_asked_of_the_hub_before(command, words, why, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def asked(*_, **__):
        raise AssertionError("the Hub was asked")

    monkeypatch.setattr(Hub, "resolve", asked)
    assert_refused(hf_bico(capsys, monkeypatch, *WORDS[command], *words), why)


@pytest.mark.parametrize(
    ("text", "name", "revision", "kind"),
    [
        ("https://huggingface.co/org/name", "org/name", None, None),
        ("https://huggingface.co/org/name/", "org/name", None, None),
        ("http://www.huggingface.co/org/name?library=x#files", "org/name", None, None),
        ("huggingface.co/gpt2", "gpt2", None, None),
        ("https://hf.co/gpt2/tree/main", "gpt2", "main", None),
        ("https://huggingface.co/org/name/tree/refs%2Fpr%2F1", "org/name", "refs/pr/1", None),
        ("https://huggingface.co/org/name/blob/v2/config.json", "org/name", "v2", None),
        ("https://huggingface.co/org/name/commit/0123abc", "org/name", "0123abc", None),
        ("https://huggingface.co/datasets/org/data/tree/main", "org/data", "main", "dataset"),
        ("https://huggingface.co/spaces/org/app", "org/app", None, "space"),
        ("hf://datasets/org/data@v1", "org/data", "v1", "dataset"),
        ("hf://org/name", "org/name", None, None),
        ("models/org/name", "org/name", None, None),
    ],
)
def test_addresses_of_pages(text, name, revision, kind):
    found = Reference.parse(text)
    assert (found.name, found.revision, found.kind) == (name, revision, kind)


def test_the_address_of_this_hub_is_understood(hub):
    assert Reference.parse(f"{hub.url}/demo/ft/tree/main").name == "demo/ft"


def test_the_address_of_a_folder_in_a_repo(port):
    page = "https://huggingface.co/org/name/tree/main/runs/best"
    assert_refused(port(source=page), "is a folder of org/name: name org/name, with --subfolder runs/best")


def test_folders_that_are_not_there(port, tmp_path):
    for text in ("./nothing", "/nothing/at/all", "../x/y/z", "~/nothing"):
        assert_refused(port(source=text), f"there is no folder '{text}'")
    (tmp_path / "x.safetensors").touch()
    assert_refused(port(source=str(tmp_path / "x.safetensors")), "is a file")


def test_a_folder_that_looks_like_a_repo(capsys, monkeypatch, tmp_path, world):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    ran = hf_bico(capsys, monkeypatch, "port", "runs/best", "--to", "demo/plus", "--dataset", "demo/task")
    assert_refused(ran, "runs/best was not found", "there is no folder runs/best here")


def test_datasets_and_models_that_were_mixed_up(port):
    assert_refused(port(source="demo/task"), "demo/task was not found", "there is a dataset of that name")
    assert_refused(port(dataset="demo/ft"), "demo/ft was not found", "there is a model of that name")
    assert_refused(port(source="https://huggingface.co/datasets/demo/task"), "is a dataset, and a model belongs here")
    assert_refused(port(dataset="hf://spaces/demo/task"), "is a space, and a dataset belongs here")


def test_a_name_that_is_nearly_right(world):
    with pytest.raises(PortError, match=r"is it demo/plus\?"):
        Hub().resolve("demo/pluss")
    with pytest.raises(PortError) as refused:
        Hub().resolve("demo/nothing-like-that")
    assert "is it" not in str(refused.value)


OTHERS = {
    "diffusers": (("model_index.json", "unet/config.json"), "pipeline of diffusers"),
    "gguf": (("model-Q4.gguf",), "only quantised GGUF weights"),
    "flax": (("flax_model.msgpack",), "weights of Flax alone"),
    "onnx": (("onnx/model.onnx",), "weights of ONNX alone"),
    "data": (("data/train-0.parquet",), "holds data and no model"),
}


@pytest.mark.parametrize(("files", "why"), OTHERS.values(), ids=OTHERS)
def test_repos_of_other_kinds_are_named(port, tmp_path, files, why):
    for name in files:
        (tmp_path / "repo" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "repo" / name).write_text("{}")
    assert_refused(port(to=str(tmp_path / "repo")), "repo (local folder)", why)


def test_no_repo_is_asked_for_a_hint_when_the_revision_is_wrong(world):
    with pytest.raises(PortError, match="no such revision"):
        Hub().resolve("demo/ft@nothing")
    assert HfApi().repo_exists("demo/ft")
