"""The baseline of equal budget: the target itself is trained on the same samples."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hf_bico.core.collect import backward, frozen
from hf_bico.core.errors import PortError
from hf_bico.core.low_rank import Delta
from hf_bico.core.method import BACKWARD, FORWARD, UPDATE, Job, Method, Passes, Track, untracked
from hf_bico.core.moments import Statistics
from hf_bico.core.transport import Transported, holding
from hf_bico.core.types import Wanted


@dataclass(frozen=True)
class FewShot(Method):
    """AdamW on the weights that a port would change, every step on all N samples; τ is not used."""

    name: ClassVar[str] = "few-shot"
    citation: ClassVar[str] = "arXiv:1711.05101"
    summary: ClassVar[str] = (
        "The new base's own layers take steps of AdamW on the calibration samples. Nothing of "
        "the fine-tune is used: this is what the samples alone are worth."
    )

    steps: int = 1
    """Steps of AdamW; one has the budget of a port, one forward–backward pass."""
    rate: float = 1e-5
    """AdamW's learning rate; the default is that of the papers' fine-tunes."""
    decay: float = 0.1
    """AdamW's weight decay."""

    def __post_init__(self) -> None:
        if self.steps < 1 or not (0 < self.rate < float("inf") and 0 <= self.decay < float("inf")):
            raise PortError("few-shot takes steps of 1 or more, a rate above 0 and a decay of 0 or more")

    @property
    def wanted(self) -> Wanted:
        return Wanted()

    @property
    def needs_loss(self) -> bool:
        return True

    def passes(self, a: float, b: float) -> Passes:
        return Passes((FORWARD + BACKWARD + UPDATE) * b, before=0, moving=self.steps)

    def carry(self, job: Job, seen: Statistics, track: Track = untracked) -> Transported:
        return Transported(Delta.of(self.descend(job, track)), ())

    def descend(self, job: Job, track: Track = untracked) -> dict[str, Tensor]:
        """Return by how much the steps change the tensors of the target's sites, by name.

        The model is restored afterwards. AdamW does not see the loss's scale, so a sum serves as well as a mean.
        """
        model, loss = job.target.model, job.target.loss
        keys = {where.key for pair in job.pairs for where in pair.target.slices}
        with frozen(model), holding(model, ((key, model.state_dict()[key].clone()) for key in keys)):
            moving = {key: p for key, p in model.named_parameters() if key in keys}
            before = {key: p.detach().clone() for key, p in moving.items()}
            for parameter in moving.values():
                parameter.requires_grad_(True)
            adam = torch.optim.AdamW(moving.values(), lr=self.rate, weight_decay=self.decay)
            for _ in track(range(self.steps), "Few-shot steps", self.steps):
                for batch in job.batches():
                    backward(loss(model, batch.target))
                adam.step()
                adam.zero_grad()
            return {key: p.detach() - before[key] for key, p in moving.items()}
