"""The default: a port whose method and head are chosen on held-out samples, from repos."""

import json

import datasets
import numpy as np
from huggingface_hub import ModelCard
from PIL import Image
from support.family_twins import CLASSES
from support.repos import NAMES, write_family

from hf_bico.io.hub import Hub
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.port import run

DEMO = ("demo/ft", "demo/plus", "demo/task")


def test_a_port_tells_what_was_tried_and_has_the_papers_row(world, tmp_path):
    run(PortConfig(*DEMO, n=20, output=tmp_path / "auto"), Hub())
    paper = run(PortConfig(*DEMO, n=20, method="bico"), Hub()).evaluation
    report = json.loads((tmp_path / "auto" / "hf_bico.json").read_text())
    method, scores = report["method"], report["evaluation"]
    choice = method["choice"]
    assert method["name"] == "auto" and method["alpha"] == 1.0
    assert {"naive", "bico", "weighted", "response", "blend"} <= {each["method"] for each in choice["tried"]}
    assert choice["chosen"]["loss"] == min(each["loss"] for each in choice["tried"] if each["loss"] is not None)
    assert "bico" in scores
    assert scores["bico"]["value"] == paper.ported.value
    assert "--method auto" in report["command"]
    card = ModelCard.load(tmp_path / "auto" / "README.md").text
    (taken,) = [line for line in card.splitlines() if "**taken**" in line]
    assert taken.startswith(f"| {choice['chosen']['method']}")
    assert "| the new base without a port | 0 |" in card
    assert "by bico, the paper's method" in card
    paths = report["matching"]["paths"].values()  # the picture of blocks is on every card whose samples had a say
    assert "(matching.png)" in card and list(paths) == [[0, 1, 1]]


def test_the_same_samples_give_the_same_port(world, tmp_path):
    written = []
    for name in ("one", "other"):
        run(PortConfig(*DEMO, n=20, eval_n=8, allow_regression=True, output=tmp_path / name), Hub())
        written.append((tmp_path / name / "open_clip_model.safetensors").read_bytes())
    assert written[0] == written[1]


def coloured(split: str) -> datasets.Dataset:
    """Images whose class is their brightness."""
    generator, labels = np.random.default_rng(split == "test"), [i % CLASSES for i in range(66)]
    images = [
        Image.fromarray(np.clip(generator.normal(40 + 170 * label / CLASSES, 8, (16, 16, 3)), 0, 255).astype(np.uint8))
        for label in labels
    ]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(NAMES))})
    return datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)


def test_a_head_that_was_carried_badly_is_fitted(tmp_path):
    """The fine-tune's own head knows nothing of these images."""
    write_family(tmp_path, "vit")
    for split in ("train", "test"):
        (tmp_path / "colours" / "data").mkdir(parents=True, exist_ok=True)
        coloured(split).to_parquet(tmp_path / "colours" / "data" / f"{split}-00000-of-00001.parquet")
    places = {name: str(tmp_path / part) for name, part in (("source", "ft"), ("target", "plus"), ("base", "base"))}
    chosen = PortConfig(**places, dataset=str(tmp_path / "colours"), n=40, allow_regression=True)
    for head, kind in ((None, "ridge"), ("transport", "transport")):
        outcome = run(PortConfig(**vars(chosen) | {"head": head, "output": tmp_path / f"{head}"}), Hub())
        assert outcome.report["head"]["kind"] == kind
        if head is None:
            tried = outcome.report["head"]["tried"]
            assert tried["ridge"] < tried["transport"]
            fitted = outcome.evaluation.ported.value
    assert fitted > outcome.evaluation.ported.value
    assert "chosen by the loss" in (tmp_path / "None" / "README.md").read_text()
