"""A single file, or a dataset with one split, is enough: some rows are held out, and a redo gives the same port."""

import json
import shlex

import datasets
import pytest
from safetensors.torch import load_file
from support.commands import hf_bico, json_of
from support.repos import write_family
from support.world import write_dataset

from hf_bico.tasks.slices import HELD, REST, Part


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """Tiny models, and their samples in one CSV file."""
    root = tmp_path_factory.mktemp("file")
    write_family(root, "bert")
    table = datasets.load_dataset(str(root / "task"), split="train")
    names = table.features["label"].names
    table = table.to_pandas()
    table["label"] = [names[i] for i in table["label"]]
    table.to_csv(root / "rows.csv", index=False)
    return root


def words(root, out):
    ported = ("port", "ft", "--base", "base", "--to", "plus", "--dataset", "rows.csv", "--method", "bico")
    return (*ported, "-n", "20", "--allow-regression", "--output", out)


def test_a_file_is_ported_from_and_scored_on_and_the_card_does_it_again(bert, capsys, monkeypatch):
    monkeypatch.chdir(bert)
    ran = hf_bico(capsys, monkeypatch, *words(bert, "one"))
    assert ran.code == 0, ran.err
    assert "Note: rows.csv (local file) has no test or validation split: one in five rows of 'train'" in ran.err
    report = json.loads((bert / "one" / "hf_bico.json").read_text())
    held = Part("train", HELD).rows(66)
    assert report["evaluation"]["split"] == "train[held-out]"
    assert report["evaluation"]["ported"]["n"] == len(held)
    assert report["calibration"]["split"] == "train[rest]"
    assert max(report["calibration"]["indices"]) < 66 - len(held)
    command = report["command"]
    assert "--split 'train[rest]' --eval-split 'train[held-out]'" in command and "--dataset ./rows.csv" in command
    for flag, place in (("./ft", "ft"), ("./base", "base"), ("./plus", "plus")):
        assert flag in command and (bert / place).exists()
    again = [word if word != "one" else "two" for word in shlex.split(command)[1:]]
    redone = json_of(capsys, monkeypatch, *again, "--allow-regression")
    assert redone["evaluation"] == report["evaluation"]
    assert redone["calibration"] == report["calibration"]
    first, second = (load_file(bert / name / "model.safetensors") for name in ("one", "two"))
    assert first.keys() == second.keys() and all(first[key].equal(second[key]) for key in first)
    assert "train[held-out]" in (bert / "one" / "README.md").read_text()


def test_another_seed_is_scored_on_the_same_rows(bert, capsys, monkeypatch):
    monkeypatch.chdir(bert)
    checked = ("check", *words(bert, "x")[1:-2], "--seed")
    told = [json_of(capsys, monkeypatch, *checked, seed, code=0) for seed in ("1", "2")]
    assert told[0]["samples"]["split"] == told[1]["samples"]["split"] == "train[rest]"
    assert told[0]["samples"]["indices"] != told[1]["samples"]["indices"]


def test_slices_are_ported_from_and_scored_on(world, capsys, monkeypatch, tmp_path):
    chosen = ("port", "demo/ft", "--to", "demo/plus", "--dataset", "demo/task", "--method", "bico", "-n", "20")
    parts = ("--split", "train[:50%]", "--eval-split", "train[50%:]", "--allow-regression")
    report = json_of(capsys, monkeypatch, *chosen, *parts, "--output", tmp_path / "one")
    assert (report["calibration"]["split"], report["evaluation"]["split"]) == parts[1:4:2]
    assert report["evaluation"]["ported"]["n"] == 30 and max(report["calibration"]["indices"]) < 30
    again = [word if word != "one" else str(tmp_path / "two") for word in shlex.split(report["command"])[1:]]
    redone = json_of(capsys, monkeypatch, *again, "--allow-regression")
    assert redone["evaluation"] == report["evaluation"]
    first, second = (load_file(tmp_path / name / "open_clip_model.safetensors") for name in ("one", "two"))
    assert all(first[key].equal(second[key]) for key in first)


def test_samples_without_labels_are_not_those_that_are_held_out(world, capsys, monkeypatch, tmp_path):
    write_dataset(tmp_path / "one", {"train": 40})
    chosen = ("port", "demo/ft", "--to", "demo/plus", "--dataset", tmp_path / "one", "--method", "response", "-n", "8")
    more = ("--set", "ridge=1.0", "--unlabelled", tmp_path / "one", "--unlabelled-n", "20", "--allow-regression")
    report = json_of(capsys, monkeypatch, *chosen, *more, "--head", "zero-shot")
    assert report["unlabelled"]["samples"]["split"] == "train[rest]"
    assert report["evaluation"]["overlapping"] == 0
    assert report["evaluation"]["ported"]["n"] + len(Part("train", REST).rows(40)) == 40
