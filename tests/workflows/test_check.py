"""`check`: shares that add up, a cost that follows from counting, and a verdict that its records bear out."""

import json
import shlex
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.commands import assert_refused, hf_bico
from support.repos import write_family
from support.twins import Samples, gradient_step, random_fine_tune, tiny_clip, twin
from torch.utils.flop_counter import FlopCounterMode

from hf_bico.core.collect import collect
from hf_bico.core.halves import gather_halves, halved, held_out_loss, together
from hf_bico.core.methods import Best, BiCo, FewShot, GradFix, Naive, Theseus, TransFusion
from hf_bico.core.moments import Statistics
from hf_bico.core.pairing import pair_sites
from hf_bico.core.search import refined_search
from hf_bico.core.types import Tokens, Wanted
from hf_bico.families import family_of
from hf_bico.reports.estimate import Work, estimate, measured, retimed
from hf_bico.reports.verdict import FITTED, GOOD_FROM, POOR_BELOW, RECORDS, Grade, Signs, Trial, grade, judge, signs_of
from hf_bico.workflows import trial as explore
from hf_bico.workflows.live import job_of
from hf_bico.workflows.session import Session

WORDS = ("check", "demo/ft", "--to", "demo/plus")
DATA = ("--dataset", "demo/task", "-n", "20")


def told(capsys, monkeypatch, *words, code=0) -> dict:
    ran = hf_bico(capsys, monkeypatch, *words, "--format", "json")
    assert ran.code == code, ran
    return json.loads(ran.out)


# What would move


def test_shares_of_the_task_vector_add_up(world, capsys, monkeypatch):
    data = told(capsys, monkeypatch, *WORDS)
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
    whole, some = (told(capsys, monkeypatch, *WORDS, *words)["task_vector"] for words in ((), ("--skip", "1-2")))
    assert set(some["by_block"]) == {"block 0", "outside the blocks"}
    assert some["by_block"]["block 0"] == pytest.approx(whole["by_block"]["block 0"])
    assert some["moved_share"] == pytest.approx(whole["moved_share"] - whole["by_block"]["block 1"])
    assert any("no block of the target takes" in entry["reason"] for entry in some["left"])


# What it would cost


def work(method, **changes):
    a, b = tiny_clip(dtype=torch.float32), tiny_clip(48, 3, seed=4, dtype=torch.float32)
    sites = [family_of(model).sites(model) for model in (a, b)]
    return replace(Work(pair_sites(*sites), sites[0], method, 20, (a.state_dict(), b.state_dict())), **changes)


@pytest.mark.parametrize(
    ("method", "passes"), [(BiCo(), 4), (Theseus(), 2), (Best(), 4), (Naive(), 0), (TransFusion(), 0)]
)
def test_passes_are_those_that_torch_counts(method, passes):
    """Linear layers alone are estimated; attention's own products and the patches are the rest."""
    samples = Samples.make(20, dtype=torch.float32)
    a, b = tiny_clip(dtype=torch.float32), tiny_clip(48, 3, seed=4, dtype=torch.float32)
    job = job_of(tuned=random_fine_tune(a), base=a, target=b, calibration=samples.batches(8), loss=samples.loss)
    cost = estimate(work(method), "cpu")
    with FlopCounterMode(display=False) as counter:
        collect(job.base, job.target, job.pairs, job.batches(), Statistics(job.pairs, method.wanted))
    counted = counter.get_total_flops()
    assert cost.passes_flops == passes / 4 * estimate(work(BiCo()), "cpu").passes_flops
    assert cost.passes_flops + cost.moments_flops == pytest.approx(counted, rel=0.25)


def test_a_search_costs_a_forward_pass_of_the_target_an_alpha():
    samples, passed = Samples.make(20, dtype=torch.float32), []
    a, b = tiny_clip(dtype=torch.float32), tiny_clip(48, 3, seed=4, dtype=torch.float32)
    job = job_of(tuned=random_fine_tune(a), base=a, target=b, calibration=samples.batches(20), loss=samples.loss)
    counting = job.target._replace(loss=lambda *args: (passed.append(len(args[1][1])), samples.loss(*args))[1])
    refined_search(counting, job.batches, 20, job.weights, Naive().carry(job, Statistics(job.pairs, Wanted())).delta)
    assert 10 * 20 <= sum(passed) <= 11 * 20  # beside an α of 0 there is one more, else two
    sites = family_of(b).sites(b)
    alone = Work(pair_sites(sites, sites), sites, Theseus(), 20, (b.state_dict(), b.state_dict()))
    assert estimate(work(Naive(), search=True), "cpu").search_flops == 11 * estimate(alone, "cpu").passes_flops / 2
    assert estimate(work(Naive()), "cpu").search_flops == 0


