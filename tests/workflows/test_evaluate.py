"""A model scores as it is what a port says that it scores: whole, as a delta or an adapter, for every purpose."""

import json
import shutil
from dataclasses import asdict

import datasets
import pytest
import torch
import transformers
from huggingface_hub import HfApi
from pytest import approx
from support import sounds, tasks
from support.adapters import write_adapter
from support.commands import assert_refused, hf_bico, json_of
from support.pairs import write_pairs
from support.repos import write_family
from support.tasks import write_sentences

from hf_bico import PortError, evaluate
from hf_bico.io.hub import Hub
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.port import run


@pytest.fixture(autouse=True)
def no_bars():
    """As on the command line, which silences them before transformers is imported."""
    transformers.utils.logging.disable_progress_bar()


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    made = {}

    def world(kind: str):
        if kind not in made:
            root = made[kind] = tmp_path_factory.mktemp("world")
            _write(root, kind)
        return made[kind]

    return world


def _write(root, kind: str) -> None:
    if kind in tasks.KINDS:
        tasks.write_world(root, kind)
    elif kind in sounds.KINDS:
        sounds.write_world(root, kind)
    elif kind in ("scored", "together"):
        write_pairs(write_sentences(root, dense=True, prompt="query: ") / "task", kind)
    else:
        write_family(root, kind)


def ported(root, out, source="ft", **options):
    """The scores of a port that is written to a folder."""
    config = {"base": str(root / "base"), "n": 22, "method": "bico", "allow_regression": True, "output": out}
    return run(
        PortConfig(*(str(root / part) for part in (source, "plus", "task")), **config | options), Hub()
    ).evaluation


def assert_its_code_runs(folder):
    """What the card shows was run, and printed an answer where it takes a few lines to ask for one."""
    uses = json.loads((folder / "hf_bico.json").read_text())["opening"]["used"]
    assert [use.get("error") for use in uses] == [None] * len(uses)
    assert all(use["output"] for use in uses if "print(" in use["code"])
    assert uses[0]["code"] in (folder / "README.md").read_text()


def same(found, *scores) -> bool:
    """The same samples and answers; sums may be rounded otherwise where memory lies otherwise."""

    def rounded(score):
        also = {name: approx(value, rel=1e-5, abs=1e-6) for name, value in score.also.items()}
        ends = {name: approx(getattr(score, name), rel=1e-5, abs=1e-6) for name in ("value", "low", "high")}
        return asdict(score) | ends | {"also": also}

    return [asdict(own) for own in found.scores] == [rounded(score) for score in scores]


@pytest.mark.parametrize("kind", ["bert", "vit", "llama", "t5", *tasks.KINDS, *sounds.KINDS, "scored", "together"])
def test_of_a_whole_model_it_is_the_ports_score(kind, worlds, tmp_path):
    root = worlds(kind)
    scores = ported(root, tmp_path / "out")
    if kind != "speech":  # whose pipeline asks for a tokenizer of Whisper's own kind
        assert_its_code_runs(tmp_path / "out")
    assert same(evaluate(tmp_path / "out", root / "task"), scores.ported)
    assert same(evaluate(root / "ft", root / "task"), scores.source)
    found = evaluate([root / "ft", tmp_path / "out"], root / "task")
    assert same(found, scores.source, scores.ported)
    assert [len(values) for values in found.values] == [scores.ported.n] * 2 == [len(found.indices)] * 2


