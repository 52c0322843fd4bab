"""Images with texts end to end: a port to the base's twin gives the fine-tune back, live and from Hub to Hub."""

import copy
import json
import re
import shutil

import datasets
import pytest
import transformers
from huggingface_hub import HfApi, ModelCard
from support.commands import hf_bico
from support.sights import (
    KINDS,
    asked_of,
    model_of,
    processor_of,
    rows,
    stepped,
    turned,
    write_rows,
    write_world,
)
from support.twins import distance

from hf_bico import BiCo, port
from hf_bico.io.hub import Hub
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.port import run

ON_DISK = ("llava", "qwen2_vl")
"""Images of one size, and of any."""


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    made = {}

    def world(kind: str):
        if kind not in made:
            root = tmp_path_factory.mktemp(kind)
            made[kind] = root, write_world(root, kind)
        return made[kind]

    return world


def ported(root, out, **changed):
    config = {"base": str(root / "base"), "n": 24, "method": "bico", "allow_regression": True, "output": out}
    return run(PortConfig(*(str(root / part) for part in ("ft", "plus", "task")), **config | changed), Hub())


@pytest.mark.parametrize("kind", ON_DISK)
def test_a_twin_answers_as_the_fine_tune_does(kind, worlds, tmp_path):
    root, expected = worlds(kind)
    outcome = ported(root, tmp_path / "out", method_options=("rtol=1e-6",))
    folders = {"ft": root / "ft", "base": root / "base", "plus": root / "plus", "out": tmp_path / "out"}
    auto = transformers.AutoModelForImageTextToText
    models = {name: auto.from_pretrained(folder).eval() for name, folder in folders.items()}
    before, after = models["plus"].state_dict(), models["out"].state_dict()
    delta = {key: after[key] - before[key] for key in after if expected[key].any()}
    assert distance(delta, {key: expected[key] for key in delta}) < 0.1  # what was learned is not all in the samples
    own, source, bare = (outcome.report["evaluation"][what] for what in ("ported", "source", "zero_shot"))
    assert own["metric"] == "exact match" and own["value"] == source["value"] > bare["value"]
    assert own["also"]["perplexity"] == pytest.approx(source["also"]["perplexity"], rel=0.01)
    objective, samples = asked_of(models["out"], processor_of(kind), root / "task", "test")
    right = objective.per_sample(models["out"], objective.encode(samples))[:, 2]
    assert right.tolist() == generated(models["out"], processor_of(kind), samples)
    objective, samples = asked_of(models["base"], processor_of(kind), root / "task")
    given = {"tuned": models["ft"].state_dict(), "base": models["base"], "target": models["plus"]}
    live = port(**given, calibration=batches_of(objective, samples), method=BiCo(rtol=1e-6), only=["linear"])
    assert distance(dict(live.delta), {key: delta[key] for key in live.delta}) < 0.01


def batches_of(objective, samples) -> list[dict]:
    """Samples as a Trainer's DataLoader gives them, as many at a time as a port from files takes: at this rtol the
    rounding of the sums in float32 counts.
    """
    batches = [objective.encode(samples[k : k + 8]) for k in range(0, len(samples), 8)]
    return [{**batch.inputs, "labels": batch.labels} for batch in batches]


def generated(model, processor, samples) -> list[float]:
    """1 for every sample whose answer the model writes by itself, as transformers is used."""
    found = []
    for sample in samples:
        asked = [{"type": "image"}, {"type": "text", "text": sample.inputs.turns[0].parts[1]}]
        text = processor.apply_chat_template([{"role": "user", "content": asked}], add_generation_prompt=True)
        batch = processor(text=[text], images=list(sample.inputs.images), return_tensors="pt")
        written = model.generate(**batch, max_new_tokens=12, do_sample=False, eos_token_id=3)[0]
        said = processor.tokenizer.decode(written[batch["input_ids"].shape[1] :])
        found.append(float(said.startswith(f"{sample.label}<|end|>")))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_live_twin_gives_the_fine_tune_back(kind, tmp_path):
    processor = processor_of(kind)
    base = model_of(kind, processor)
    objective, samples = asked_of(base, processor, write_rows(tmp_path / "task"))
    change, target = stepped(base, objective, samples), copy.deepcopy(base)
    target.load_state_dict(turned(base, base.state_dict()))
    tuned = {key: tensor + change[key] for key, tensor in base.state_dict().items()}
    shown = batches_of(objective, samples)
    found = port(tuned=tuned, base=base, target=target, calibration=shown, method=BiCo(rtol=1e-9))
    expected = turned(base, change)
    assert {"text", ""} == {row["tower"] for row in found.report["layers"]}
    assert distance(dict(found.delta), {key: expected[key] for key in found.delta}) < 1e-4
    assert {key for key, tensor in expected.items() if tensor.any()} == set(found.delta)