def test_few_shot_steps_and_paths_cost_their_number():
    few, more = (estimate(work(FewShot(steps=steps)), "cpu") for steps in (1, 5))
    assert (few.moments_flops, few.stages["calibrate"]) == (0, 0)
    assert more.passes_flops == 5 * few.passes_flops > 0
    once, thrice = (estimate(work(BiCo(steps=steps)), "cpu") for steps in (1, 3))
    for name in ("passes_flops", "moments_flops", "maps_flops"):
        assert getattr(thrice, name) == 3 * getattr(once, name)
    assert thrice.moments_bytes == once.moments_bytes
    assert estimate(work(BiCo(label_free=4)), "cpu").passes_flops == 4.5 * once.passes_flops  # and one forward
    assert 0 < estimate(work(GradFix()), "cpu").passes_flops < once.passes_flops


def test_costs_grow_as_they_should():
    one, two = (estimate(work(BiCo(), n=n, evaluated=5 * n), "cpu") for n in (20, 40))
    for name in ("passes_flops", "moments_flops", "evaluation_flops"):
        assert getattr(two, name) == 2 * getattr(one, name)
    assert two.maps_flops == one.maps_flops
    text = work(BiCo())
    pairs = [type(pair)(*(replace(site, tokens=Tokens(0, sequence="text")) for site in pair)) for pair in text.pairs]
    text = replace(text, pairs=pairs, base_sites=[pair.base for pair in pairs])
    short, long = (estimate(replace(text, length=length), "cpu") for length in (16, 32))
    assert long.passes_flops == 2 * short.passes_flops
    assert long.moments_flops == 2 * short.moments_flops
    top = estimate(replace(text, length=16, on_top=(1000, 500)), "cpu")
    assert top.passes_flops - short.passes_flops == 4 * 20 * 16 * 1500


def test_an_estimate_is_told_beside_what_it_came_to():
    before = estimate(work(BiCo(), evaluated=10), "cpu")
    after = measured(before, {"calibrate": 3.0, "move": 1.0, "resolve": 100.0}, 2 * before.memory_bytes)
    assert after["measured"]["seconds"] == 4
    assert after["measured"]["times_as_long"] == pytest.approx(4 / before.seconds)
    assert after["measured"]["times_as_large"] == 2
    assert before.seconds == pytest.approx(sum(before.stages.values()))
    timed = retimed(before, {"move": 7.0})
    assert timed.seconds == pytest.approx(before.seconds - before.stages["move"] + 7)


def test_a_port_tells_what_it_was_expected_to_take(world, capsys, monkeypatch, tmp_path):
    port = ("port", "demo/ft", "--to", "demo/plus", "--dataset", "demo/task", "-n", "8", "--eval-n", "8")
    dry = told(capsys, monkeypatch, *port, "--dry-run")["estimate"]
    report = told(capsys, monkeypatch, *port, "--output", tmp_path / "out")
    assert report["estimate"]["passes_flops"] == dry["passes_flops"] > 0
    stages, seconds = report["estimate"]["measured"]["stages"], report["environment"]["seconds"]
    assert set(stages) == {"calibrate", "move", "search", "evaluate"}
    assert all(stages[name] == pytest.approx(seconds[name], abs=0.01) for name in stages)
    assert report["estimate"]["measured"]["memory_bytes"] > 0


# A port in small


def trial(a, b, tuned, samples, n):
    """A port in small on live models, losses summed."""
    job = job_of(tuned=tuned, base=a, target=b, calibration=samples.batches(n), loss=samples.loss)
    half = [replace(samples, images=samples.images[k::2], labels=samples.labels[k::2]) for k in (0, 1)]
    halves = [lambda own=own: own.batches(n) for own in half]
    method = BiCo(rtol=1e-11)

    def loss(model, own):
        with torch.no_grad():
            return float(own.loss(model, (own.images, own.labels)))

    parts = gather_halves(job, method, halves)
    after = held_out_loss(job, method, parts, halves, lambda k: loss(b, half[1 - k]))
    fine_tuned = tiny_clip(16, size=16, heads=4)
    fine_tuned.load_state_dict(tuned)
    whole = together(job, method, parts)
    return Trial(loss(b, samples), after, loss(fine_tuned, samples)), whole, job


def test_on_a_twin_a_port_in_small_recovers_all_of_a_task_that_the_samples_span():
    a, samples = tiny_clip(16, size=16, heads=4), Samples.make(240, size=16)
    tuned = gradient_step(a, samples, step=2e-3)
    found, _, _ = trial(a, twin(a), tuned, samples, 60)
    assert found.before > found.source
    assert found.recovered == pytest.approx(1, abs=0.02)