@pytest.mark.parametrize("form", ["delta", "lora"])
@pytest.mark.parametrize("kind", ["bert", "llama", "tags", "scored"])
def test_of_a_change_it_is_the_ports_score(kind, form, worlds, tmp_path):
    root = worlds(kind)
    scores = ported(root, tmp_path / "out", form=form)
    assert_its_code_runs(tmp_path / "out")
    found = evaluate(tmp_path / "out", root / "task", base=str(root / "plus"))
    assert same(found, scores.ported)
    (told,) = found.report.models
    assert (told.form, told.base.name) == ("delta", "plus")
    if form == "delta" and kind != "scored":  # as Python alone says it
        with pytest.raises(PortError, match="the base was a local folder, plus: say where it is now with base="):
            evaluate(tmp_path / "out", root / "task")


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_sums_are_rounded_as_a_whole_ports_are(dtype, tmp_path):
    write_family(tmp_path, "llama", dtype=dtype)
    scores = ported(tmp_path, tmp_path / "out", form="delta", dtype="float32")
    assert same(evaluate(tmp_path / "out", tmp_path / "task", base=str(tmp_path / "plus")), scores.ported)


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_of_an_adapter_it_is_the_sources_score(kind, worlds, tmp_path):
    root = worlds(kind)
    targets = ["query", "value"] if kind == "bert" else ["q_proj", "down_proj"]
    head = {"modules_to_save": ["classifier"]} if kind == "bert" else {}
    if not (root / "lora").exists():
        write_adapter(root, kind, r=3, target_modules=targets, **head)
    scores = ported(root, tmp_path / "out", "lora")
    found = evaluate(root / "lora", root / "task", base=str(root / "base"))
    assert same(found, scores.source)
    assert found.report.models[0].form == "adapter"
    (merged,) = evaluate(root / "lora-merged", root / "task").scores
    assert merged.value == pytest.approx(scores.source.value, rel=1e-5)


def test_from_the_hub_by_the_command_of_every_role(pushed, capsys, monkeypatch):
    """CLIP: the fine-tune, the target without the port, and the port that was pushed."""
    evaluation = pushed[2].report["evaluation"]
    data = json_of(capsys, monkeypatch, "eval", "demo/ft", "demo/plus", pushed[1], "--dataset", "demo/task")
    assert [each["score"] for each in data["models"]] == [
        evaluation[role] for role in ("source", "zero_shot", "ported")
    ]
    assert (data["split"], data["n"], data["overlapping"]) == ("test", 30, 0)
    assert data["lineage"]["dataset"]["commit"] == HfApi().dataset_info("demo/task").sha
    assert data["models"][2]["model"]["commit"] == HfApi().model_info(pushed[1]).sha
    assert "seed" not in data and data["task"]["class_names"] == ["circle", "square", "stripe up", "stripe down"]


def test_of_a_draw_and_of_a_part(pushed, capsys, monkeypatch, tmp_path):
    words = ("eval", pushed[1], "--dataset", "demo/task")
    config = PortConfig(
        "demo/ft", "demo/plus", "demo/task", method="bico", n=20, allow_regression=True, eval_n=11, seed=3
    )
    scores = run(config, Hub()).evaluation
    data = json_of(capsys, monkeypatch, "eval", "demo/ft", "--dataset", "demo/task", "-n", "11", "--seed", "3")
    assert data["models"][0]["score"]["value"] == scores.source.value and (data["n"], data["seed"]) == (11, 3)
    part = json_of(capsys, monkeypatch, *words, "--split", "test[10:20]")
    assert (part["split"], part["n"]) == ("test[10:20]", 10)
    ran = hf_bico(capsys, monkeypatch, *words, "--split", "test[10:20]")
    assert ran.code == 0 and "test[10:20], 10 samples" in ran.out and "accuracy" in ran.out
    quiet = hf_bico(capsys, monkeypatch, *words, "--split", "test[10:20]", "--quiet")
    assert float(quiet.out) == pytest.approx(part["models"][0]["score"]["value"])
    words = ("eval", "demo/ft", pushed[1], *words[2:], "--split", "test[10:20]")
    both, quiet = json_of(capsys, monkeypatch, *words)["models"], hf_bico(capsys, monkeypatch, *words, "-q")
    named = [line.split("\t") for line in quiet.out.splitlines()]
    assert [(name, pytest.approx(float(value))) for name, value in named] == [
        (each["name"], each["score"]["value"]) for each in both
    ]
    assert [name for name, _ in named] == ["demo/ft", pushed[1]]


