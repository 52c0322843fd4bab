"""What a port may be told: nothing but a look, folders, the search of α, strategies, an interruption."""

import json
import shlex
import shutil
from pathlib import Path

import datasets
import numpy as np
import open_clip
import pytest
import torch
from huggingface_hub import HfApi, ModelCard, cached_assets_path
from safetensors.torch import load_file
from support.commands import TINY_PORT, assert_refused, hf_bico
from support.ports import PORT, opened

from hf_bico.core import collect
from hf_bico.io import workspace
from hf_bico.io.hub import Hub
from hf_bico.tasks.evaluation import Evaluator
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.port import run


def test_dry_run_reads_headers_only(world, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    fetched = []
    monkeypatch.setattr(
        Hub,
        "fetch",
        lambda self, pinned, names, right=Hub.fetch: (fetched.extend(names), right(self, pinned, names))[1],
    )
    ran = hf_bico(capsys, monkeypatch, *PORT, "--dry-run", "--format", "json", "--push-to", "demo/dry", "--output", "x")
    assert ran.code == 0
    data = json.loads(ran.out)
    assert sum(pair["certain"] for pair in data["pairs"]) == 19
    assert {pair["tower"] for pair in data["pairs"] if not pair["certain"]} == {"text"}  # if the fine-tune changed it
    assert data["estimate"]["seconds"] > 0
    assert "open_clip_model.safetensors" not in fetched
    assert not list(tmp_path.iterdir())
    assert not HfApi().repo_exists("demo/dry")


def test_naive_port_says_what_it_is(world, tmp_path, capsys, monkeypatch):
    (tmp_path / "ft").mkdir()
    for path in (world / "ft").iterdir():
        shutil.copy(path, tmp_path / "ft")
    (tmp_path / "ft" / "README.md").write_text("---\nlicense: cc-by-nc-4.0\nbase_model: demo/base\n---\n")
    ran = hf_bico(
        capsys,
        monkeypatch,
        "port",
        tmp_path / "ft",
        "--to",
        "demo/plus",
        "--dataset",
        "demo/task",
        "-n",
        "20",
        "--method",
        "naive",
        "--alpha",
        "0.12345678",
        "--output",
        tmp_path / "out",
    )
    assert ran.code == 0, ran.err
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert "as it is" in card.text
    assert "orthogonal" not in card.text
    assert "samples determine" not in card.text
    assert "calibration samples" not in card.text
    assert "--alpha 0.12345678" in card.text
    assert card.data.license == "other"
    assert card.data.to_dict()["license_name"] == "mit and cc-by-nc-4.0"
    ours, plus = (load_file(folder / "open_clip_model.safetensors") for folder in (tmp_path / "out", world / "plus"))
    tuned, base = (load_file(world / name / "open_clip_model.safetensors") for name in ("ft", "base"))
    change = ours["visual.proj"] - plus["visual.proj"]
    assert torch.allclose(change[:32], 0.12345678 * (tuned["visual.proj"] - base["visual.proj"]), atol=1e-6)
    assert not change[32:].any()


def test_local_folders_serve_as_well(pushed, world, tmp_path, capsys, monkeypatch):
    ran = hf_bico(
        capsys,
        monkeypatch,
        "port",
        world / "ft",
        "--base",
        world / "base",
        "--to",
        world / "plus",
        "--dataset",
        world / "task",
        "--method",
        "bico",
        "-n",
        "20",
        "--output",
        tmp_path / "out",
    )
    assert ran.code == 0, ran.err
    here, there = (load_file(folder / "open_clip_model.safetensors") for folder in (tmp_path / "out", pushed[0]))
    assert all(torch.allclose(here[key], there[key], rtol=1e-5, atol=1e-7) for key in there)
    written = (tmp_path / "out" / "README.md").read_text() + (tmp_path / "out" / "hf_bico.json").read_text()
    assert str(world) not in written


def test_extract_then_apply_gives_the_fine_tune_back(world, tmp_path, capsys, monkeypatch):
    vector = tmp_path / "tau.safetensors"
    assert hf_bico(capsys, monkeypatch, "extract", "demo/ft", "--output", vector).code == 0
    ran = hf_bico(capsys, monkeypatch, "apply", vector, "--to", "hf://demo/base@main", "--output", tmp_path / "sum")
    assert ran.code == 0, ran.err
    ours, tuned = (load_file(folder / "open_clip_model.safetensors") for folder in (tmp_path / "sum", world / "ft"))
    assert all(torch.allclose(ours[key], tuned[key], atol=1e-7) for key in tuned)
    ran = hf_bico(capsys, monkeypatch, "apply", vector, "--to", "demo/plus", "--output", tmp_path / "no")
    assert_refused(ran, "does not fit demo/plus", "visual.proj is (48, 16), not (32, 16)")
    assert not (tmp_path / "no").exists()


def test_an_interrupted_port_picks_up_where_it_was(pushed, world, tmp_path, monkeypatch):
    """Stopped after two of three batches, then in the evaluation: nothing is done twice, and nothing comes out else."""
    monkeypatch.setattr(workspace, "EVERY", 0.0)
    chosen = PortConfig("demo/ft", "demo/plus", "demo/task", method="bico", n=20, output=tmp_path / "out")
    batches, scored = [], []
    right = {"add": collect._add_batch, "per sample": Evaluator.per_sample}

    def add(*given):
        if len(batches) == 2:
            batches.append("stop")
            raise KeyboardInterrupt
        batches.append("batch")
        right["add"](*given)

    def per_sample(*args):
        if len(scored) == 2:
            scored.append("stop")
            raise KeyboardInterrupt
        scored.append("score")
        return right["per sample"](*args)

    monkeypatch.setattr(collect, "_add_batch", add)
    monkeypatch.setattr(Evaluator, "per_sample", per_sample)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(chosen, Hub())
    outcome = run(chosen, Hub())
    assert batches == ["batch", "batch", "stop", "batch"]
    assert scored == ["score", "score", "stop", "score", "score"]
    assert outcome.evaluation == pushed[2].evaluation
    again, first = (load_file(folder / "open_clip_model.safetensors") for folder in (tmp_path / "out", pushed[0]))
    assert all(torch.equal(again[key], first[key]) for key in first)
    assert not any(cached_assets_path("hf_bico", namespace="ports").iterdir())


def test_a_search_takes_the_least_loss(pushed, world, tmp_path, capsys, monkeypatch):
    """Its losses are those of plain open_clip on the drawn samples; its best is what was written, and told."""
    ran = hf_bico(capsys, monkeypatch, *PORT, "--alpha", "auto", "--output", tmp_path / "out", "--format", "json")
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    search, best = report["method"]["search"], report["method"]["alpha"]
    assert [row["alpha"] for row in search] == sorted({row["alpha"] for row in search})
    assert {0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0} < {row["alpha"] for row in search}
    plus, ported, found = (
        load_file(folder / "open_clip_model.safetensors") for folder in (world / "plus", pushed[0], tmp_path / "out")
    )
    train = datasets.load_dataset(str(world / "task"), split="train").select(report["calibration"]["indices"])
    for row in search:
        weights = {key: plus[key] + row["alpha"] * (ported[key] - plus[key]) for key in plus}
        assert row["loss"] == pytest.approx(mean_loss(world / "plus", weights, train, report), rel=1e-4)
        if row["alpha"] == best:
            assert all(torch.allclose(found[key], weights[key], atol=1e-6) for key in weights)
    assert best == min(search, key=lambda row: row["loss"])["alpha"]
    assert f"--alpha {best}" in report["command"]
    card = ModelCard.load(tmp_path / "out" / "README.md").text
    assert f"| scale α | {best}, by a line search of the calibration loss" in card
    assert all(f"{row['alpha']}: {row['loss']:.4g}" in card for row in search)


def mean_loss(folder: Path, weights: dict[str, torch.Tensor], rows, report) -> float:
    """Cross-entropy of a CLIP's zero-shot head, by open_clip alone."""
    model, preprocess, words = opened(folder)
    names, prompts = (report["calibration"][key] for key in ("class_names", "templates"))
    head = open_clip.build_zero_shot_classifier(model, words, names, prompts)
    model.load_state_dict(weights)
    with torch.no_grad():
        images = torch.stack([preprocess(image.convert("RGB")) for image in rows["image"]])
        scores = model.logit_scale.exp() * model.encode_image(images, normalize=True) @ head
        return float(torch.nn.functional.cross_entropy(scores, torch.tensor(list(rows["label"]))))


def test_strategies_reach_the_report_and_the_command_draws_the_same(world, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = hf_bico(
        capsys,
        monkeypatch,
        *TINY_PORT,
        "--strategy",
        "centroid-far",
        "--per-class",
        "3",
        "--seed",
        "5",
        "--output",
        "first",
        "--format",
        "json",
    )
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    calibration = report["calibration"]
    assert (calibration["strategy"], calibration["per_class"], calibration["n"]) == ("centroid-far", 3, 12)
    assert "12 of split `train`, centroid-far, seed 5" in (tmp_path / "first" / "README.md").read_text()
    ran = hf_bico(capsys, monkeypatch, *shlex.split(report["command"])[1:], "--output", "again", "--format", "json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["calibration"] == calibration
    again, first = (load_file(tmp_path / name / "open_clip_model.safetensors") for name in ("again", "first"))
    assert all(torch.allclose(again[key], first[key], rtol=1e-5, atol=1e-7) for key in first)

    train = datasets.load_dataset(str(world / "task"), split="train")
    model, preprocess, _ = opened(world / "plus")
    with torch.no_grad():
        images = torch.stack([preprocess(image.convert("RGB")) for image in train["image"]])
        units = model.encode_image(images, normalize=True).double().numpy()
    labels = np.array(list(train["label"]))
    for label in range(4):
        own = np.flatnonzero(labels == label)
        distance = ((units[own] - units[own].mean(0)) ** 2).sum(1)
        assert set(own[np.argsort(distance)[-3:]]) == {i for i in calibration["indices"] if labels[i] == label}
