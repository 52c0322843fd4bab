"""The main job end to end, over HTTP with the real clients."""

import json
import shlex

import open_clip
import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from safetensors.torch import load_file
from support.commands import hf_bico
from support.ports import same

from hf_bico.core.errors import listed
from hf_bico.families import FAMILIES, LIBRARIES
from hf_bico.io.hub import Hub
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.port import run


def logits(name: str) -> torch.Tensor:
    model, _, _ = open_clip.create_model_and_transforms(name)
    torch.manual_seed(0)
    with torch.no_grad():
        return model.eval().encode_image(torch.randn(3, 3, 40, 40))


def test_pushed_model_opens_and_is_the_written_one(pushed):
    folder, repo, outcome = pushed
    assert outcome.url.startswith(HfApi().endpoint)
    assert torch.equal(logits(f"hf-hub:{repo}"), logits(f"local-dir:{folder}"))
    assert not torch.equal(logits(f"hf-hub:{repo}"), logits("hf-hub:demo/plus"))
    assert {commit.title for commit in HfApi().list_repo_commits(repo)} >= {"Port demo/ft to demo/plus"}


def test_only_the_sites_changed(pushed, world):
    before = load_file(world / "plus" / "open_clip_model.safetensors")
    after = load_file(pushed[0] / "open_clip_model.safetensors")
    assert before.keys() == after.keys()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    sites = FAMILIES[0].sites(LIBRARIES[0].load(world / "plus", "cpu").model)
    assert changed == {s.key for site in sites for s in site.slices}


def test_live_objects_and_hub_give_the_same_tensors(world, live, tmp_path):
    run(PortConfig("demo/ft", "demo/plus", "demo/task", method="bico", n=20, output=tmp_path / "out"), Hub())
    assert same(tmp_path / "out", live)


def test_report_accounts_for_all_of_the_task_vector(pushed, world):
    report = json.loads((pushed[0] / "hf_bico.json").read_text())
    assert report["calibration"]["n"] == 20 == len(set(report["calibration"]["indices"]))
    assert [row["source"] for row in report["layers"]] == [0, 1, 1, None]
    assert all(
        0 < row["output"]["rank"] <= row["output"]["full"]
        and 0 <= row["output"]["residual"] <= 1
        and 0 < row["kept"] <= 1
        for row in report["moved"]
    )
    assert len(report["moved"]) == 19
    tuned, base = (load_file(world / name / "open_clip_model.safetensors") for name in ("ft", "base"))
    whole = sum(float((tuned[key] - base[key]).square().sum()) for key in tuned)
    left = sum(entry["norm"] ** 2 for entry in report["left"])
    assert report["task_vector"]["moved_share"] == pytest.approx(1 - left / whole, rel=1e-4)
    assert report["lineage"]["base"]["name"] == "demo/base"
    for role in ("source", "base", "target", "dataset"):
        assert len(report["lineage"][role]["commit"]) == 40
    for row in ("source", "zero_shot", "naive", "ported"):
        score = report["evaluation"][row]
        assert score["n"] == 30
        assert score["low"] < score["value"] < score["high"]
        assert score["metric"] == "accuracy"


def test_card_is_valid_and_its_code_runs(pushed):
    _, repo, outcome = pushed
    card = ModelCard.load(repo)
    card.validate()
    data = card.data.to_dict()
    assert data["base_model"] == "demo/plus"
    assert data["base_model_relation"] == "finetune"
    assert data["datasets"] == ["demo/task"]
    assert data["library_name"] == "open_clip"
    assert data["license"] == "mit"
    assert "one forward–backward pass" in card.text.lower()
    assert card.data.eval_results[0].metric_value == round(outcome.evaluation.ported.value, 6)
    assert "{{" not in card.text
    assert "{%" not in card.text
    snippet = card.text.split("```python\n")[1].split("labels =")[0]  # the rest asks it a picture: test_card.py
    names = {}
    exec(snippet, names)
    assert torch.equal(names["model"].visual.proj, open_clip.create_model(f"hf-hub:{repo}").visual.proj)


def test_the_cards_command_does_it_again(pushed, tmp_path, monkeypatch, capsys):
    command = ModelCard.load(pushed[1]).text.split("```\nhf-bico ")[1].split("\n```")[0]
    monkeypatch.chdir(tmp_path)
    assert hf_bico(capsys, monkeypatch, *shlex.split(command)).code == 0
    again, first = (load_file(folder / "open_clip_model.safetensors") for folder in (tmp_path / "ported", pushed[0]))
    assert all(torch.allclose(again[key], first[key], rtol=1e-5, atol=1e-7) for key in first)


def test_long_lists_say_how_much_they_leave_out():
    assert listed(["a", "b", "c"], most=2) == "a, b and 1 more"