def test_either_half_is_judged_by_the_other():
    """A port of samples whose labels say nothing is no better on others, however well it fits its own."""
    a, samples = tiny_clip(16, size=16, heads=4), Samples.make(40, size=16)
    b = tiny_clip(16, size=16, heads=4, seed=5)
    found, whole, job = trial(a, b, gradient_step(a, samples, step=2e-3), samples, 20)
    both = Statistics(job.pairs, BiCo().wanted)
    collect(job.base, job.target, job.pairs, samples.batches(7), both)
    for pair in job.pairs:
        for signal in BiCo().wanted.signals:
            assert torch.allclose(whole[pair, signal].cross, both[pair, signal].cross)
    assert found.after != found.before


def test_halves_share_every_class():
    """Also where the classes come in turn, and every second sample would be of every second class."""
    labels = [i % 4 for i in range(40)] + [9]
    first, second = halved(labels)
    assert sorted(first + second) == list(range(41))
    counts = [[sum(labels[i] == k for i in half) for half in (first, second)] for k in (0, 1, 2, 3, 9)]
    assert all(abs(a - b) <= 1 for a, b in counts)
    assert halved(["a", "b", None]) == ([0, 2], [1])


def test_means_are_weighed_by_what_each_map_carries():
    a, samples = tiny_clip(16, size=16, heads=4), Samples.make(30, size=16)
    tuned = {key: tensor.clone() for key, tensor in a.state_dict().items()}
    only = "visual.transformer.resblocks.1.mlp.c_fc.weight"
    tuned[only] = random_fine_tune(a)[only]
    _, whole, job = trial(a, twin(a), tuned, samples, 30)
    moved = BiCo(rtol=1e-11).carry(job, whole).moved
    signs = signs_of(moved, {"": np.eye(2)}, {"": (0, None)}, 0.5)
    entry = next(entry for entry in moved if entry.norm)
    assert signs.input_residual == pytest.approx(entry.input.residual)
    assert signs.output_residual == pytest.approx(entry.output.residual)
    assert signs.kept == pytest.approx(entry.kept)
    assert signs.cka == 1


# The verdict


@pytest.mark.parametrize(
    ("recovered", "verdict"),
    [
        (1.0, "good"),
        (GOOD_FROM, "good"),
        (GOOD_FROM - 1e-9, "uncertain"),
        (0.0, "uncertain"),
        (POOR_BELOW, "uncertain"),
        (POOR_BELOW - 1e-9, "poor"),
        (-5.0, "poor"),
    ],
)
def test_the_verdict_goes_by_what_a_port_in_small_recovered(recovered, verdict):
    signs = Signs(0.9, 0.2, 0.5, 0.8, recovered)
    found = judge(signs, Trial(10.0, 10.0 - 8 * recovered, 2.0), FITTED)
    assert found.grade == verdict
    assert f"{recovered:.0%} of the way" in found.reasons[0]


def test_without_a_gap_there_is_nothing_to_gain():
    found = Trial(1.0, 0.9, 0.995)
    assert found.recovered is None
    assert Trial(1.0, 0.9, 0.5).recovered == pytest.approx(0.2)
    verdict = judge(Signs(1, 0, 0, 1, found.recovered), found, 50)
    assert verdict.grade is Grade.POOR
    assert "nothing to gain" in verdict.reasons[0]
    assert judge(Signs(1, 0, 0, 1, None), None, 50).grade is Grade.UNCERTAIN


@pytest.fixture(scope="module")
def fit():
    from hub_scripts.world.vision import check_fit

    yield check_fit


def test_the_records_are_those_of_the_world(fit):
    rows = fit.measured()
    assert len(rows) == 3 * 7 * 8
    for each, some in fit.graded(rows).items():
        ports, gained, median = fit.record(some)
        assert (ports, gained, round(median, 2)) == RECORDS[each]
        assert all(grade(float(row["recovered"])) is each for row in some)
    ports = fit.load()
    for row in rows[::13]:
        gap, points = fit.outcome(ports, row["source"], row["target"], row["task"])
        assert (float(row["gap"]), float(row["points"])) == pytest.approx((gap, points), abs=1e-4)


def test_the_page_shows_what_the_rows_say(fit):
    page = fit.PAGE.read_text(encoding="utf-8")
    assert fit.fill(page, fit.tables(fit.measured())) == page


# From repos


def test_samples_show_how_alike_the_blocks_are(world, capsys, monkeypatch):
    data = told(capsys, monkeypatch, *WORDS, *DATA)
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
    again = told(capsys, monkeypatch, *WORDS, *DATA, "--batch-size", "3")
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
    told(capsys, monkeypatch, *WORDS, *DATA)
    whats = [what for what, _ in told_of]
    assert whats[:10] == ["head", "loss"] * 2 + ["port", "head", "loss"] * 2
    halves = [{id(sample) for sample in samples} for _, samples in told_of[:10]]
    for first, *others in (halves[0:2], halves[2:4], halves[4:7], halves[7:10]):
        assert len(first) == 10
        assert not first & others[-1]
        assert len(others) == 1 or others[0] == first
    assert whats[10:] == ["port", "head", "loss"]  # of all samples, for the figures; then the source
    assert all(len(samples) == 20 for _, samples in told_of[10:])


