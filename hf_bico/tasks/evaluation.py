"""Models on samples: what every answer is worth, features, and the score on an evaluation split."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from hf_bico.core.method import Track
from hf_bico.families.feeding import Encoded
from hf_bico.tasks.asked import Asked
from hf_bico.tasks.batches import batched
from hf_bico.tasks.samples import Sample, Split, Task, samples_of
from hf_bico.tasks.scores import Score


def per_sample(asked: Asked, samples: Iterable[Sample], size: int) -> Tensor:
    """Return what a score is made of, (n, m), on the CPU in float32.

    Args:
        size: samples a batch.
    """
    return _each(asked, samples, size, lambda batch: asked.objective.per_sample(asked.model, batch))


def embedded(asked: Asked, samples: Iterable[Sample], size: int) -> Tensor:
    """Return unit features of samples, (n, d), on the CPU in float32."""
    return _each(asked, samples, size, lambda batch: asked.objective.features(asked.model, batch))


def summed_loss(asked: Asked, samples: Iterable[Sample], size: int) -> float:
    """Return the loss summed over the samples."""
    with torch.no_grad():
        batches = map(asked.objective.encode, batched(samples, size))
        return sum(float(asked.objective.loss(asked.model, batch)) for batch in batches)


def _each(asked: Asked, samples: Iterable[Sample], size: int, run: Callable[[Encoded], Tensor]) -> Tensor:
    with torch.no_grad():
        return torch.cat([run(asked.objective.encode(some)).float().cpu() for some in batched(samples, size)])


@dataclass(frozen=True)
class Evaluator:
    """The evaluation samples, and how a model is scored on them."""

    task: Task
    name: str
    """Of the split."""
    split: Split
    indices: tuple[int, ...]
    size: int
    """Samples a batch."""
    track: Track
    reference: Tensor | None = field(default=None, repr=False)
    """What the source gives for every sample, for a score that is taken against it."""

    def per_sample(self, what: str, asked: Asked) -> Tensor:
        """Return what a model's score is made of.

        Args:
            what: the model, for the progress bar.
        """
        samples = self.track(samples_of(self.split, self.indices, self.task), f"Evaluating {what}", len(self.indices))
        return per_sample(asked, samples, self.size)

    def score(self, what: str, asked: Asked) -> Score:
        """Return a model's score."""
        return asked.objective.score(self.per_sample(what, asked), self.reference)

    def against(self, reference: Tensor) -> "Evaluator":
        """Return the same, with scores taken against what the source gives for every sample."""
        return replace(self, reference=reference)
