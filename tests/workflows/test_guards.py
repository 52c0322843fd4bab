"""What is refused before any work: a target that is no new base, a base that is another's, a source at chance."""

import shutil

import datasets
import pytest
from support.adapters import write_adapter
from support.commands import assert_refused, hf_bico, json_of
from support.repos import write_family
from support.twins import Samples, tiny_clip
from support.world import CLASSES, config, write_dataset, write_model

from hf_bico.core.errors import PortError
from hf_bico.io.hub import Hub
from hf_bico.workflows import live as hf_bico_live
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.plan import make_port_plan
from hf_bico.workflows.port import run

TASK = ("--dataset", "demo/task", "-n", "12")
COMMANDS = ("port", "check", "compare")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_target_that_is_no_new_base_is_refused(world, tmp_path, capsys, monkeypatch, command):
    """By name and commit, and by the weights of a copy of another name."""
    for same, what in (("demo/base", "what SOURCE was fine-tuned from"), ("demo/ft", "the fine-tune itself")):
        copied = shutil.copytree(world / same.removeprefix("demo/"), tmp_path / f"copy-{same[5:]}")
        for target in (same, copied):
            ran = hf_bico(capsys, monkeypatch, command, "demo/ft", "--to", target, *TASK)
            assert_refused(ran, what, "nothing to carry over", "--to")


def test_a_check_without_samples_sees_the_same_weights_too(world, tmp_path, capsys, monkeypatch):
    copied = shutil.copytree(world / "base", tmp_path / "copy")
    assert_refused(hf_bico(capsys, monkeypatch, "check", "demo/ft", "--to", copied), "nothing to carry over")


def test_another_base_is_taken_where_it_is_trusted(world, tmp_path, capsys, monkeypatch):
    write_model(tmp_path / "other", config(32, 2, 32), seed=7)
    words = ("demo/ft", "--to", "demo/plus", "--base", tmp_path / "other")
    assert_refused(hf_bico(capsys, monkeypatch, "port", *words, *TASK), "not the base", "cosine", "--trust-base")
    assert_refused(hf_bico(capsys, monkeypatch, "compare", *words, *TASK), "not the base", "--trust-base")
    data = json_of(capsys, monkeypatch, "check", *words, code=1)
    assert "--trust-base" in data["verdict"]["reasons"][0]
    data = json_of(capsys, monkeypatch, "port", *words, *TASK, "--trust-base")
    assert data["task_vector"]["relative_norm"] > 1
    assert "--trust-base" in data["command"]
    checked = json_of(capsys, monkeypatch, "check", *words, "--trust-base")
    assert checked["verdict"]["grade"] == "uncertain" and "--trust-base" in checked["verdict"]["next"]
    out = tmp_path / "tau.safetensors"
    extract = ("extract", "demo/ft", "--base", tmp_path / "other", "--output", out)
    assert_refused(hf_bico(capsys, monkeypatch, *extract), "--trust-base")
    assert hf_bico(capsys, monkeypatch, *extract, "--trust-base").code == 0 and out.exists()


def test_live_models_are_trusted_by_a_word():
    base, other, target, samples = tiny_clip(), tiny_clip(seed=5), tiny_clip(48, 3, seed=4), Samples.make(8)
    job = {"base": base, "target": target, "calibration": samples.batches(8), "loss": samples.loss}
    for call in (hf_bico_live.port, hf_bico_live.job_of):
        with pytest.raises(PortError, match="trust_base= if it is the base"):
            call(tuned=other.state_dict(), **job)
        call(tuned=other.state_dict(), **job, trust_base=True)


def test_an_adapter_is_never_doubted(tmp_path, capsys, monkeypatch):
    """A large genuine LoRA, whose config names its base: τ is many times as large as what it is added to."""
    write_family(tmp_path, "llama")
    write_adapter(tmp_path, "llama", r=4, lora_alpha=4000, target_modules="all-linear")
    words = [tmp_path / "lora", "--base", tmp_path / "base", "--to", tmp_path / "plus"]
    data = json_of(capsys, monkeypatch, "check", *words)
    assert data["task_vector"]["relative_norm"] > 20
    assert data["verdict"]["grade"] == "uncertain"
    ran = hf_bico(capsys, monkeypatch, "extract", *words[:3], "--output", tmp_path / "tau.safetensors")
    assert ran.code == 0, ran.err


