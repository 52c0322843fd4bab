"""The likeness of blocks that a picture shows: 1 for a twin, about 0 for chance, and blind to how samples are cut."""

import pytest
import torch
from support.twins import Samples, tiny_clip, twin

from hf_bico.core.collect import Batch, Elsewhere, Side
from hf_bico.core.likeness import FEWEST, MOST, cka, likeness
from hf_bico.families import family_of


def found(a, b, samples, batches=None):
    sides = Side(a, samples.loss), Side(b, samples.loss)
    sites = tuple(family_of(model).sites(model) for model in (a, b))
    return likeness(*sides, sites, samples.batches(4) if batches is None else batches)


def test_a_rotated_and_scaled_copy_is_wholly_alike_and_chance_is_not():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(40, d, generator=generator, dtype=torch.float64) for d in (300, 200))
    turn = torch.linalg.qr(torch.randn(300, 300, generator=generator, dtype=torch.float64)).Q
    assert cka(x, 3 * x @ turn + 5) == pytest.approx(1)
    assert cka(x, y) < 0.1  # the biased one is 0.85 here, for there are fewer samples than features
    assert cka(x, torch.ones(40, 7, dtype=torch.float64)) == 0


def test_debiased_is_the_mean_over_all_fours():
    """HSIC's unbiased estimate is the mean of k(i,j) [l(i,j) + l(q,r) − 2 l(i,q)] over unlike i, j, q, r."""
    from itertools import permutations

    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(6, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    x[:, 0] += y[:, 0]

    def hsic(k, l):
        fours = list(permutations(range(6), 4))
        return sum(k[i, j] * (l[i, j] + l[q, r] - 2 * l[i, q]) for i, j, q, r in fours) / len(fours)

    k, l = x @ x.T, y @ y.T
    assert cka(x, y) == pytest.approx(float(hsic(k, l) / (hsic(k, k) * hsic(l, l)) ** 0.5))


def test_a_models_blocks_are_alike_to_a_twins():
    model = tiny_clip(16, 3)
    matrix = found(model, twin(model), Samples.make(16))[""]
    assert matrix.shape == (3, 3)
    assert matrix.diagonal() == pytest.approx([1, 1, 1])


def test_the_cut_into_batches_and_other_ranks_change_nothing():
    a, b, samples = tiny_clip(16, 2), tiny_clip(24, 3, seed=3), Samples.make(16)
    whole, halves = found(a, b, samples, samples.batches(16))[""], found(a, b, samples)[""]
    assert whole == pytest.approx(halves, abs=1e-6)
    assert found(a, b, samples, [Elsewhere(4), *samples.batches(4)])[""] == pytest.approx(halves)


def test_few_samples_show_nothing_and_many_are_not_all_passed():
    a, samples = tiny_clip(16, 2), Samples.make(FEWEST - 1)
    assert found(a, a, samples) == {}
    samples, passed = Samples.make(16), []

    def endless():
        while True:
            passed.append(Batch(*next(iter(samples.batches(16)))))
            yield passed[-1]

    found(a, a, samples, endless())
    assert len(passed) == MOST // 16 + 1
