"""Scores: values and intervals against other ways to them."""

from statistics import NormalDist

import numpy as np
import pytest
import torch
from scipy.stats import norm, pearsonr, spearmanr
from sklearn import metrics

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


def test_micro_f1_and_average_precision_are_scikit_learns():
    generator = torch.Generator().manual_seed(0)
    scores, labels = torch.randn(50, 6, generator=generator), torch.rand(50, 6, generator=generator) < 0.3
    labels[:, 5] = False  # a class that no sample has
    found = Score.several(scores, labels.float())
    assert found.value == pytest.approx(metrics.f1_score(labels, scores > 0, average="micro"), rel=1e-12)
    theirs = metrics.average_precision_score(labels[:, :5], scores[:, :5])
    assert found.also == {"mAP": pytest.approx(theirs, rel=1e-12)}
    assert Score.several(scores, torch.zeros(50, 6)).value == 0


def test_correlations_are_scipys():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 9, 40).astype(float)  # with ties
    b = a + rng.normal(0, 3, 40)
    found = Score.correlation(torch.tensor(a), torch.tensor(b))
    theirs = pearsonr(a, b)
    interval = theirs.confidence_interval(0.95)
    assert (found.value, found.low, found.high) == pytest.approx((theirs.statistic, interval.low, interval.high))
    assert found.also == {"spearman": pytest.approx(spearmanr(a, b).statistic)}
    assert Score.correlation(torch.tensor(a), torch.ones(40)).value == 0  # where scipy has no number


def test_retrieval_is_scikit_learns():
    """Of features whose cosines are all different: of equal ones, it takes the order of the texts."""
    generator = torch.Generator().manual_seed(0)
    texts = torch.nn.functional.normalize(torch.randn(30, 8, generator=generator), dim=-1)
    queries = torch.nn.functional.normalize(texts + 0.25 * torch.randn(30, 8, generator=generator), dim=-1)
    found, cosines = Score.retrieval(queries, texts), queries @ texts.T
    for k in (1, 10):
        theirs = metrics.top_k_accuracy_score(range(30), cosines, k=k, labels=range(30))
        assert found.also[f"recall@{k}"] == pytest.approx(theirs, rel=1e-6)
    assert found.also["recall@1"] < found.also["recall@10"] == 1  # so that no rank is beyond 10
    assert found.value == pytest.approx(metrics.label_ranking_average_precision_score(torch.eye(30), cosines), rel=1e-6)
