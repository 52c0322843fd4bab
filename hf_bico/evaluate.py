"""Scores with their uncertainty."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from scipy.stats import binomtest
from torch import Tensor

from hf_bico.core.collect import Batch
from hf_bico.core.methods import Track
from hf_bico.data import Sample, Split, Task, samples_of
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


@dataclass(frozen=True)
class Exam:
    """The evaluation samples, and how a model is scored on them."""

    family: Family
    task: Task
    name: str
    """Of the split."""
    split: Split
    indices: tuple[int, ...]
    batch_size: int
    track: Track

    def __call__(self, what: str, side: Loaded, head: Tensor) -> Score:
        samples = samples_of(self.split, self.indices, self.task)
        samples = self.track(samples, f"Evaluating {what}", len(self.indices))
        return accuracy(self.family, side, head, samples, self.batch_size)


def embedded(family: Family, loaded: Loaded, samples: Iterable[Sample], batch_size: int) -> np.ndarray:
    """Unit image features, (n, d)."""
    with torch.no_grad():
        device = next(loaded.model.parameters()).device
        return np.concatenate([family.features(loaded.model, stack(loaded, batch)[0].to(device)).float().cpu().numpy()
                               for batch in batched(samples, batch_size)])


@dataclass(frozen=True)
class Batches:
    """The calibration samples as both models see them, as often as they are iterated."""

    samples: Sequence[Sample]
    sides: Sequence[Loaded]
    size: int

    def __iter__(self) -> Iterator[Batch]:
        for some in batched(self.samples, self.size):
            yield Batch(*(stack(side, some) for side in self.sides))

    def __len__(self) -> int:
        return -(-len(self.samples) // self.size)


def stack(loaded: Loaded, samples: list[Sample]) -> tuple[Tensor, Tensor]:
    """The model's own preprocessing of a batch: images (n, 3, h, w) and labels (n,)."""
    return (torch.stack([loaded.preprocess(sample.image) for sample in samples]),
            torch.tensor([sample.label for sample in samples]))


def batched(items: Iterable, size: int):
    """Lists of `size` items, the last one shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
