"""Scores with their uncertainty."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import torch
from scipy.stats import binomtest
from torch import Tensor

from hf_bico.data import Sample
from hf_bico.families import Family, Loaded


@dataclass(frozen=True)
class Score:
    """Top-1 accuracy over n samples with its 95 % Wilson interval, all as shares."""

    accuracy: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, correct: int, n: int) -> "Score":
        interval = binomtest(correct, n).proportion_ci(0.95, method="wilson")
        return cls(correct / n, float(interval.low), float(interval.high), n)


def accuracy(family: Family, loaded: Loaded, head: Tensor, samples: Iterable[Sample], batch_size: int) -> Score:
    """Top-1 accuracy of a model under its zero-shot head (K, embed)."""
    correct = n = 0
    with torch.no_grad():
        for batch in batched(samples, batch_size):
            images, labels = stack(loaded, batch)
            best = family.logits(loaded.model, images, head).argmax(dim=-1).cpu()
            correct, n = correct + int((best == labels).sum()), n + len(batch)
    return Score.of(correct, n)


def stack(loaded: Loaded, samples: list[Sample]) -> tuple[Tensor, Tensor]:
    """The model's own preprocessing of a batch: images (n, 3, h, w) and labels (n,)."""
    return (torch.stack([loaded.preprocess(sample.image) for sample in samples]),
            torch.tensor([sample.label for sample in samples]))


def batched(items: Iterable, size: int):
    """Lists of `size` items, the last one shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
