"""Scores of a model, with their uncertainty."""

from dataclasses import dataclass, field

import torch
from scipy.stats import binomtest, norm
from torch import Tensor


@dataclass(frozen=True)
class Metric:
    """How a kind of score is to be read."""

    name: str
    says: str
    """What it is, in a sentence for the card."""
    higher: bool = True
    """Whether more is better."""
    share: bool = True
    """Whether it is a share, shown in per cent."""

    def show(self, value: float) -> str:
        """Return a value as readers see it."""
        return f"{value:.1%}" if self.share else f"{value:.4g}"


METRICS = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "Top-1 accuracy; Wilson intervals"),
        Metric(
            "exact match", "Share of the samples whose whole answer is what greedy decoding gives; Wilson intervals"
        ),
        Metric(
            "perplexity",
            "Perplexity of the tokens that are asked for; intervals from the spread over samples",
            higher=False,
            share=False,
        ),
        Metric(
            "agreement",
            "Correlation of the cosine similarities between samples with those of the fine-tuned source; "
            "Fisher's intervals, with samples counted in place of pairs",
        ),
    )
}


@dataclass(frozen=True)
class Score:
    """A metric over n samples with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int
    metric: str = "accuracy"
    also: dict[str, float] = field(default_factory=dict)
    """Other metrics of the same answers: name → value."""

    def __str__(self) -> str:
        return METRICS[self.metric].show(self.value)

    @property
    def interval(self) -> str:
        """Both ends of the interval as readers see them."""
        show = METRICS[self.metric].show
        return f"{show(self.low)} – {show(self.high)}"

    @classmethod
    def of(cls, correct: int, n: int, metric: str = "accuracy", also: dict[str, float] | None = None) -> "Score":
        """Return the share of correct answers with its Wilson interval."""
        interval = binomtest(correct, n).proportion_ci(0.95, method="wilson")
        return cls(correct / n, float(interval.low), float(interval.high), n, metric, also or {})

    @classmethod
    def perplexity(cls, losses: Tensor, tokens: Tensor, also: dict[str, float] | None = None) -> "Score":
        """Return exp of the mean loss per token, from every sample's summed loss (n,) and number of tokens (n,).

        The interval is that of a ratio of means, by the delta method.
        """
        losses, tokens = losses.double(), tokens.double()
        mean, n = float(losses.sum() / tokens.sum()), len(losses)
        spread = (losses - mean * tokens).square().sum().sqrt() / tokens.sum() * (n / max(n - 1, 1)) ** 0.5
        ends = (mean + sign * norm.ppf(0.975) * float(spread) for sign in (-1, 1))
        value, low, high = (float(torch.tensor(x).exp()) for x in (mean, *ends))
        return cls(value, low, high, n, "perplexity", also or {})

    @classmethod
    def agreement(cls, features: Tensor, reference: Tensor) -> "Score":
        """Return Pearson's r of the cosine similarities of all pairs of samples in features (n, d) with those in
        reference (n, e), with Fisher's interval.
        """
        features, reference = features[:MOST], reference[:MOST]
        upper = torch.triu_indices(len(features), len(features), offset=1)
        similarities = [(f @ f.T)[*upper] for f in (_unit(features), _unit(reference))]
        r = float(torch.corrcoef(torch.stack(similarities))[0, 1].clamp(-0.999999, 0.999999))
        z, half = float(torch.tensor(r).atanh()), norm.ppf(0.975) / max(len(features) - 3, 1) ** 0.5
        low, high = (float(torch.tensor(z + sign * half).tanh()) for sign in (-1, 1))
        return cls(r, low, high, len(features), "agreement")


MOST = 2000
"""The most samples whose pairs are compared; the pairs of more would not fit into memory."""


def better(a: Score, b: Score) -> bool:
    """Return whether a is better than b; where their values are equal, whether another metric of a is."""
    if a.value == b.value:
        return any(
            (a.also[name] > b.also[name]) == METRICS[name].higher and a.also[name] != b.also[name]
            for name in a.also.keys() & b.also.keys()
        )
    return (a.value > b.value) == METRICS[a.metric].higher


def recovered(score: float, start: float, goal: float, metric: str) -> float | None:
    """Return the share of the way from `start` to `goal` that a score went; None where `goal` is no better."""
    way = goal - start
    if way == 0 or (way > 0) != METRICS[metric].higher:
        return None
    return (score - start) / way


def _unit(features: Tensor) -> Tensor:
    return torch.nn.functional.normalize(features.double(), dim=-1)
