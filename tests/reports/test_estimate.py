"""What a port would cost: counted as torch counts, growing as it should, told beside what it came to."""

from dataclasses import replace

import pytest
import torch
from support.commands import json_of
from support.twins import Samples, random_fine_tune, tiny_clip
from torch.utils.flop_counter import FlopCounterMode

from hf_bico.core.collect import collect
from hf_bico.core.methods import BiCo, FewShot, GradFix, Naive, Theseus, TransFusion, Weighted
from hf_bico.core.moments import Statistics
from hf_bico.core.pairing import pair_sites
from hf_bico.core.search import refined_search
from hf_bico.core.types import Tokens, Wanted
from hf_bico.families import family_of
from hf_bico.reports.estimate import estimate, measured, retimed
from hf_bico.reports.memory import Work
from hf_bico.workflows.live import job_of

# What it would cost


def work(method, **changes):
    a, b = tiny_clip(dtype=torch.float32), tiny_clip(48, 3, seed=4, dtype=torch.float32)
    sites = [family_of(model).sites(model) for model in (a, b)]
    return replace(Work(pair_sites(*sites), sites[0], method, 20, (a.state_dict(), b.state_dict())), **changes)


@pytest.mark.parametrize(
    ("method", "passes"), [(BiCo(), 4), (Theseus(), 2), (Weighted(), 4), (Naive(), 0), (TransFusion(), 0)]
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
    few, more = (estimate(work(FewShot(steps=steps, rate=1e-3)), "cpu") for steps in (1, 5))
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
    dry = json_of(capsys, monkeypatch, *port, "--dry-run")["estimate"]
    report = json_of(capsys, monkeypatch, *port, "--output", tmp_path / "out")
    assert report["estimate"]["passes_flops"] == dry["passes_flops"] > 0
    stages, seconds = report["estimate"]["measured"]["stages"], report["environment"]["seconds"]
    assert set(stages) == {"calibrate", "move", "search", "evaluate"}
    assert all(stages[name] == pytest.approx(seconds[name], abs=0.01) for name in stages)
    assert report["estimate"]["measured"]["memory_bytes"] > 0
