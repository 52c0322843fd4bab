"""What a finished port, a comparison and a check say of it, and what is pushed, through the commands."""

import json

import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file
from support.commands import hf_bico, json_of
from support.twins import random_fine_tune
from support.world import config, open_clip, write_model

from hf_bico.reports.card import WORDS
from hf_bico.reports.report import PortReport

WEIGHTS = "open_clip_model.safetensors"
TASK = ("--dataset", "demo/task")
FEW = ("--method", "gradient-only", "-n", "4")
"""A port that says little: maps of four samples."""


@pytest.fixture(scope="module")
def newer(world, tmp_path_factory):
    """The next version of demo/base: it was trained on, so that its weights are still near."""
    folder, small = tmp_path_factory.mktemp("newer") / "newer", config(32, 2, 32)
    model = open_clip.CLIP(**small["model_cfg"])
    model.load_state_dict(load_file(world / "base" / WEIGHTS))
    write_model(folder, small, random_fine_tune(model, scale=0.002, seed=9))
    return folder


def test_a_port_below_the_naive_copy_is_not_pushed(newer, capsys, monkeypatch, tmp_path):
    """As users met it: to the next version of a base the naive copy serves, and another method was published."""
    words = ("port", "demo/ft", "--to", newer, *TASK, *FEW)
    ran = hf_bico(capsys, monkeypatch, *words, "--push-to", "demo/below", "--output", tmp_path / "out")
    assert ran.code == 2
    assert "not pushed: " in ran.err and "use --method naive" in ran.err and "--allow-regression" in ran.err
    assert not HfApi().repo_exists("demo/below")
    assert "Verdict: " in ran.out and "Next: the naive copy is better: use --method naive" in ran.out
    report = json.loads((tmp_path / "out" / "hf_bico.json").read_text())
    scores = report["evaluation"]
    assert scores["naive"]["value"] > scores["ported"]["value"] >= scores["zero_shot"]["value"]
    assert report["verdict"]["pushable"] is False
    assert PortReport.from_json(report).verdict.word == report["verdict"]["word"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"**{WORDS[report['verdict']['word']]}.**" in card and "use --method naive" in card

    pushed = json_of(capsys, monkeypatch, *words, "--push-to", "demo/below", "--allow-regression")
    assert pushed["url"] and HfApi().repo_exists("demo/below")
    taken = json_of(capsys, monkeypatch, *words[:-4], "-n", "4", "--method", "naive", "--push-to", "demo/naive")
    assert taken["verdict"] == taken["verdict"] | {"word": "works", "pushable": True}
    assert taken["url"]


@pytest.mark.parametrize("method", ["naive", "gradient-only"])
def test_what_rests_on_few_samples_is_said_wherever_the_verdict_is(method, newer, capsys, monkeypatch, tmp_path):
    """Of a port that works too, of which the card tells no reason."""
    words = ("port", "demo/ft", "--to", newer, *TASK, *FEW[2:], "--method", method, "--eval-n", "20")
    ran = hf_bico(capsys, monkeypatch, *words, "--output", tmp_path / "out")
    assert ran.code == 0, ran.err
    report = PortReport.from_json(json.loads((tmp_path / "out" / "hf_bico.json").read_text()))
    ported = report.evaluation.ported
    assert ported.high - ported.low > 0.2
    said = f"his rests on 20 samples, and the 95 % interval is wide ({ported.interval})"
    for text in (ran.out, report.verdict.reason, (tmp_path / "out" / "README.md").read_text()):
        assert text.count(said) == 1


def test_no_change_is_no_port(world, capsys, monkeypatch):
    words = ("port", "demo/ft", "--to", "demo/plus", *TASK, "-n", "12")
    ran = hf_bico(capsys, monkeypatch, *words, "--alpha", "0", "--push-to", "demo/unchanged")
    assert ran.code == 2
    assert "not pushed: the port is the new base as it was: α = 0" in ran.err
    assert not HfApi().repo_exists("demo/unchanged")
    assert "Verdict: no gain" in ran.out
    skipped = json_of(capsys, monkeypatch, *words, "--alpha", "1e-12")
    assert skipped["verdict"]["word"] == "no gain"


def test_a_comparison_judges_the_means(newer, capsys, monkeypatch, tmp_path):
    words = ("compare", "demo/ft", "--to", newer, *TASK, "-n", "4", "--seeds", "2", "--output", tmp_path / "out")
    ran = hf_bico(capsys, monkeypatch, *words, "--method", "naive", "--method", "gradient-only")
    assert ran.code == 0, ran.err
    data = json.loads((tmp_path / "out" / "compare.json").read_text())
    naive, other = data["summary"]
    assert naive["verdict"] == naive["verdict"] | {"word": "works", "pushable": True}
    assert other["score"] < naive["score"]
    assert not other["verdict"]["pushable"] and "--method naive" in other["verdict"]["next"]
    for text in (ran.out, (tmp_path / "out" / "compare.md").read_text()):
        assert "Next: hf-bico port demo/ft --to ./newer --dataset demo/task" in text
        assert "--method naive --alpha 1 -n 4 --output ported (" in text
        assert "works" in text


def test_a_comparison_counts_every_metric(capsys, monkeypatch):
    from hf_bico.reports.tables import advice, judged
    from hf_bico.tasks.scores import Score

    start = Score.of(10, 100, "exact match", {"perplexity": 5.0})
    entry = {"method": "bico", "alpha": 1.0, "n": 4, "per_class": None, "scale": 1.0, "score": 0.6}
    better, worse = judged(
        [
            entry | {"also": {"perplexity": 4.0}},
            entry | {"method": "weighted", "score": 0.9, "also": {"perplexity": 6.0}},
        ],
        start,
        Score.of(90, 100, "exact match"),
        0,
    )
    assert (better["verdict"]["word"], worse["verdict"]["word"]) == ("works", "harmful")
    data = {"summary": [better, worse], "evaluation": {"metric": "exact match"}}
    assert "--method bico" in advice(data)
    assert "fine-tune the new base" in advice(data | {"summary": [worse]})


def test_a_check_names_the_naive_copy_where_it_does_better(newer, capsys, monkeypatch):
    words = ("check", "demo/ft", "--to", newer, *TASK, "-n", "8", "--method", "gradient-only")
    data = json_of(capsys, monkeypatch, *words)
    trial = data["trial"]
    assert trial["naive"] < trial["after"]
    assert any("the naive copy is better" in reason for reason in data["verdict"]["reasons"])
    assert data["verdict"]["instead"] == "naive"
    assert "port" in data["verdict"]["next"] and "--method naive" in data["verdict"]["next"]


def test_rows_of_a_comparison_carry_other_metrics():
    from support.twins import Samples, tiny_clip

    from hf_bico import Naive
    from hf_bico.core.compare import compare
    from hf_bico.workflows.live import job_of

    a, b, samples = tiny_clip(), tiny_clip(48, 3, seed=4), Samples.make(8)
    job = job_of(tuned=random_fine_tune(a), base=a, target=b, calibration=samples.batches(8), loss=samples.loss)
    with torch.no_grad():
        (row,) = compare(job, {"naive": Naive()}, 8, lambda model: (0.5, {"perplexity": 2.0}))
    assert (row.score, row.also) == (0.5, {"perplexity": 2.0})
