"""Models run on samples: the values of every answer, features, and the score on an evaluation split."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_bico.core.method import Track
from hf_bico.families.feeding import Encoded
from hf_bico.tasks.asked import Asked
from hf_bico.tasks.batches import batched
from hf_bico.tasks.paired import Answered
from hf_bico.tasks.samples import Sample, Split, Task, samples_of
from hf_bico.tasks.scores import Score


def per_sample(asked: Asked, samples: Iterable[Sample], size: int) -> Tensor:
    """Return the values of every sample that a score is made of, (n, m), on the CPU in float32.

    Args:
        size: samples in a batch.
    """
    return _each(asked, samples, size, lambda batch: asked.objective.per_sample(asked.model, batch))


def embedded(asked: Asked, samples: Iterable[Sample], size: int) -> Tensor:
    """Return a unit feature of every sample, (n, d), on the CPU in float32."""
    return _each(asked, samples, size, lambda batch: asked.objective.features(asked.model, batch))


def summed_loss(asked: Asked, samples: Iterable[Sample], size: int) -> float:
    """Return the loss summed over the samples."""
    with asked.scored():
        batches = map(asked.objective.encode, batched(samples, size, asked.objective))
        return sum(float(asked.objective.loss(asked.model, batch)) for batch in batches)


TEMPERATURES = tuple(2.0**k for k in range(-4, 5))
"""What the logits of a head that is fitted to few samples may have to be divided by."""


def unsure_loss(asked: Asked, samples: Sequence[Sample], size: int, *, fitted: bool) -> float:
    """Return the loss summed over the samples, of a head that may not know how sure to be.

    Args:
        fitted: whether its logits are least squares, which have no likelihood: the loss is then taken at the
            temperature, of `TEMPERATURES`, where it is least.
    """
    if not fitted:
        return summed_loss(asked, samples, size)
    losses = torch.zeros(len(TEMPERATURES), dtype=torch.float64)
    with asked.scored():
        for batch in map(asked.objective.encode, batched(samples, size, asked.objective)):
            right = asked.objective.wanted(batch)
            if right is None:  # a number's least squares are its loss
                return summed_loss(asked, samples, size)
            logits = asked.objective.answers(asked.model, batch).float().cpu()
            losses += torch.stack([F.cross_entropy(logits / t, right, reduction="sum") for t in TEMPERATURES]).double()
    return float(losses.min())


def _each(asked: Asked, samples: Iterable[Sample], size: int, run: Callable[[Encoded], Tensor]) -> Tensor:
    parts = batched(samples, size, asked.objective)
    with asked.scored():
        return torch.cat([run(asked.objective.encode(some)).float().cpu() for some in parts])


@dataclass(frozen=True)
class Evaluator:
    """The evaluation samples, and how a model is scored on them."""

    task: Task
    name: str
    """Name of the split."""
    split: Split
    indices: tuple[int, ...]
    """Rows of the split that are scored."""
    size: int
    """Samples in a batch."""
    track: Track
    """Shows the progress."""
    reference: Tensor | None = field(default=None, repr=False)
    """The source's values of every sample, for a score that is taken against them."""

    def per_sample(self, what: str, asked: Asked) -> Tensor:
        """Return the values of every sample that a model's score is made of, (n, m).

        Args:
            what: what the progress bar calls the model.
        """
        samples = self.track(samples_of(self.split, self.indices, self.task), f"Evaluating {what}", len(self.indices))
        return per_sample(asked, samples, self.size)

    def score(self, what: str, asked: Asked) -> Score:
        """Return a model's score; see `per_sample` for the arguments."""
        return asked.objective.score(self.per_sample(what, asked), self.reference)

    def answered(self, what: str, asked: Asked) -> Answered:
        """Return a model's score with what every sample added to it; see `per_sample` for the arguments."""
        values = self.per_sample(what, asked)
        return Answered.of(asked.objective.score(values, self.reference), values)

    def against(self, reference: Tensor) -> "Evaluator":
        """Return an evaluator that takes scores against the source's values of every sample."""
        return replace(self, reference=reference)
