"""The main job end to end, over HTTP with the real clients."""

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import open_clip
import pytest
import torch
from huggingface_hub import HfApi, ModelCard, cached_assets_path, hf_hub_download
from safetensors.torch import load_file
from support.commands import assert_refused, hf_bico
from support.world import config, write_dataset, write_model

from hf_bico import PortError, class_loss
from hf_bico import port as port_live
from hf_bico.core import collect
from hf_bico.core import method as protocol
from hf_bico.core.collect import Batch
from hf_bico.core.errors import listed
from hf_bico.families import FAMILIES, LIBRARIES
from hf_bico.io import workspace, writer
from hf_bico.io.hub import Hub
from hf_bico.tasks.asked import zero_shot_head
from hf_bico.tasks.batches import batched
from hf_bico.tasks.evaluation import Evaluator
from hf_bico.tasks.samples import classes_of, draw, read_task
from hf_bico.tasks.splits import HubDataset
from hf_bico.tasks.strategies import Calibration
from hf_bico.workflows import session as prepare
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.port import run

PORT = ("port", "demo/ft", "--to", "demo/plus", "--dataset", "demo/task", "-n", "20", "--allow-regression")


@pytest.fixture(scope="module")
def pushed(world, tmp_path_factory):
    """One port that was written and pushed: its folder, its repo and its outcome."""
    folder = tmp_path_factory.mktemp("out") / "ported"
    chosen = PortConfig(
        "demo/ft", "demo/plus", "demo/task", n=20, output=folder, push_to="demo/pushed", allow_regression=True
    )
    return folder, "demo/pushed", run(chosen, Hub())


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


@pytest.fixture(scope="module")
def live(world):
    """The target's tensors after the same port between live modules, without the Hub."""
    hub = Hub()
    dataset = HubDataset(hub, hub.resolve("demo/task", "dataset"))
    split = dataset.split("train")
    task = read_task(dataset, split, {}, None)
    twenty = Calibration(n=20)
    samples = draw(split, "train", task, twenty, classes_of(split, task, twenty)).samples
    base, target = sides = [LIBRARIES[0].load(world / name, "cpu") for name in ("base", "plus")]
    heads = [zero_shot_head(LIBRARIES[0], side, task.class_names, task.templates) for side in sides]
    for name, head in zip(("base", "plus"), heads, strict=True):
        model, _, words = opened(world / name)
        theirs = open_clip.build_zero_shot_classifier(model, words, task.class_names, task.templates).T
        assert torch.allclose(head, theirs, atol=1e-6)  # maps of few samples turn further on such a difference
    calibration = [
        Batch(
            *(
                (
                    torch.stack([side.preprocess(sample.inputs) for sample in some]),
                    torch.tensor([sample.label for sample in some]),
                )
                for side in sides
            )
        )
        for some in batched(samples, 8)
    ]
    ported = port_live(
        tuned=load_file(world / "ft" / "open_clip_model.safetensors"),
        base=base.model,
        target=target.model,
        calibration=calibration,
        loss=tuple(class_loss(head) for head in heads),
    )
    return ported.apply_().state_dict()


def opened(folder: Path):
    """A model, its preprocessing and its tokenizer, by open_clip alone."""
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    return model.eval(), preprocess, open_clip.get_tokenizer(f"local-dir:{folder}")


def same(folder: Path, tensors: dict[str, torch.Tensor]) -> bool:
    written = load_file(folder / "open_clip_model.safetensors")
    return written.keys() == tensors.keys() and all(
        torch.allclose(written[key], tensors[key], rtol=1e-5, atol=1e-7) for key in tensors
    )


def test_live_objects_and_hub_give_the_same_tensors(pushed, live):
    assert same(pushed[0], live)


@pytest.mark.parametrize(
    ("owner", "name", "wrong"),
    [
        (writer, "added", lambda right: lambda base, delta, alpha: right(base, delta, 7 * alpha)),
        (writer, "added", lambda right: lambda base, delta, alpha: right(base, delta, 0.0)),
        (protocol, "transport", lambda right: lambda tau, maps, target: right(tau, list(maps)[:-1], target)),
        (
            prepare,
            "draw",
            lambda right: (
                lambda split, name, task, calibration, *rest: right(
                    split, name, task, replace(calibration, seed=calibration.seed + 1), *rest
                )
            ),
        ),
        (
            prepare,
            "objective_of",
            lambda right: (
                lambda *args, **how: (lambda objective: replace(objective, head=objective.head.flip(0)))(
                    right(*args, **how)
                )
            ),
        ),
    ],
    ids=["times seven", "zeroed", "a layer dropped", "other samples", "classes reversed"],
)
def test_mutants_of_the_pipeline_die(world, live, tmp_path, monkeypatch, owner, name, wrong):
    monkeypatch.setattr(owner, name, wrong(getattr(owner, name)))
    run(PortConfig("demo/ft", "demo/plus", "demo/task", n=20, output=tmp_path / "out"), Hub())
    assert not same(tmp_path / "out", live)


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
    snippet = card.text.split("```python\n")[1].split("```")[0]
    names = {}
    exec(snippet, names)
    assert torch.equal(names["model"].visual.proj, open_clip.create_model(f"hf-hub:{repo}").visual.proj)


