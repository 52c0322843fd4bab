"""Scores of a model, with their uncertainty."""

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from scipy.stats import binomtest, norm, rankdata
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
    hub: str = ""
    """What the Hub calls it, where that is not its own name."""

    @property
    def title(self) -> str:
        """Its name at the beginning of a line."""
        return self.name[:1].upper() + self.name[1:]

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
        Metric(
            "micro F1",
            "F1 of all classes of all samples together, each given where its score is above 0; intervals from the "
            "spread over samples",
            hub="f1",
        ),
        Metric(
            "MRR@10",
            "Mean over the samples of the reciprocal rank of a text's own partner among those of all samples, 0 beyond "
            "10; intervals from the spread over samples",
        ),
        Metric("recall@1", "Share of the texts whose own partner comes first"),
        Metric("recall@10", "Share of the texts whose own partner is among the first ten"),
        Metric("mAP", "Mean over the classes of the average precision"),
        Metric("pearson", "Pearson's correlation with the labels; Fisher's intervals", share=False, hub="pearsonr"),
        Metric(
            "spearman", "Spearman's rank correlation with the labels; Fisher's intervals", share=False, hub="spearmanr"
        ),
        Metric(
            "entity F1",
            "F1 of whole entities, right in kind and place, as seqeval counts them; intervals from the spread over "
            "samples",
            hub="f1",
        ),
        Metric("word accuracy", "Share of the words whose class is right; intervals from the spread over samples"),
        Metric(
            "word error rate",
            "Words that are wrong, missing or too many, by those that are said, as jiwer counts them; intervals from "
            "the spread over samples",
            higher=False,
            hub="wer",
        ),
        Metric("character error rate", "The same of characters", higher=False, hub="cer"),
        Metric(
            "masked accuracy",
            "Share of the hidden words, one in seven, all of whose tokens the model puts first; intervals from the "
            "spread over samples",
        ),
        Metric(
            "answer F1",
            "Mean over the samples of the F1 of an answer's words, by SQuAD's rules; intervals from the spread over "
            "samples",
            hub="f1",
        ),
    )
}


WIDE = 0.2
"""The width of an interval from which on few samples are said to be few: ±10 points; of a perplexity, ±10 % of it."""


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

    @property
    def is_wide(self) -> bool:
        """Whether the interval is wider than `WIDE`: in points of what is at most 1, else as a share of the value."""
        return self.high - self.low > WIDE * max(1.0, abs(self.value))

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
        value, low, high = (float(torch.tensor(x).exp()) for x in _ratio(losses, tokens))
        return cls(value, low, high, len(losses), "perplexity", also or {})

    @classmethod
    def ratio(cls, part: Tensor, whole: Tensor, metric: str, also: dict[str, float] | None = None) -> "Score":
        """Return Σ part / Σ whole of what every sample has of both, (n,) each, a share; 0 where there is nothing.

        The interval is that of a ratio of means, by the delta method.
        """
        if not float(whole.sum()):
            return cls(0.0, 0.0, 1.0, len(whole), metric, also or {})
        value, low, high = _ratio(part, whole)
        return cls(value, max(low, 0.0), min(high, 1.0), len(part), metric, also or {})

    @classmethod
    def errors(cls, counts: Tensor) -> "Score":
        """Return the word error rate, and the character error rate beside it, of (n, 4): wrong words, words, wrong
        characters and characters of every sample.

        The interval is that of a ratio of means, by the delta method.
        """
        wrong, words, odd, characters = counts.unbind(-1)
        value, low, high = _ratio(wrong, words)
        also = {"character error rate": float(odd.sum() / characters.sum())}
        return cls(value, max(low, 0.0), high, len(words), "word error rate", also)

    @classmethod
    def mean(cls, values: Tensor, metric: str, also: dict[str, float] | None = None) -> "Score":
        """Return the mean of a share of every sample, (n,), with the normal interval of a mean."""
        return cls.ratio(values, torch.ones_like(values), metric, also)

    @classmethod
    def several(cls, scores: Tensor, labels: Tensor) -> "Score":
        """Return the micro F1 of scores (n, K), a class being given where its score is above 0, and labels (n, K); and
        the mean over the classes, of those that any sample has, of the average precision.
        """
        from sklearn.metrics import average_precision_score

        given, there = scores > 0, labels > 0.5
        both, either = 2 * (given & there).sum(-1), given.sum(-1) + there.sum(-1)
        seen = there.any(0)
        precision = average_precision_score(there[:, seen].numpy(), scores[:, seen].numpy()) if seen.any() else 0.0
        return cls.ratio(both, either, "micro F1", {"mAP": float(precision)})

    @classmethod
    def retrieval(cls, queries: Tensor, texts: Tensor) -> "Score":
        """Return the mean of the reciprocal rank of every query's own text among all texts, by the cosines of unit
        features (n, d) each; 0 beyond rank 10. Beside it the shares whose own text comes first, and among ten.
        """
        rank = _ranks(queries, texts)
        recall = {f"recall@{k}": float((rank <= k).float().mean()) for k in (1, 10)}
        return cls.mean((rank <= 10) / rank, "MRR@10", recall)

    @classmethod
    def correlation(cls, given: Tensor, wanted: Tensor, metric: str = "pearson") -> "Score":
        """Return Pearson's or Spearman's correlation of two (n,), the other beside it; 0 where either is constant.

        The interval is Fisher's; of ranks it is a little too narrow (Bonett and Wright 2000).
        """
        found = {name: _correlated(*pair) for name, pair in _named_pairs(given.double(), wanted.double()).items()}
        value = found.pop(metric)
        return cls(value, *_fisher(value, len(given)), len(given), metric, found)

    @classmethod
    def agreement(cls, features: Tensor, reference: Tensor) -> "Score":
        """Return Pearson's r of the cosine similarities of all pairs of samples in features (n, d) with those in
        reference (n, e), with Fisher's interval.
        """
        features, reference = features[:MOST], reference[:MOST]
        upper = torch.triu_indices(len(features), len(features), offset=1)
        similarities = [(f @ f.T)[*upper] for f in (_unit(features), _unit(reference))]
        r = float(torch.corrcoef(torch.stack(similarities))[0, 1].clamp(-0.999999, 0.999999))
        return cls(r, *_fisher(r, len(features)), len(features), "agreement")