def test_a_port_goes_from_hub_to_hub_between_grids_and_vocabularies(worlds, tmp_path, capsys, monkeypatch):
    """The target sees images in other patches, and cuts words differently."""
    root, api = worlds("qwen2_vl")[0], HfApi()
    processor = processor_of("qwen2_vl", side=32, other=True)
    model_of("qwen2_vl", processor, seed=5).float().save_pretrained(tmp_path / "wide")
    processor.save_pretrained(tmp_path / "wide")
    folders = {"ft": root / "ft", "base": root / "base", "wide": tmp_path / "wide", "task": root / "task"}
    for part, folder in folders.items():
        kind = "dataset" if part == "task" else "model"
        api.create_repo(f"demo/sights-{part}", repo_type=kind)
        api.upload_folder(folder_path=folder, repo_id=f"demo/sights-{part}", repo_type=kind)
    words = ["port", "demo/sights-ft", "--base", "demo/sights-base", "--to", "demo/sights-wide", "--dataset"]
    words += ["demo/sights-task", "--method", "bico", "--push-to", "demo/sights-port", "--allow-regression"]
    ran = hf_bico(capsys, monkeypatch, *words, "--format", "json")
    assert ran.code == 0, ran.err
    scores = json.loads(ran.out)["evaluation"]
    assert scores["ported"]["also"]["perplexity"] < 0.7 * scores["zero_shot"]["also"]["perplexity"]
    assert ModelCard.load("demo/sights-port").data.pipeline_tag == "image-text-to-text"
    opened = transformers.AutoModelForImageTextToText.from_pretrained("demo/sights-port")
    theirs = transformers.AutoProcessor.from_pretrained("demo/sights-port")
    batch = theirs(text=["<|image_pad|> what?"], images=[rows("test")[0]["image"]], return_tensors="pt")
    assert opened(**batch).logits.isfinite().all()


S = datasets.Value("string")
TEXTS = {"question": S, "answer": S}
WITH = {"image": datasets.Image(), **TEXTS}


@pytest.mark.parametrize(
    ("features", "change", "what"),
    [
        pytest.param(
            TEXTS,
            lambda row: {key: row[key] for key in TEXTS},
            r"for image-text-to-text, but .* samples of the kind prompt and completion; it takes images and texts "
            r"\(image or images; .*--dataset",
            id="texts alone",
        ),
        pytest.param(
            {"image": datasets.Image()},
            lambda row: {"image": row["image"]},
            "has samples of the kind image; it takes images and texts",
            id="images alone",
        ),
        pytest.param(WITH, lambda row: row | {"answer": ""}, "row 0 has no answer", id="no answer"),
        pytest.param(WITH, lambda row: row | {"image": None}, "row 0 has no image", id="no image"),
        pytest.param(
            WITH,
            lambda row: row | {"question": "<image> or <image>?"},
            "row 0 has 1 images, and its texts have places for 2",
            id="places",
        ),
        pytest.param(
            WITH,
            lambda row: row | {"question": 90 * row["question"]},
            r"row 0 of the split 'test' has \d+ tokens beside those of its images.*--max-length of \d+ or more",
            id="long",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_line(features, change, what, worlds, tmp_path, capsys, monkeypatch):
    root = worlds("llava")[0]
    task = write_rows(tmp_path / "task", features, change)
    words = ["port", str(root / "ft"), "--base", str(root / "base"), "--to", str(root / "plus"), "--dataset"]
    ran = hf_bico(capsys, monkeypatch, *words, str(task), "--output", str(tmp_path / "out"))
    assert ran.code == 2 and re.search(what, ran.err.strip().splitlines()[-1]), ran.err
    assert not (tmp_path / "out").exists()


def test_a_target_without_a_processor_is_refused(worlds, tmp_path, capsys, monkeypatch):
    root = worlds("llava")[0]
    shutil.copytree(root / "plus", tmp_path / "plus")
    (tmp_path / "plus" / "processor_config.json").unlink()
    words = ["port", str(root / "ft"), "--base", str(root / "base"), "--to", str(tmp_path / "plus"), "--dataset"]
    ran = hf_bico(capsys, monkeypatch, *words, str(root / "task"), "--output", str(tmp_path / "out"))
    assert ran.code == 2 and "has no processor of images (processor_config.json" in ran.err
