"""Samples of every strategy, the same by the same seed."""

import numpy as np
import pytest

from hf_bico.tasks import strategies
from hf_bico.tasks.strategies import BALANCED, STRATEGIES, chosen


@pytest.fixture
def crowd():
    """300 labels of five classes of unequal size, with features."""
    generator = np.random.default_rng(0)
    labels = generator.choice(5, 300, p=[0.4, 0.3, 0.2, 0.08, 0.02])
    return labels, generator.normal(size=(300, 6))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_strategy_draws_the_same_by_the_same_seed(crowd, strategy):
    labels, features = crowd
    first, again, other = (chosen(labels, strategy, 5, seed, lambda i: features[i]) for seed in (3, 3, 4))
    assert first == again
    assert list(first) == sorted(set(first))
    assert len(first) == 5
    assert (first != other) or strategy.startswith("centroid")


@pytest.mark.parametrize("strategy", BALANCED)
@pytest.mark.parametrize("n", [1, 5, 7, 20, 60])
def test_balanced_is_as_equal_as_can_be(crowd, strategy, n):
    labels, features = crowd
    sizes = np.bincount(labels)
    counts = np.bincount(labels[list(chosen(labels, strategy, n, 1, lambda i: features[i]))], minlength=5)
    assert counts.sum() == n
    level = max(counts)
    assert all(count >= level - 1 or count == size for count, size in zip(counts, sizes, strict=True))


def test_near_is_nearest_and_far_is_farthest(crowd):
    labels, features = crowd
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    for strategy, sign in (("centroid-near", 1), ("centroid-far", -1)):
        picked = set(chosen(labels, strategy, 25, 0, lambda i: features[i]))
        for label in range(5):
            own = np.flatnonzero(labels == label)
            distance = sign * np.linalg.norm(units[own] - units[own].mean(0), axis=1)
            mine = np.isin(own, list(picked))
            assert mine.all() or distance[mine].max() <= distance[~mine].min()


def test_a_huge_split_is_not_embedded_whole(crowd, monkeypatch):
    labels, features = crowd
    monkeypatch.setattr(strategies, "POOL", 40)
    seen = []
    picked = chosen(labels, "centroid-near", 10, 0, lambda i: (seen.extend(i), features[i])[1])
    assert len(seen) == len(set(seen)) == 40
    assert set(picked) < set(seen)


def test_classes_of_half_and_one(crowd):
    labels, _ = crowd
    draws = {
        strategy: [labels[list(chosen(labels, strategy, 5, seed))] for seed in range(12)]
        for strategy in ("half-class", "one-class")
    }
    assert all(len(set(drawn)) <= 2 for drawn in draws["half-class"])
    assert any(len(set(drawn)) == 2 for drawn in draws["half-class"])
    assert all(len(set(drawn)) == 1 for drawn in draws["one-class"])
    assert len({drawn[0] for drawn in draws["one-class"]}) > 1