def _ranks(queries: Tensor, texts: Tensor) -> Tensor:
    """Return the rank of every query's own text among all texts, (n,), by the cosines of unit features (n, d) each."""
    ranks = []
    for first, some in zip(range(0, len(queries), MOST), queries.split(MOST), strict=True):
        cosines = some @ texts.T
        own = cosines[torch.arange(len(some)), torch.arange(first, first + len(some))]
        ranks.append((cosines > own[:, None]).sum(-1) + 1)
    return torch.cat(ranks).float()


def reciprocal_ranks(queries: Tensor, texts: Tensor) -> Tensor:
    """Return the reciprocal of every rank, (n,), 0 beyond rank 10; see `Score.retrieval`."""
    rank = _ranks(queries, texts)
    return (rank <= 10) / rank


def _ratio(part: Tensor, whole: Tensor) -> tuple[float, float, float]:
    """Return a ratio of sums over samples with its interval, by the delta method."""
    part, whole = part.double(), whole.double()
    mean, n = float(part.sum() / whole.sum()), len(part)
    spread = (part - mean * whole).square().sum().sqrt() / whole.sum() * (n / max(n - 1, 1)) ** 0.5
    half = norm.ppf(0.975) * float(spread)
    return mean, mean - half, mean + half


def _fisher(r: float, n: int) -> tuple[float, float]:
    """Return Fisher's interval of a correlation over n samples."""
    z, half = float(torch.tensor(r).clamp(-0.999999, 0.999999).atanh()), norm.ppf(0.975) / max(n - 3, 1) ** 0.5
    low, high = (float(torch.tensor(z + sign * half).tanh()) for sign in (-1, 1))
    return low, high


def _named_pairs(a: Tensor, b: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Return what each kind of correlation is taken of: the values, or their ranks."""
    ranks = [torch.from_numpy(rankdata(each.numpy())) for each in (a, b)]
    return {"pearson": (a, b), "spearman": (ranks[0], ranks[1])}


def _correlated(a: Tensor, b: Tensor) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = float(a.norm() * b.norm())
    return float(a @ b) / size if size > 1e-12 else 0.0


def entity_counts(given: Sequence[str], wanted: Sequence[str]) -> tuple[int, int, int]:
    """Return how many entities of two lists of tags (B-, I-, O) agree in kind and place, and how many each has, as
    seqeval finds them.
    """
    from seqeval.metrics.sequence_labeling import get_entities

    found, there = (set(get_entities(list(tags))) for tags in (given, wanted))
    return len(found & there), len(found), len(there)


def error_counts(given: str, wanted: str) -> tuple[int, int, int, int]:
    """Return how many words of a text are wrong, missing or too many, and how many there are; the same of characters;
    as jiwer counts them.
    """
    import jiwer

    found = []
    for counted in (jiwer.process_words(wanted, given), jiwer.process_characters(wanted, given)):
        missed = counted.substitutions + counted.deletions
        found += [missed + counted.insertions, missed + counted.hits]
    return found[0], found[1], found[2], found[3]


def answer_scores(given: str, wanted: Sequence[str]) -> tuple[float, float]:
    """Return whether an answer is exact, and the F1 of its words, the best over the right answers, by the rules of
    SQuAD (arXiv:1606.05250): case, punctuation and articles count for nothing. No right answer means the empty one.
    """
    pairs = [(_plain_words(given), _plain_words(each)) for each in wanted or [""]]
    return max(float(a == b) for a, b in pairs), max(_overlap(a, b) for a, b in pairs)


def _plain_words(text: str) -> list[str]:
    kept = "".join(character for character in text.lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", kept).split()


def _overlap(a: Sequence[str], b: Sequence[str]) -> float:
    if not a or not b:
        return float(a == b)
    shared = sum((Counter(a) & Counter(b)).values())
    return 2 * shared / (len(a) + len(b))


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
