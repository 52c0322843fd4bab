"""`check`: shares that add up, a cost that follows from counting, and a verdict that its records bear out."""

import json
import shlex
import shutil

import numpy as np
import pytest
from support.commands import TINY_PORT, assert_refused, hf_bico, json_of
from support.refusals import rewrite
from support.repos import write_family

from hf_bico.core.methods import BiCo
from hf_bico.workflows import trial as explore
from hf_bico.workflows.session import Session

WORDS = ("check", "demo/ft", "--to", "demo/plus")
DATA = ("--dataset", "demo/task", "-n", "20")


# What would move


def test_shares_of_the_task_vector_add_up(world, capsys, monkeypatch):
    data = json_of(capsys, monkeypatch, *WORDS)
    vector = data["task_vector"]
    assert sum(vector["by_role"].values()) == pytest.approx(vector["moved_share"])
    assert sum(vector["by_block"].values()) == pytest.approx(vector["moved_share"])
    assert vector["moved_share"] + sum(entry["share"] for entry in vector["left"]) == pytest.approx(1)
    assert set(vector["by_block"]) == {"block 0", "block 1", "outside the blocks"}
    assert data["verdict"]["grade"] == "uncertain"
    assert "--dataset" in data["verdict"]["next"]
    assert "samples" not in data


def test_a_block_that_is_skipped_stays(world, capsys, monkeypatch):
    """Target blocks 0, 1 and 2 take from 0, 1 and 1: without 1 and 2 the source's block 1 has nowhere to go."""
    whole, some = (json_of(capsys, monkeypatch, *WORDS, *words)["task_vector"] for words in ((), ("--skip", "1-2")))
    assert set(some["by_block"]) == {"block 0", "outside the blocks"}
    assert some["by_block"]["block 0"] == pytest.approx(whole["by_block"]["block 0"])
    assert some["moved_share"] == pytest.approx(whole["moved_share"] - whole["by_block"]["block 1"])
    assert any("no block of the target takes" in entry["reason"] for entry in some["left"])


# From repos


def test_samples_show_how_alike_the_blocks_are(world, capsys, monkeypatch):
    data = json_of(capsys, monkeypatch, *WORDS, *DATA)
    assert {row["target"]: row["source"] for row in data["blocks"]} == {0: 0, 1: 1, 2: 1, None: None}
    matrix = np.array(data["cka"][""])
    assert matrix.shape == (3, 2)
    for row in data["blocks"]:
        assert all(0 <= row[name] <= 1 for name in ("input_residual", "output_residual", "input_rank", "output_rank"))
        assert row["apart"] is None  # no layer has its partner's shape
        assert row["target"] is None or row["cka"] == matrix[row["target"], row["source"]]
    lost = data["trial"]
    assert data["signs"]["recovered"] is None or data["signs"]["recovered"] == pytest.approx(
        (lost["before"] - lost["after"]) / (lost["before"] - lost["source"])
    )
    assert data["samples"]["n"] == 20
    assert data["estimate"]["n"] == 100
    again = json_of(capsys, monkeypatch, *WORDS, *DATA, "--batch-size", "3")
    assert again["signs"] == pytest.approx(data["signs"], rel=1e-3)


def test_no_sample_judges_a_port_or_a_head_that_was_made_of_it(world, capsys, monkeypatch):
    told_of, right_loss, right_head, right_carry = [], explore.loss, Session.target_as_it_is, BiCo.carry
    monkeypatch.setattr(
        explore,
        "loss",
        lambda session, asked, drawn: (told_of.append(("loss", drawn.samples)), right_loss(session, asked, drawn))[1],
    )
    monkeypatch.setattr(
        Session,
        "target_as_it_is",
        lambda self, drawn: (told_of.append(("head", drawn.samples)), right_head(self, drawn))[1],
    )
    monkeypatch.setattr(
        BiCo,
        "carry",
        lambda self, job, *rest: (
            told_of.append(("port", tuple(job.batches().samples))),
            right_carry(self, job, *rest),
        )[1],
    )
    json_of(capsys, monkeypatch, *WORDS, *DATA)
    whats = [what for what, _ in told_of]
    assert whats[:10] == ["head", "loss"] * 2 + ["port", "head", "loss"] * 2
    del told_of[10:14]  # of the naive copy, which is made of no samples
    assert whats[10:14] == ["head", "loss"] * 2
    whats = [what for what, _ in told_of]
    halves = [{id(sample) for sample in samples} for _, samples in told_of[:10]]
    for first, *others in (halves[0:2], halves[2:4], halves[4:7], halves[7:10]):
        assert len(first) == 10
        assert not first & others[-1]
        assert len(others) == 1 or others[0] == first
    assert whats[10:] == ["port", "head", "loss"]  # of all samples, for the figures; then the source
    assert all(len(samples) == 20 for _, samples in told_of[10:])


def test_the_same_model_again_has_nothing_to_gain(world, tmp_path, capsys, monkeypatch):
    """Copies but for a weight that has no say: of the base CKA is 1, residuals are 0; the fine-tune's lie ‖τ‖ apart."""
    for name in ("base", "ft"):
        shutil.copytree(world / name, tmp_path / name)
        rewrite(tmp_path / name, lambda tensors: tensors["logit_scale"].add_(1e-4))
    data = json_of(capsys, monkeypatch, "check", "demo/ft", "--to", tmp_path / "base", *DATA)
    for row in data["blocks"]:
        assert row["input_residual"] == pytest.approx(0, abs=1e-4)
        assert row["apart"] == 0
        assert row["cka"] is None or row["cka"] == pytest.approx(1)
    data = json_of(capsys, monkeypatch, "check", "demo/ft", "--to", tmp_path / "ft", *DATA)
    assert data["verdict"]["grade"] == "poor"
    assert "nothing to gain" in data["verdict"]["reasons"][0]
    assert data["scores"]["target"]["value"] == data["scores"]["source"]["value"]
    assert all(row["apart"] > 0 for row in data["blocks"])