def test_the_cards_command_does_it_again(pushed, tmp_path, monkeypatch, capsys):
    command = ModelCard.load(pushed[1]).text.split("```\nhf-bico ")[1].split("\n```")[0]
    monkeypatch.chdir(tmp_path)
    assert hf_bico(capsys, monkeypatch, *shlex.split(command)).code == 0
    again, first = (load_file(folder / "open_clip_model.safetensors") for folder in (tmp_path / "ported", pushed[0]))
    assert all(torch.allclose(again[key], first[key], rtol=1e-5, atol=1e-7) for key in first)


def test_default_name_private_and_message(world, capsys, monkeypatch):
    ran = hf_bico(capsys, monkeypatch, *PORT, "--push", "--private", "--commit-message", "By hand", "-q")
    assert ran.code == 0
    assert ran.out.strip().startswith(f"{HfApi().endpoint}/demo/ft-on-plus/commit/")
    assert ran.err == ""
    info = HfApi().model_info("demo/ft-on-plus")
    assert info.private
    assert HfApi().list_repo_commits("demo/ft-on-plus")[0].title == "By hand"


def test_pull_request_leaves_main_alone(pushed, capsys, monkeypatch):
    head = HfApi().model_info("demo/plus").sha
    ran = hf_bico(capsys, monkeypatch, *PORT, "--push-to", "demo/plus", "--create-pr", "--format", "json")
    assert ran.code == 0
    assert "/discussions/1" in json.loads(ran.out)["url"]
    assert HfApi().model_info("demo/plus").sha == head
    proposed = hf_hub_download("demo/plus", "hf_bico.json", revision="refs/pr/1")
    assert json.loads(Path(proposed).read_text())["method"]["name"] == "bico"


def test_a_head_that_moved_is_not_overwritten(pushed):
    """Someone commits to the repo while the port is at work."""
    api, repo = HfApi(), pushed[1]

    def track(items, what, total):
        if what == "Calibrating":
            api.upload_file(path_or_fileobj=b"mine", path_in_repo="notes.txt", repo_id=repo)
        return items

    chosen = PortConfig("demo/ft", "demo/plus", "demo/task", n=20, push_to=repo, allow_regression=True, seed=1)
    with pytest.raises(PortError, match="has moved since") as refusal:
        run(chosen, Hub(), track)
    kept = Path(str(refusal.value).split("kept in ")[1].rstrip(")"))
    assert (kept / "open_clip_model.safetensors").exists()
    shutil.rmtree(kept.parent)
    assert api.list_repo_commits(repo)[0].title == "Upload notes.txt with huggingface_hub"


def test_a_repo_that_appears_meanwhile_is_not_overwritten(world):
    api = HfApi()

    def track(items, what, total):
        if what == "Calibrating":
            api.create_repo("demo/meanwhile")
        return items

    chosen = PortConfig("demo/ft", "demo/plus", "demo/task", n=20, push_to="demo/meanwhile", allow_regression=True)
    with pytest.raises(PortError, match="has moved since"):
        run(chosen, Hub(), track)


def test_somebody_elses_repo_is_not_overwritten(world, capsys, monkeypatch):
    assert_refused(hf_bico(capsys, monkeypatch, *PORT, "--push-to", "demo/base"), "not a port of demo/ft", "--push-to")


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


def test_a_folder_of_the_same_name_does_not_stand_in_for_the_hub(pushed, world, tmp_path, capsys, monkeypatch):
    write_dataset(tmp_path / "demo" / "task", {"train": 25, "test": 25})
    write_model(tmp_path / "demo" / "base", config(32, 2, 32), seed=9)
    monkeypatch.chdir(tmp_path)
    ran = hf_bico(
        capsys,
        monkeypatch,
        "port",
        "demo/ft",
        "--to",
        "demo/plus",
        "--dataset",
        "hf://demo/task",
        "-n",
        "20",
        "--output",
        "out",
        "--format",
        "json",
    )
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["calibration"]["content_sha256"] == pushed[2].report["calibration"]["content_sha256"]


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
    chosen = PortConfig("demo/ft", "demo/plus", "demo/task", n=20, output=tmp_path / "out")
    batches, scored = [], []
    right = {"add": collect._add_batch, "per sample": Evaluator.per_sample}

    def add(statistics, source, target, pairs, batch):
        if len(batches) == 2:
            batches.append("stop")
            raise KeyboardInterrupt
        batches.append("batch")
        right["add"](statistics, source, target, pairs, batch)

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
        "port",
        "demo/ft",
        "--to",
        "demo/plus",
        "--dataset",
        "demo/task",
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
    ran = hf_bico(capsys, monkeypatch, *shlex.split(report["command"])[1:], "--format", "json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["calibration"] == calibration
    again, first = (load_file(tmp_path / name / "open_clip_model.safetensors") for name in ("ported", "first"))
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


def test_long_lists_say_how_much_they_leave_out():
    assert listed(["a", "b", "c"], most=2) == "a, b and 1 more"
