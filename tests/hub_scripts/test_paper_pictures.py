"""The papers' tables of pictures: a run against the local Hub gives `compare`'s numbers."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file
from support.papers import PICTURES, cells, run, tuned, written

from hf_bico.core.collect import Batch
from hf_bico.core.compare import compare
from hf_bico.core.methods import METHODS
from hf_bico.families import LIBRARIES
from hf_bico.io.hub import Hub
from hf_bico.tasks.asked import zero_shot_head
from hf_bico.tasks.batches import batched
from hf_bico.tasks.samples import draw, read_task, samples_of
from hf_bico.tasks.splits import HubDataset
from hf_bico.tasks.strategies import Calibration
from hf_bico.workflows.live import class_loss, job_of
from hub_scripts import paper_tables
from hub_scripts.papers import clip, plan, spec, tune

pytestmark = pytest.mark.usefixtures("one_thread")

# Pictures.


@pytest.fixture(scope="module")
def pictures(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    code, said = run(
        written(folder, PICTURES), "--output", folder / "out", "--device", "cpu", "--batch-size", 8, "--workers", 1
    )
    assert code == 0, said
    return folder


def test_fine_tunes_are_ordinary_repos(pictures, world):
    for name, base in (("small", "base"), ("large", "plus")):
        before, after = (
            load_file(folder / LIBRARIES[0].weights_file) for folder in (world / base, tuned(pictures / "out", name))
        )
        assert before.keys() == after.keys()
        changed = {key for key in before if not torch.equal(before[key], after[key])}
        assert changed
        assert all(key.startswith("visual.") for key in changed)
        LIBRARIES[0].load(tuned(pictures / "out", name), "cpu")
        assert f"base_model: demo/{base}" in (tuned(pictures / "out", name) / "README.md").read_text()


def test_picture_cells_are_those_of_compare(pictures, world):
    library, data = LIBRARIES[0], HubDataset(Hub(), Hub().resolve("demo/task", "dataset"))
    task = read_task(data, data.split("train"), {}, None)
    sides = [library.load(world / name, "cpu") for name in ("base", "plus")]
    heads = [zero_shot_head(library, side, task.class_names, task.templates) for side in sides]
    weights = load_file(tuned(pictures / "out", "small") / library.weights_file)

    def seen(side, samples):
        return (
            torch.stack([side.preprocess(sample.inputs) for sample in samples]),
            torch.tensor([sample.label for sample in samples]),
        )

    images, labels = seen(sides[1], list(samples_of(data.split("test"), range(30), task)))

    @torch.no_grad()
    def score(model):
        best = (model.encode_image(images, normalize=True) @ heads[1].T).argmax(1)
        return int((best == labels).sum()) / 30

    expected = {}
    for n in (4, 8):
        samples = draw(data.split("train"), "train", task, Calibration(n), np.zeros(60)).samples
        job = job_of(
            tuned=weights,
            base=sides[0].model,
            target=sides[1].model,
            loss=tuple(map(class_loss, heads)),
            calibration=[Batch(*(seen(side, some) for side in sides)) for some in batched(samples, 3)],
        )
        methods = {name: METHODS[name]() for name in ("naive", "bico", "input-only")}
        expected |= {(n, row.method): row.score for row in compare(job, methods, n, score)}
    assert cells(pictures / "out") == expected
    assert len({score for score in expected.values() if score is not None}) > 1
    assert set(cells(pictures / "out", "zero-shot").values()) == {score(sides[1].model)}
    fine = library.load(tuned(pictures / "out", "large"), "cpu").model
    assert set(cells(pictures / "out", "fine-tuned target").values()) == {score(fine)}


def test_page_has_the_papers_figures_and_refusals(pictures):
    page = (pictures / "out" / "tables.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| small → large")]
    assert [row.split(" | ")[1] for row in rows] == ["naive", "bico", "input-only"]
    assert "(11.5)" in rows[1]
    assert "(33.8)" in rows[1]
    assert rows[2].count("refused: input-only") == 2
    found = json.loads((pictures / "out" / "results.json").read_text())["1"]
    row, cell = found["rows"][2], next(c for c in found["accuracies"] if c["method"] == "bico")
    gap = (cell["score"] - cell["zero-shot"]) / (cell["fine-tuned target"] - cell["zero-shot"])
    assert row["recovered"] == pytest.approx(100 * gap)


def test_second_start_does_nothing_anew(pictures, monkeypatch):
    before = {path: path.read_bytes() for path in (pictures / "out").glob("*.*")}
    monkeypatch.setattr(paper_tables, "kind_of", lambda family: pytest.fail("nothing is left to do"))
    monkeypatch.setattr(plan, "fine_tunes_of", lambda *_: pytest.fail("nothing is left to make"))
    code, said = run(pictures / "tables.yaml", "--output", pictures / "out", "--device", "cpu")
    assert code == 0, said
    assert before == {path: path.read_bytes() for path in (pictures / "out").glob("*.*")}


def test_what_is_done_is_not_planned(pictures):
    said = run(pictures / "tables.yaml", "--plan", "--output", pictures / "out")[1]
    assert "to do: 0 of 1 comparisons" in said
    assert "fine-tunes to make: 0" in said


def test_interrupted_run_goes_on(pictures, tmp_path, monkeypatch):
    """Half of the lines, the last one torn: no fine-tune is made again, and the cells come out the same."""
    out = shutil.copytree(pictures / "out", tmp_path / "out")
    lines = (out / "cells.jsonl").read_text().splitlines(keepends=True)
    (out / "cells.jsonl").write_text("".join(lines[:5]) + lines[5][:20])
    monkeypatch.setattr(clip, "fine_tune", lambda *_: pytest.fail("it is there"))
    assert run(pictures / "tables.yaml", "--output", out, "--device", "cpu", "--batch-size", 8)[0] == 0
    assert cells(out) == cells(pictures / "out")
    again = (out / "cells.jsonl").read_text().splitlines(keepends=True)
    assert again[:5] == lines[:5]
    assert len(again) == len(lines)


def test_a_comparison_that_fails_stops_no_other(pictures, tmp_path):
    lost = PICTURES | {"datasets": PICTURES["datasets"] | {"lost": {"ref": "demo/nowhere"}}}
    lost["tables"] = {"1": PICTURES["tables"]["1"] | {"datasets": ["lost", "shapes"]}}
    out = shutil.copytree(pictures / "out", tmp_path / "out")
    code, said = run(written(tmp_path, lost), "--output", out, "--device", "cpu", "--batch-size", 8)
    assert code == 2
    assert said.count("Error: ") == 1
    assert "Error: small → large on lost: dataset demo/nowhere was not found" in said
    found = json.loads((out / "results.json").read_text())["1"]
    assert all(row["accuracy"] is None for row in found["rows"])


def test_given_fine_tunes_are_taken(pictures, tmp_path):
    given = PICTURES | {
        "models": {
            "small": {"ref": "demo/base", "tuned": {"shapes": "demo/ft"}},
            "large": {"ref": "demo/plus", "tuned": {"shapes": "demo/plus"}},
        }
    }
    said = run(written(tmp_path, given), "--plan", "--output", pictures / "out")[1]
    assert "fine-tunes to make: 0" in said
    assert "to do: 1 of 1" in said


def test_pickled_weights_are_converted(world, tmp_path):
    folder = tmp_path / "pickled"
    shutil.copytree(world / "plus", folder)
    tensors = load_file(folder / LIBRARIES[0].weights_file)
    (folder / LIBRARIES[0].weights_file).unlink()
    torch.save({f"module.{key}": tensor for key, tensor in tensors.items()}, folder / "model.bin")
    HfApi().create_repo("demo/pickled")
    HfApi().upload_folder(folder_path=folder, repo_id="demo/pickled")
    told = spec.Spec(
        {"old": spec.Model("demo/pickled", pickled="model.bin"), "new": spec.Model("demo/plus", pickled="model.bin")},
        {},
        {},
        {},
    )
    run_ = tune.Run(Hub(), tmp_path / "out", "cpu")
    assert clip.ready(told, "new", run_) == "demo/plus"
    ready = Path(clip.ready(told, "old", run_))
    got = load_file(ready / LIBRARIES[0].weights_file)
    assert got.keys() == tensors.keys()
    assert all(torch.equal(got[key], tensors[key]) for key in tensors)
    LIBRARIES[0].load(ready, "cpu")
