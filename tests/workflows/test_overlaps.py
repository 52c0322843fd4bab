"""What a port was made from is not scored, in whatever split it is: left out, counted and told."""

import json
import shutil

import datasets
import numpy as np
import pytest
from support.commands import assert_refused, hf_bico, json_of

PORT = ("demo/ft", "--to", "demo/plus", "--allow-regression", "--method", "bico")
DRAWN = sorted(np.random.default_rng(0).choice(60, 20, replace=False).tolist())
"""The rows of 20 samples of seed 0."""


@pytest.fixture(scope="module")
def leaky(world, tmp_path_factory):
    """demo/task, with its training samples among those of its test split."""
    folder = tmp_path_factory.mktemp("leaky") / "task"
    return with_test(world / "task", folder, lambda train, test: datasets.concatenate_datasets([test, train]))


def with_test(task, folder, make):
    shutil.copytree(task, folder)
    train, test = (datasets.load_dataset(str(task), split=name) for name in ("train", "test"))
    make(train, test).to_parquet(folder / "data" / "test-00000-of-00001.parquet")
    return folder


def test_calibration_samples_are_not_scored(world, leaky, capsys, monkeypatch, tmp_path):
    """The scores are those on the other samples, and the weights are the same."""

    def others(train, test):
        return datasets.concatenate_datasets([test, train.select([i for i in range(60) if i not in DRAWN])])

    clean = with_test(world / "task", tmp_path / "clean" / "task", others)
    told = []
    for dataset in (leaky, clean):
        out = tmp_path / dataset.parent.name
        ran = hf_bico(capsys, monkeypatch, "port", *PORT, "--dataset", dataset, "-n", "20", "--output", out / "out")
        assert ran.code == 0, ran.err
        told.append((json.loads((out / "out" / "hf_bico.json").read_text()), ran.err, (out / "out").glob("*.md")))
    (ours, said, (card,)), (theirs, nothing, _) = told
    assert ours["evaluation"]["overlapping"] == 20 and theirs["evaluation"]["overlapping"] == 0
    assert ours["evaluation"] | {"overlapping": 0} == theirs["evaluation"]
    assert ours["evaluation"]["ported"]["n"] == 70
    line = "20 of 90 evaluation samples are calibration samples and are not scored"
    assert f"Note: {line}" in said and line in ours["notes"] and "evaluation samples" not in nothing
    assert "Not scored: 20 samples of the split, which are among those that the port was made from." in card.read_text()


def test_samples_without_labels_are_not_scored_either(world, leaky, capsys, monkeypatch, tmp_path):
    """Those of the test split itself, taken as if nobody had labelled them."""
    bare = tmp_path / "bare"
    test = datasets.load_dataset(str(world / "task"), split="test").remove_columns("label")
    (bare / "data").mkdir(parents=True)
    test.to_parquet(bare / "data" / "train-00000-of-00001.parquet")
    words = ("port", *PORT[:-1], "response", "--set", "ridge=1.0", "--dataset", "demo/task", "-n", "8")
    report = json_of(capsys, monkeypatch, *words, "--unlabelled", bare, "--unlabelled-n", "12", "--head", "zero-shot")
    assert report["evaluation"]["overlapping"] == 12 and report["evaluation"]["source"]["n"] == 18


def test_where_nothing_is_left_it_is_an_error(world, capsys, monkeypatch, tmp_path):
    none = with_test(world / "task", tmp_path / "task", lambda train, test: train.select(range(5)))
    ran = hf_bico(capsys, monkeypatch, "port", *PORT, "--dataset", none, "-n", "60", "--output", tmp_path / "out")
    assert_refused(ran, "all 5 evaluation samples of the split 'test' are calibration samples", "--eval-split")
    assert not (tmp_path / "out").exists()


def test_methods_are_compared_on_what_none_of_the_draws_has(leaky, capsys, monkeypatch):
    words = ("--dataset", leaky, "--method", "naive", "-n", "20", "-n", "5", "--seeds", "2", "--allow-regression")
    report = json_of(capsys, monkeypatch, "compare", *PORT[:3], *words)
    draws = [set(each["indices"]) for each in report["calibration"]]
    assert len(draws) == 4
    assert report["evaluation"]["overlapping"] == len(set.union(*draws))
    assert {each["source"]["n"] for each in report["calibration"]} == {90 - len(set.union(*draws))}
