"""Models on samples: marks of an evaluation split, features, and calibration batches for two models at once."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from hf_bico.core.methods import Track
from hf_bico.tasks.batches import batched
from hf_bico.tasks.objectives import Objective
from hf_bico.tasks.samples import Sample, Split, Task, samples_of
from hf_bico.tasks.scores import Score


@dataclass
class Evaluator:
    """The evaluation samples, and how a model is scored on them."""

    task: Task
    name: str
    """Of the split."""
    split: Split
    indices: tuple[int, ...]
    batch_size: int
    track: Track
    reference: Tensor | None = field(default=None, repr=False)
    """The source's marks, for a score that is taken against them."""

    def per_sample(self, what: str, objective: Objective, model: nn.Module) -> Tensor:
        samples = samples_of(self.split, self.indices, self.task)
        samples = self.track(samples, f"Evaluating {what}", len(self.indices))
        with torch.no_grad():
            return torch.cat(
                [
                    objective.per_sample(model, objective.encode(batch)).float().cpu()
                    for batch in batched(samples, self.batch_size)
                ]
            )

    def __call__(self, what: str, objective: Objective, model: nn.Module) -> Score:
        return objective.score(self.per_sample(what, objective, model), self.reference)


def embedded(objective: Objective, model: nn.Module, samples: Iterable[Sample], batch_size: int) -> Tensor:
    """Unit features of samples, (n, d), on the CPU in float32."""
    with torch.no_grad():
        return torch.cat(
            [objective.features(model, objective.encode(batch)).float().cpu() for batch in batched(samples, batch_size)]
        )
