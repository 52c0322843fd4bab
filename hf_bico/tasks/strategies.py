"""Which samples of a split to calibrate on: six strategies by labels and features, fixed by a seed, in numpy alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hf_bico.core.errors import PortError, setting

Features = Callable[[Sequence[int]], np.ndarray]
"""Indices (m,) → features (m, d) of these samples."""

POOL = 2_000
"""The most samples that the centroid strategies embed (or N, if that is more), so that no huge split is embedded
whole. They are a class-balanced draw by the same seed."""
STRATEGIES = ("random", "class-balanced", "centroid-near", "centroid-far", "half-class", "one-class")
BALANCED = ("class-balanced", "centroid-near", "centroid-far")
"""The strategies that take as many samples of every class as of any other."""


@dataclass(frozen=True)
class Calibration:
    """How many samples are drawn, by which strategy and seed.

    Raises:
        PortError: on construction, for choices that do not go together.
    """

    n: int | None = None
    """How many samples; 100 unless given."""
    per_class: int | None = None
    """How many samples of every class, in place of `n`."""
    strategy: str | None = None
    """One of `STRATEGIES`; random unless given, or class-balanced with `per_class`."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.strategy not in (None, *STRATEGIES):
            raise PortError(f"unknown strategy {self.strategy!r}; there are {', '.join(STRATEGIES)}")
        if self.per_class is None:
            return
        if self.n is not None:
            raise PortError(f"{setting('per_class')} and {setting('n')} both say how many samples: give one of them")
        if self.per_class < 1:
            raise PortError(f"{setting('per_class')} {self.per_class} asks for no samples")
        if self.strategy not in (None, *BALANCED):
            raise PortError(f"{setting('per_class')} goes with {', '.join(BALANCED)}, not with {self.strategy}")

    @property
    def kind(self) -> str:
        """The strategy, where none was given too."""
        return self.strategy or ("random" if self.per_class is None else "class-balanced")

    def size(self, classes: int) -> int:
        """Return N, for a task of so many classes."""
        if self.per_class is not None:
            return self.per_class * classes
        return 100 if self.n is None else self.n


def chosen(
    labels: Sequence[int] | np.ndarray, strategy: str, n: int, seed: int, features: Features | None = None
) -> tuple[int, ...]:
    """Return indices of N samples, sorted; the same for the same seed.

    - random: without replacement.
    - class-balanced: random, as equal as possible over the classes; those with too few samples give all they have.
    - centroid-near, centroid-far: class-balanced; of every class those whose unit features are nearest to, or farthest
      from, the mean of their class, among `POOL` candidates.
    - half-class: random among the samples of a random half of the classes.
    - one-class: random among those of one random class.

    Args:
        labels: (rows,) the class of every sample.
        features: for the centroid strategies; called once.

    Raises:
        PortError: no such strategy, or fewer than N samples to choose from.
    """
    if strategy not in STRATEGIES:
        raise PortError(f"unknown strategy {strategy!r}; there are {', '.join(STRATEGIES)}")
    labels, rng = np.asarray(labels), np.random.default_rng(seed)
    rows = np.arange(len(labels))
    if strategy in ("half-class", "one-class"):
        classes = rng.permutation(np.unique(labels))
        rows = rows[np.isin(labels, classes[: 1 if strategy == "one-class" else max(1, len(classes) // 2)])]
    if not 1 <= n <= len(rows):
        raise PortError(f"{n} samples asked for, but the strategy {strategy} (seed {seed}) has {len(rows)}")
    if strategy in BALANCED:
        picked = _balanced(labels, n if strategy == "class-balanced" else min(len(labels), max(n, POOL)), rng)
        if strategy != "class-balanced":
            picked = _by_distance(labels, picked, n, rng, features, far=strategy == "centroid-far")
    else:
        picked = rows[rng.choice(len(rows), n, replace=False)]
    return tuple(sorted(picked.tolist()))


def _balanced(labels: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return N rows at random, class by class."""
    classes, counts = np.unique(labels, return_counts=True)
    quotas = _quotas(counts, n, rng)
    return np.concatenate(
        [
            rng.choice(np.flatnonzero(labels == name), quota, replace=False)
            for name, quota in zip(classes, quotas, strict=True)
        ]
    )


def _quotas(counts: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return how many to take of every class: one each in turn, in a random order, as long as it has any."""
    order, quotas = rng.permutation(len(counts)), np.zeros_like(counts)
    while left := n - quotas.sum():
        quotas[order[quotas[order] < counts[order]][:left]] += 1
    return quotas


def _by_distance(
    labels: np.ndarray, pool: np.ndarray, n: int, rng: np.random.Generator, features: Features | None, *, far: bool
) -> np.ndarray:
    """Return N rows of the pool, of every class those nearest to its centroid or farthest from it."""
    if features is None:
        raise ValueError("the centroid strategies need features")
    pool = np.sort(pool)
    units = np.asarray(features(pool.tolist()), dtype=np.float64)
    units /= np.maximum(np.linalg.norm(units, axis=1, keepdims=True), 1e-12)
    classes, counts = np.unique(labels[pool], return_counts=True)
    picked = []
    for name, quota in zip(classes, _quotas(counts, n, rng), strict=True):
        own = np.flatnonzero(labels[pool] == name)
        distance = np.linalg.norm(units[own] - units[own].mean(0), axis=1)
        picked.append(pool[own[np.argsort(-distance if far else distance, kind="stable")[:quota]]])
    return np.concatenate(picked)