def test_what_a_port_was_made_from_is_not_scored(pushed, capsys, monkeypatch):
    """By its report, on the split that it was drawn from; of several models, of none of them."""
    indices = pushed[2].report["calibration"]["indices"]
    words = ("--dataset", "demo/task", "--split", "train")
    ran = hf_bico(capsys, monkeypatch, "eval", "demo/ft", pushed[1], *words, "--format", "json")
    data = json.loads(ran.out)
    assert (data["n"], data["overlapping"]) == (40, 20)
    assert "Note: 20 of 60 evaluation samples are calibration samples and are not scored" in ran.err
    assert json_of(capsys, monkeypatch, "eval", "demo/ft", *words)["n"] == 60
    found = evaluate(pushed[1], "demo/task", split="train")
    assert set(found.indices) == set(range(60)) - set(indices)


def test_on_a_single_file_the_rows_that_a_port_holds_out_are_scored(worlds, tmp_path):
    root = worlds("bert")
    table = datasets.load_dataset(str(root / "task"), split="train")
    table.to_parquet(tmp_path / "rows.parquet")
    shutil.copytree(root, tmp_path / "root", ignore=shutil.ignore_patterns("task"))
    (tmp_path / "root" / "task").mkdir()
    scores = run(
        PortConfig(
            *(str(root / part) for part in ("ft", "plus")),
            str(tmp_path / "rows.parquet"),
            base=str(root / "base"),
            n=20,
            method="bico",
            output=tmp_path / "out",
            allow_regression=True,
        ),
        Hub(),
    ).evaluation
    found = evaluate([root / "ft", tmp_path / "out"], tmp_path / "rows.parquet")
    assert found.report.split == "train[held-out]" and same(found, scores.source, scores.ported)


def test_features_without_labels_agree_with_the_first_model(worlds, tmp_path):
    root = worlds("scored")
    write_pairs(tmp_path / "task", "plain")
    config = {"base": str(root / "base"), "n": 22, "method": "naive", "output": tmp_path / "out"}
    models = (str(root / "ft"), str(root / "plus"))
    scores = run(PortConfig(*models, str(tmp_path / "task"), **config, allow_regression=True), Hub()).evaluation
    found = evaluate([root / "ft", tmp_path / "out"], tmp_path / "task")
    assert same(found, scores.source, scores.ported) and found.scores[0].metric == "agreement"
    with pytest.raises(PortError, match="has no labels to score them by: name the model that they are to agree with"):
        evaluate(root / "ft", tmp_path / "task")


def test_what_cannot_be_asked_is_refused(worlds, capsys, monkeypatch, tmp_path):
    bert, tags = worlds("bert"), worlds("tags")

    def refused(*words, saying):
        assert_refused(hf_bico(capsys, monkeypatch, "eval", *words), saying)

    other = tmp_path / "other"
    (other / "data").mkdir(parents=True)
    table = datasets.load_dataset(str(bert / "task"), split="test")
    names = [f"sort {name}" for name in "abcdefghijk"[: len(table.features["label"].names)]]
    table.cast_column("label", datasets.ClassLabel(names=names)).to_parquet(other / "data" / "test-0.parquet")
    refused(bert / "ft", "--dataset", other, saying="the dataset's classes (sort a, ")
    refused(bert / "ft", "--dataset", tags / "task", saying="is for text-classification, but")
    refused(bert / "base", "--dataset", bert / "task", saying="gives features and has no head for the classes of task")
    refused(bert / "ft", tags / "ft", "--dataset", bert / "task", saying="is for token-classification, but")
    refused(bert / "ft", "--dataset", bert / "task", "--split", "dev", saying="no split 'dev'; it has train, test")
    refused(bert / "none", "--dataset", bert / "task", saying="none")
    refused(bert / "ft", "--dataset", bert / "none.csv", saying="there is no file")