def test_the_same_model_again_has_nothing_to_gain(world, capsys, monkeypatch):
    """Onto its own fine-tune; and there CKA is 1, residuals are 0 and the weights lie ‖τ‖ apart."""
    data = told(capsys, monkeypatch, "check", "demo/ft", "--to", "demo/base", *DATA)
    for row in data["blocks"]:
        assert row["input_residual"] == pytest.approx(0, abs=1e-4)
        assert row["apart"] == 0
        assert row["cka"] is None or row["cka"] == pytest.approx(1)
    data = told(capsys, monkeypatch, "check", "demo/ft", "--to", "demo/ft", *DATA)
    assert data["verdict"]["grade"] == "poor"
    assert "nothing to gain" in data["verdict"]["reasons"][0]
    assert data["scores"]["target"]["value"] == data["scores"]["source"]["value"]
    assert all(row["apart"] > 0 for row in data["blocks"])


def test_what_cannot_be_is_a_verdict_and_what_was_asked_wrongly_an_error(world, capsys, monkeypatch):
    data = told(capsys, monkeypatch, *WORDS, "--base", "demo/plus", code=1)
    assert data["verdict"]["grade"] == "impossible"
    assert "not a fine-tune of this base" in data["verdict"]["reasons"][0]
    assert data["verdict"]["next"] == ""
    data = told(capsys, monkeypatch, "check", "demo/base", "--base", "demo/base", "--to", "demo/plus", code=1)
    assert "nothing to port" in data["verdict"]["reasons"][0]
    data = told(capsys, monkeypatch, *WORDS, "--method", "gradfix", code=1)
    assert "equal shapes" in data["verdict"]["reasons"][0]
    ran = hf_bico(capsys, monkeypatch, *WORDS, "--base", "demo/plus", "-q")
    assert (ran.code, ran.out) == (1, "impossible\n")
    assert_refused(hf_bico(capsys, monkeypatch, "check", "demo/nothing", "--to", "demo/plus"), "not found")
    assert_refused(hf_bico(capsys, monkeypatch, *WORDS, "--dataset", "demo/task", "-n", "2"), "-n 4 or more")
    assert_refused(hf_bico(capsys, monkeypatch, *WORDS, *DATA, "--columns", "image=nothing"), "no image column")
    assert_refused(hf_bico(capsys, monkeypatch, *WORDS, "--method", "none"), "unknown method")
    assert_refused(hf_bico(capsys, monkeypatch, *WORDS, "--layers", "x"), "--layers is a list")


def test_a_check_is_read_by_people_and_its_next_command_runs(world, capsys, monkeypatch, tmp_path):
    ran = hf_bico(capsys, monkeypatch, *WORDS, *DATA)
    assert ran.code == 0, ran.err
    for words in ("demo/ft → demo/plus: ", "Blocks", "by layer: ", "Next: hf-bico ", "A port by bico with N = 100"):
        assert words in ran.out
    command = next(line for line in ran.out.splitlines() if line.startswith("Next: ")).removeprefix("Next: ")
    monkeypatch.chdir(tmp_path)
    following = hf_bico(capsys, monkeypatch, *shlex.split(command)[1:])
    assert following.code == 0, following.err


def test_blocks_matched_by_likeness_are_in_report_and_card(world, capsys, monkeypatch, tmp_path):
    report = told(
        capsys,
        monkeypatch,
        "port",
        "demo/ft",
        "--to",
        "demo/plus",
        "--dataset",
        "demo/task",
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
    report = told(
        capsys,
        monkeypatch,
        "port",
        "demo/ft",
        "--to",
        "demo/plus",
        "--dataset",
        "demo/task",
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
    assert not (tmp_path / "by-file" / "matching.png").exists()


@pytest.mark.parametrize("name", ["vit", "bert", "gpt2", "t5-gated", "llama"])
def test_a_twin_of_any_family_is_found_out(name, tmp_path, capsys, monkeypatch):
    """The target is the base in other coordinates: CKA 1, maps without residual, and a port in small that works."""
    write_family(tmp_path, name)
    data = told(
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
    )
    assert data["blocks"]
    for row in data["blocks"]:
        assert row["cka"] is None or row["cka"] == pytest.approx(1, abs=1e-3)
        assert row["input_residual"] == pytest.approx(0, abs=1e-3)
    assert data["task_vector"]["moved_share"] + sum(
        entry["share"] for entry in data["task_vector"]["left"]
    ) == pytest.approx(1)
    assert data["verdict"]["grade"] == "good", data["verdict"]
