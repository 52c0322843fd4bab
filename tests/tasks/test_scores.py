"""Scores: values and intervals against other ways to them."""

from statistics import NormalDist

import numpy as np
import pytest
import torch
from scipy.stats import norm

from hf_bico.tasks.scores import Score, better

Z = NormalDist().inv_cdf(0.975)


def test_a_share_has_wilsons_interval():
    """Wilson 1927, by its formula."""
    correct, n = 37, 50
    p, middle = correct / n, (correct + Z**2 / 2) / (n + Z**2)
    half = Z * (p * (1 - p) / n + Z**2 / (4 * n**2)) ** 0.5 / (1 + Z**2 / n)
    found = Score.of(correct, n)
    assert (found.value, found.low, found.high) == pytest.approx((p, middle - half, middle + half))


def test_perplexity_has_the_interval_of_a_ratio_of_means():
    """By the delta method in numpy, and near a bootstrap's."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 60, 400)
    losses = tokens * rng.normal(2.0, 0.5, 400)
    found = Score.perplexity(torch.tensor(losses), torch.tensor(tokens))
    mean = losses.sum() / tokens.sum()
    error = np.std(losses - mean * tokens, ddof=1) / np.sqrt(400) / tokens.mean()
    expected = np.exp([mean, mean - Z * error, mean + Z * error])
    assert (found.value, found.low, found.high) == pytest.approx(tuple(expected), rel=1e-3)
    draws = rng.integers(0, 400, (2000, 400))
    low, high = np.quantile(np.exp(losses[draws].sum(1) / tokens[draws].sum(1)), (0.025, 0.975))
    assert (found.low, found.high) == pytest.approx((low, high), rel=0.02)


def test_agreement_has_fishers_interval():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(40, 8, generator=generator)
    b = a + 0.5 * torch.randn(40, 8, generator=generator)
    found = Score.agreement(a, b)
    upper = np.triu_indices(40, 1)
    units = [(x / x.norm(dim=1, keepdim=True)).double().numpy() for x in (a, b)]
    r = np.corrcoef(*((u @ u.T)[upper] for u in units))[0, 1]
    ends = np.tanh(np.arctanh(r) + np.array([-1, 1]) * norm.ppf(0.975) / np.sqrt(37))
    assert (found.value, found.low, found.high) == pytest.approx((r, *ends), rel=1e-6)


def test_better_is_more_or_less_as_the_metric_has_it():
    more, less = (Score(value, 0, 1, 10) for value in (0.9, 0.8))
    assert better(more, less) and not better(less, more)
    low, high = (Score(value, 0, 1, 10, "perplexity") for value in (3.0, 5.0))
    assert better(low, high) and not better(high, low)
    equal = [Score(0.5, 0, 1, 10, "exact match", {"perplexity": value}) for value in (3.0, 5.0)]
    assert better(*equal) and not better(*reversed(equal))
