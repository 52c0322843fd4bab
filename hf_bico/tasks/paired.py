"""Two models on the same samples: which answers changed, and whether their scores differ by more than chance."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import binomtest, bootstrap, rankdata
from torch import Tensor

from hf_bico.tasks.scores import METRICS, Score, reciprocal_ranks

RIGHT_OR_WRONG = frozenset({"accuracy", "exact match"})
"""Metrics by which a sample is right or wrong."""
RESAMPLED = 2000
"""Draws of a bootstrap."""
LEVEL = 0.05
"""Below this, McNemar's p says that two models differ."""

Values = tuple[Tensor, Tensor]


def _ones(values: Tensor) -> Values:
    return values, torch.ones_like(values)


def _several(values: Tensor) -> Values:
    scores, labels = values.chunk(2, dim=-1)
    given, there = scores > 0, labels > 0.5
    return 2 * (given & there).sum(-1), given.sum(-1) + there.sum(-1)


def _ranked(values: Tensor) -> Tensor:
    return torch.from_numpy(rankdata(values.numpy()))


PARTS: Mapping[str, Callable[[Tensor], Values]] = {
    "accuracy": lambda v: _ones(v[:, 0]),
    "exact match": lambda v: _ones(v[:, 2]),
    "perplexity": lambda v: (v[:, 0], v[:, 1]),
    "micro F1": _several,
    "MRR@10": lambda v: _ones(reciprocal_ranks(*v.chunk(2, dim=-1))),
    "pearson": lambda v: (v[:, 0], v[:, 1]),
    "spearman": lambda v: (_ranked(v[:, 0]), _ranked(v[:, 1])),
    "entity F1": lambda v: (2 * v[:, 0], v[:, 1] + v[:, 2]),
    "word accuracy": lambda v: (v[:, 3], v[:, 4]),
    "word error rate": lambda v: (v[:, 0], v[:, 1]),
    "masked accuracy": lambda v: (v[:, 2], v[:, 3]),
    "answer F1": lambda v: _ones(v[:, 1]),
}
"""Metric → the two numbers of every sample that it is made of, from an objective's values of every sample, (n, m)."""


def joined(metric: str, x: Any, y: Any, axis: int = -1) -> Any:
    """Return a metric from its two numbers of every sample: their correlation, or the ratio of their sums."""
    if metric in ("pearson", "spearman"):
        x, y = (each - each.mean(axis=axis, keepdims=True) for each in (x, y))
        size = np.sqrt((x * x).sum(axis=axis) * (y * y).sum(axis=axis))
        return np.divide((x * y).sum(axis=axis), size, out=np.zeros_like(size), where=size > 1e-12)
    whole = np.asarray(y.sum(axis=axis), dtype=float)
    ratio = np.divide(x.sum(axis=axis), whole, out=np.zeros_like(whole), where=whole > 0)
    return np.exp(ratio) if metric == "perplexity" else ratio


@dataclass(frozen=True)
class Answered:
    """A model's score, with what every sample added to it."""

    score: Score
    parts: list[list[float]] | None
    """(n, 2), see `PARTS`; None of a metric that is no sum over samples."""

    @classmethod
    def of(cls, score: Score, values: Tensor) -> "Answered":
        """Return a score with its parts.

        Args:
            values: (n, m), the objective's of every sample.
        """
        made = PARTS.get(score.metric)
        parts = None if made is None else torch.stack([each.double() for each in made(values)], dim=-1).tolist()
        return cls(score, parts)

    def to_plain(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return asdict(self)

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> "Answered":
        """Return what `to_plain` gave as data."""
        return cls(Score(**data["score"]), data["parts"])


@dataclass(frozen=True)
class Paired:
    """A model against another one on the same samples."""

    against: str
    """The other one: source, zero_shot (the target without the port), naive, bico."""
    difference: float
    """Of the scores, in the metric's own unit; above 0 where this model's number is larger."""
    low: float
    """Lower end of the difference's 95 % interval, by a paired bootstrap over the samples."""
    high: float
    won: int | None = None
    """Samples that this model alone has right; None where samples are not right or wrong."""
    lost: int | None = None
    """Samples that the other one alone has right: negative flips."""
    p: float | None = None
    """Of McNemar's exact test, two-sided."""

    @property
    def certain(self) -> bool:
        """Whether the two differ by more than chance: by McNemar's test, or by the interval."""
        return self.p < LEVEL if self.p is not None else not self.low <= 0 <= self.high


def paired(model: Answered, other: Answered, against: str) -> Paired | None:
    """Return a model against another one; None where their scores are of different kinds, or no sums over samples."""
    if model.parts is None or other.parts is None or model.score.metric != other.score.metric:
        return None
    metric, a, b = model.score.metric, np.array(model.parts), np.array(other.parts)

    def difference(ax, ay, bx, by, axis=-1):
        return joined(metric, ax, ay, axis) - joined(metric, bx, by, axis)

    columns = (*a.T, *b.T)
    value = float(difference(*columns))
    low = high = value
    if len(a) > 1 and not np.array_equal(a, b):
        drawn = bootstrap(
            columns, difference, paired=True, n_resamples=RESAMPLED, batch=100, method="percentile", rng=0
        ).confidence_interval
        low, high = float(drawn.low), float(drawn.high)
    if metric not in RIGHT_OR_WRONG:
        return Paired(against, value, low, high)
    won, lost = int((a[:, 0] > b[:, 0]).sum()), int((a[:, 0] < b[:, 0]).sum())
    p = float(binomtest(won, won + lost).pvalue) if won + lost else 1.0
    return Paired(against, value, low, high, won, lost, p)


@dataclass(frozen=True)
class ClassChange:
    """What a port did to one class."""

    name: str
    n: int
    """Samples of it."""
    before: float
    """Share of them that the target has right without the port."""
    after: float
    """Share that it has right with it."""


def by_class(model: Answered, before: Answered, labels: Sequence[int], names: Sequence[str]) -> tuple[ClassChange, ...]:
    """Return what became of every class that has samples; nothing where samples are not right or wrong.

    Args:
        labels: (n,) index of every sample's class.
        names: of the classes.
    """
    if model.parts is None or before.parts is None or model.score.metric not in RIGHT_OR_WRONG:
        return ()
    now, then, own = np.array(model.parts)[:, 0], np.array(before.parts)[:, 0], np.array(labels)
    return tuple(
        ClassChange(name, int(mine.sum()), float(then[mine].mean()), float(now[mine].mean()))
        for k, name in enumerate(names)
        if (mine := own == k).any()
    )


def shown_difference(found: Paired, metric: str) -> str:
    """Return a difference with its interval as readers see it: of a share in points of per cent."""
    scale, unit = (100.0, " points") if METRICS[metric].share else (1.0, "")
    digits = ".1f" if METRICS[metric].share else ".3g"
    value, low, high = (f"{scale * each:+{digits}}" for each in (found.difference, found.low, found.high))
    return f"{value}{unit} ({low} to {high})"
