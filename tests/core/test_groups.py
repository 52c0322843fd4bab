"""Layers ported group by group: the port of all at once, bit for bit, in a pass a group."""

from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from support.expert_twins import MIXTURES
from support.family_twins import CASES, gradient_step
from support.twins import Samples, random_fine_tune, tiny_clip

from hf_bico import class_scores
from hf_bico.core.chain import carry, gather
from hf_bico.core.collect import Batch
from hf_bico.core.groups import blocks, grouped, moments_bytes
from hf_bico.core.methods import METHODS, BiCo, GradientOnly, InputOnly, OutputOnly, Theseus, Weighted, method_of
from hf_bico.core.moments import Statistics
from hf_bico.reports.report import Clock
from hf_bico.workflows.in_groups import by_groups
from hf_bico.workflows.live import job_of

SAMPLES = Samples.make(12, dtype=torch.float32)


def clips(width: int = 48, depth: int = 3, **changes):
    base, target = tiny_clip(dtype=torch.float32), tiny_clip(width, depth, seed=4, dtype=torch.float32)
    return job_of(
        tuned=random_fine_tune(base),
        base=base,
        target=target,
        calibration=SAMPLES.batches(5),
        **{"loss": SAMPLES.loss, **changes},
    )


def family(name: str):
    case = (CASES | MIXTURES)[name]
    base, target = case.build(), case.build(seed=3)
    batches = [Batch(one, one) for one in (case.samples(8, seed=seed) for seed in range(2))]
    tuned = gradient_step(base, case.loss, case.samples(8))
    return job_of(tuned=tuned, base=base, target=target, calibration=batches, loss=case.loss)


def at_once(job, method):
    return carry(job, method, gather(job, method.wanted))


def require_same(found, expected):
    assert found.delta.keys() == expected.delta.keys()
    for key, change in expected.delta.items():
        assert torch.equal(found.delta[key], change), key
    assert list(found.moved) == list(expected.moved)
    assert list(found.rode) == list(expected.rode)


@pytest.mark.parametrize("method", [BiCo(), BiCo(completion="filled"), Theseus(), Weighted(), GradientOnly()])
def test_groups_give_the_port_of_all_at_once_bit_for_bit(method):
    """Weighted shares a layer of A among its heirs in other groups."""
    job = clips()
    groups = list(blocks(job.pairs))
    assert len(groups) > 3
    require_same(by_groups(job, method, groups, Clock()), at_once(job, method))


@pytest.mark.parametrize("method", [InputOnly(), OutputOnly()])
def test_one_sided_methods_too(method):
    job = clips(32)
    require_same(by_groups(job, method, list(blocks(job.pairs)), Clock()), at_once(job, method))


def test_label_free_draws_are_the_same_in_every_group():
    head = torch.nn.functional.normalize(torch.randn(7, 32, generator=torch.Generator().manual_seed(5)), dim=-1)
    scores = class_scores(head), class_scores(head)
    job, method = clips(scores=scores), BiCo(label_free=2)
    require_same(by_groups(job, method, list(blocks(job.pairs)), Clock()), at_once(job, method))


@pytest.mark.parametrize("name", ["llama", "t5", "bert", "gpt2", "mixtral"])
def test_families_too(name):
    """An encoder's output is read by every block of the decoder; experts follow their router."""
    job = family(name)
    require_same(by_groups(job, BiCo(), list(blocks(job.pairs)), Clock()), at_once(job, BiCo()))


def test_a_pass_a_group_and_one_groups_sums_at_a_time(monkeypatch):
    passed, held, sizes = [], [], []
    job = clips()
    job = replace(job, batches=lambda own=job.batches: (passed.append("pass"), own())[1])
    right = Statistics.__init__
    monkeypatch.setattr(Statistics, "__init__", lambda self, *given: (right(self, *given), held.append(self))[0])
    spend = Statistics.spend
    monkeypatch.setattr(Statistics, "spend", lambda self, pairs: (sizes.append(held_bytes(self)), spend(self, pairs)))
    limit = moments_bytes(job.pairs, BiCo().wanted) / 2
    groups = grouped(job.pairs, BiCo().wanted, limit)
    assert 2 <= len(groups) <= 3
    by_groups(job, BiCo(), groups, Clock())
    assert len(passed) == len(groups) == len(held)
    assert sizes == [moments_bytes(job.pairs[group], BiCo().wanted) for group in groups]
    assert max(sizes) <= limit
    assert [held_bytes(each) for each in held] == [0] * len(groups)


@pytest.mark.parametrize("method", [BiCo(), BiCo(completion="filled"), Weighted(), GradientOnly()])
def test_moments_go_as_their_layers_move(method):
    """The port is the same, and at no time is there more than what is still to be planned."""
    for job in (clips(), family("mixtral"), family("t5")):  # whose decoder reads one stream in every block
        expected = at_once(job, method)
        seen, left = gather(job, method.wanted), []
        whole = held_bytes(seen)
        require_same(carry(job, method, seen, last=True, track=partial(watched, seen, left)), expected)
        assert held_bytes(seen) == 0
        assert left == sorted(left, reverse=True) and left[len(left) // 2] < 0.7 * whole


def watched(seen, left, maps, *_):
    for each in maps:
        left.append(held_bytes(seen))
        yield each


def held_bytes(seen: Statistics) -> int:
    return sum(part.cross.nbytes for _, part in seen.parts())


def test_groups_are_whole_blocks_and_as_few_as_fit():
    job = clips(depth=5)
    wanted, whole = Weighted().wanted, list(blocks(job.pairs))
    assert grouped(job.pairs, wanted, float("inf")) == (slice(0, len(job.pairs)),)
    assert grouped(job.pairs, wanted, 0) == tuple(whole)
    each = [moments_bytes(job.pairs[block], wanted) for block in whole]
    for limit in (max(each), 2 * max(each), sum(each) - 1):
        groups = grouped(job.pairs, wanted, limit)
        assert [pair for group in groups for pair in job.pairs[group]] == list(job.pairs)
        assert all(moments_bytes(job.pairs[group], wanted) <= limit for group in groups)
        ahead = [slice(a.start, b.stop) for a, b in pairwise(groups)]
        assert all(moments_bytes(job.pairs[both], wanted) > limit for both in ahead)


def test_methods_that_need_all_layers_say_so():
    """What overrides `carry` does not go layer by layer, unless it says so."""
    found = {name for name in METHODS if method_of(name).by_layer}
    assert found == {"bico", "weighted", "theseus", "input-only", "output-only", "gradient-only"}
    assert not BiCo(steps=2).by_layer