# A source at chance


@pytest.fixture(scope="module")
def mixed(world, tmp_path_factory):
    """demo/task with the names of its classes in another order: the same images under other labels."""
    folder = tmp_path_factory.mktemp("mixed") / "task"
    names = [*CLASSES[1:], CLASSES[0]]
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=names))
    write_dataset(folder, {"train": 60, "test": 30}, features)
    return folder


def test_labels_in_another_order_stop_a_port_at_once(mixed, capsys, monkeypatch, tmp_path):
    words = ("port", "demo/ft", "--to", "demo/plus", "--dataset", mixed, "-n", "20")
    ran = hf_bico(capsys, monkeypatch, *words, "--output", tmp_path / "out")
    assert_refused(ran, "scores 0.0% on 30 samples", "chance", "order", "id2label", "split", "--allow-regression")
    assert "Calibrating" not in ran.err and not (tmp_path / "out").exists()
    report = json_of(capsys, monkeypatch, *words, "--allow-regression")
    assert report["evaluation"]["source"]["value"] == 0
    assert report["verdict"]["word"] in ("no gain", "harmful")
    assert not report["verdict"]["pushable"]


def test_labels_in_another_order_stop_a_comparison_and_a_check(mixed, capsys, monkeypatch):
    words = ("demo/ft", "--to", "demo/plus", "--dataset", mixed, "-n", "20")
    ran = hf_bico(capsys, monkeypatch, "compare", *words, "--method", "naive")
    assert_refused(ran, "no better than chance", "id2label", "--allow-regression")
    assert "Calibrating" not in ran.err
    words_on = (*words, "--method", "naive", "--seeds", "1", "--allow-regression")
    assert json_of(capsys, monkeypatch, "compare", *words_on)["evaluation"]["source"]["value"] == 0
    data = json_of(capsys, monkeypatch, "check", *words, code=1)
    assert data["verdict"]["grade"] == "impossible"
    assert "no better than chance" in data["verdict"]["reasons"][0]
    assert "trial" not in data or data["trial"] is None


@pytest.mark.parametrize("drawn", [("-n", "8"), ("-n", "12", "--strategy", "one-class")])
def test_few_samples_and_one_class_say_nothing_of_chance(mixed, capsys, monkeypatch, drawn):
    """The port goes on; that the source is at chance is in its verdict."""
    words = ("port", "demo/ft", "--to", "demo/plus", "--dataset", mixed, *drawn)
    report = json_of(capsys, monkeypatch, *words)
    assert report["verdict"]["word"] in ("no gain", "harmful")


def test_a_doubt_is_settled_on_the_evaluation_samples(world, capsys, monkeypatch, tmp_path):
    """A source that the calibration samples say nothing good of, and that is right on the split it is scored on."""
    folder = shutil.copytree(world / "task", tmp_path / "task")
    rows = datasets.Dataset.from_parquet(str(folder / "data" / "train-00000-of-00001.parquet"), cache_dir=str(tmp_path))
    wrong = rows.map(lambda row: row | {"label": (row["label"] + 1) % len(CLASSES)}, features=rows.features)
    wrong.to_parquet(folder / "data" / "train-00000-of-00001.parquet")
    report = json_of(capsys, monkeypatch, "port", "demo/ft", "--to", "demo/plus", "--dataset", folder, "-n", "20")
    assert report["evaluation"]["source"]["value"] > 0.5


def test_a_good_source_is_not_scored_before_the_work(world):
    """The fine-tune that answers the calibration samples is the base with τ in it."""
    stages = []

    def track(items, what, total):
        stages.append(what)
        return items

    run(PortConfig("demo/ft", "demo/plus", "demo/task", method="bico", n=20, eval_n=8), Hub(), track)
    assert stages.index("Calibrating") < stages.index("Evaluating the source")


def test_names_are_looked_at_before_anything_is_fetched(world):
    for target in ("demo/base", "demo/ft"):
        with pytest.raises(PortError, match="nothing to carry over"):
            make_port_plan(PortConfig("demo/ft", target, "demo/task"), Hub())
    assert not make_port_plan(PortConfig("demo/ft", "demo/plus", "demo/task"), Hub()).trusted
