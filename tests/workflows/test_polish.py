"""A port that is trained further, through the real command: what it is worth, what is told of it, what is refused."""

import json
import shlex

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from support.commands import assert_refused, hf_bico, json_of
from support.twins import Samples, random_fine_tune, tiny_clip

from hf_bico import Naive, Polish, class_scores, port

WORDS = (
    "demo/ft",
    "--to",
    "demo/plus",
    "--dataset",
    "demo/task",
    "-n",
    "20",
    "--method",
    "bico",
    "--head",
    "zero-shot",
)
WORDS = (*WORDS, "--allow-regression")
MODEL = "open_clip_model.safetensors"


def ported(capsys, monkeypatch, folder, *more: str) -> tuple[dict, dict]:
    """The report of a port, and its tensors."""
    report = json_of(capsys, monkeypatch, "port", *WORDS, "--output", folder, *more)
    return report, load_file(folder / MODEL)


def test_a_polish_is_trained_recorded_and_done_again(world, capsys, monkeypatch, tmp_path):
    plain, before = ported(capsys, monkeypatch, tmp_path / "plain")
    report, after = ported(capsys, monkeypatch, tmp_path / "polished", "--polish", "3")
    _, again = ported(capsys, monkeypatch, tmp_path / "again", "--polish", "3")
    none, same = ported(capsys, monkeypatch, tmp_path / "none", "--polish", "0")
    assert "polish" not in plain and "polish" not in none
    assert all(torch.equal(before[key], same[key]) for key in before)
    assert "polish" in report
    told = report["polish"]
    assert (told["steps"], told["views"], told["learnt"]) == (3, True, "the fine-tune's own answers")
    assert [each["rate"] for each in told["tried"]] == [1e-4, 3e-4, 1e-3]
    assert told["rate"] == min(told["tried"], key=lambda each: each["loss"])["rate"]
    assert "--polish 3" in report["command"]
    card = (tmp_path / "polished" / "README.md").read_text()
    assert "**This part is trained:** 3 steps of AdamW on the weights, towards the fine-tune's own answers" in card
    assert "then trained for 3 steps" in card and "without training" not in card
    assert "without training" in (tmp_path / "plain" / "README.md").read_text()
    assert ModelCard.load(tmp_path / "polished" / "README.md").data
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed and all(key.startswith("visual.") for key in changed)
    assert all(torch.equal(after[key], again[key]) for key in after)
    assert json.loads((tmp_path / "polished" / "hf_bico.json").read_text())["polish"] == told
    assert shlex.split(report["command"])[0] == "hf-bico"


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--polish-rank", "2"), "a LoRA of rank 2 beside the port"),
        (("--scales", "2"), "coefficients of the first 2 singular directions of every matrix's change"),
    ],
)
def test_less_than_the_weights_may_be_trained(world, capsys, monkeypatch, tmp_path, words, what):
    report, _ = ported(capsys, monkeypatch, tmp_path / "out", "--polish", "2", *words)
    assert report["polish"]["what"] == what
    assert shlex.join(words) in report["command"]
    assert what in (tmp_path / "out" / "README.md").read_text()


def test_a_comparison_has_a_row_of_every_port_polished(world, capsys, monkeypatch):
    words = ("demo/ft", "--to", "demo/plus", "--dataset", "demo/task", "-n", "12", "--seeds", "1", "--polish", "2")
    methods = ("bico", "naive", "few-shot", "distil")
    chosen = [word for method in methods for word in ("--method", method)]
    steps = [word for method in methods[2:] for word in ("--set", f"{method}:steps=2", "--set", f"{method}:rate=1e-3")]
    data = json_of(capsys, monkeypatch, "compare", *words, *chosen, *steps)
    names = [row["method"] for row in data["rows"]]
    assert names == ["bico", "bico + polish", "naive", "naive + polish", "few-shot", "distil"]
    assert all(row["refusal"] is None for row in data["rows"])
    assert data["methods"]["bico + polish"]["polish"]["steps"] == 2


def test_what_does_not_go_together_is_refused(world, capsys, monkeypatch):
    def refused(*words: str):
        return hf_bico(capsys, monkeypatch, "port", *WORDS, *words)

    assert_refused(refused("--polish-rank", "2"), "--polish-rank", "--polish STEPS")
    assert_refused(refused("--scales", "2"), "--scales", "--polish STEPS")
    assert_refused(refused("--polish", "2", "--scales", "2", "--polish-rank", "2"), "give one")


def test_live_models_are_polished_towards_answers_or_labels():
    samples, base = Samples.make(12, dtype=torch.float32), tiny_clip(dtype=torch.float32)
    target, logits = tiny_clip(48, dtype=torch.float32, seed=4), class_scores(samples.head)
    before = {key: tensor.clone() for key, tensor in target.state_dict().items()}
    models = {"tuned": random_fine_tune(base), "base": base, "target": target, "method": Naive()}
    given = models | {"calibration": samples.batches(5), "loss": samples.loss}
    plain = port(**given)
    assert plain.report.get("polish") is None
    for answers, learnt in (((logits, logits), "the fine-tune's own answers"), (None, "the labels")):
        done = port(**given, polish=Polish(3), answers=answers)
        assert done.report["polish"]["learnt"] == learnt
        assert done.report["polish"]["losses"][1] < done.report["polish"]["losses"][0]
        assert any(not torch.equal(done.delta[key], plain.delta[key]) for key in plain.delta)
        assert all(torch.equal(tensor, before[key]) for key, tensor in target.state_dict().items())