def test_what_cannot_be_is_a_verdict_and_what_was_asked_wrongly_an_error(world, capsys, monkeypatch):
    other = ("check", "demo/ft", "--to", "demo/base", "--base", "demo/plus")
    data = json_of(capsys, monkeypatch, *other, code=1)
    assert data["verdict"]["grade"] == "impossible"
    assert "not a fine-tune of this base" in data["verdict"]["reasons"][0]
    assert data["verdict"]["next"] == ""
    data = json_of(capsys, monkeypatch, "check", "demo/base", "--base", "demo/base", "--to", "demo/plus", code=1)
    assert "nothing to port" in data["verdict"]["reasons"][0]
    data = json_of(capsys, monkeypatch, *WORDS, "--method", "gradfix", code=1)
    assert "equal shapes" in data["verdict"]["reasons"][0]
    ran = hf_bico(capsys, monkeypatch, *other, "-q")
    assert (ran.code, ran.out) == (1, "impossible\n")
    assert_refused(hf_bico(capsys, monkeypatch, "check", "demo/nothing", "--to", "demo/plus"), "not found")
    assert_refused(hf_bico(capsys, monkeypatch, *WORDS, "--dataset", "demo/task", "-n", "2"), "-n 4 or more")
    assert_refused(hf_bico(capsys, monkeypatch, *WORDS, *DATA, "--columns", "image=nothing"), "no image column")
    assert_refused(hf_bico(capsys, monkeypatch, *WORDS, "--method", "none"), "unknown method")
    assert_refused(hf_bico(capsys, monkeypatch, *WORDS, "--layers", "x"), "--layers is a list")


def test_a_check_is_read_by_people_and_its_next_command_runs(world, capsys, monkeypatch, tmp_path):
    ran = hf_bico(capsys, monkeypatch, *WORDS, *DATA)
    assert ran.code == 0, ran.err
    for words in ("demo/ft → demo/plus: ", "Blocks", "by layer ", "Next: hf-bico ", "A port by bico with N = 100"):
        assert words in ran.out
    command = next(line for line in ran.out.splitlines() if line.startswith("Next: ")).removeprefix("Next: ")
    monkeypatch.chdir(tmp_path)
    following = hf_bico(capsys, monkeypatch, *shlex.split(command)[1:])
    assert following.code == 0, following.err


def test_blocks_matched_by_likeness_are_in_report_and_card(world, capsys, monkeypatch, tmp_path):
    report = json_of(
        capsys,
        monkeypatch,
        *TINY_PORT,
        "-n",
        "12",
        "--eval-n",
        "4",
        "--matching",
        "cka",
        "--output",
        tmp_path / "out",
    )
    found = report["matching"]
    blocks = {row["target"]: row["source"] for row in report["layers"] if row["target"] is not None}
    assert found["rule"] == "cka"
    assert blocks == dict(enumerate(found["paths"][""]))
    assert np.array(found["cka"][""]).shape == (3, 2)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "](matching.png)" in card
    assert (tmp_path / "out" / "matching.png").read_bytes().startswith(b"\x89PNG")
    assert "--matching cka" in report["command"]

    (tmp_path / "pairs.yaml").write_text("{0: 1, 1: 0, 2: null}")
    monkeypatch.chdir(tmp_path)
    report = json_of(
        capsys,
        monkeypatch,
        *TINY_PORT,
        "-n",
        "12",
        "--eval-n",
        "4",
        "--matching",
        tmp_path / "pairs.yaml",
        "--output",
        tmp_path / "by-file",
    )
    assert {row["target"]: row["source"] for row in report["layers"] if row["target"] is not None} == {0: 1, 1: 0}
    assert report["matching"]["rule"] == "pairs.yaml"
    card = (tmp_path / "by-file" / "README.md").read_text()
    assert str(tmp_path) not in card + json.dumps(report["matching"])
    assert (
        list(report["matching"]["paths"].values()) == [[1, 0, None]]
        and (tmp_path / "by-file" / "matching.png").exists()
    )


@pytest.mark.parametrize("name", ["vit", "bert", "gpt2", "t5-gated", "llama"])
def test_a_twin_of_any_family_is_found_out(name, tmp_path, capsys, monkeypatch):
    """The target is the base in other coordinates: CKA 1, maps without residual, and a trial port that works."""
    write_family(tmp_path, name)
    data = json_of(
        capsys,
        monkeypatch,
        "check",
        tmp_path / "ft",
        "--base",
        tmp_path / "base",
        "--to",
        tmp_path / "plus",
        "--dataset",
        tmp_path / "task",
        "-n",
        "60",
        "--allow-regression",  # there is nothing to learn in these labels
    )
    assert data["blocks"]
    for row in data["blocks"]:
        assert row["cka"] is None or row["cka"] == pytest.approx(1, abs=1e-3)
        assert row["input_residual"] == pytest.approx(0, abs=1e-3)
    assert data["task_vector"]["moved_share"] + sum(
        entry["share"] for entry in data["task_vector"]["left"]
    ) == pytest.approx(1)
    assert data["verdict"]["grade"] == "good", data["verdict"]
    assert any("nothing was counted on texts" in reason for reason in data["verdict"]["reasons"]) == (name != "vit")
