"""The next versions of the zoo's narrow bases: the same shape, pre-trained further, so that the weights stay near.

The BERT and the Llama see more of what they saw, the ViT also the other variety of its pictures (`vit-wide` saw both).
Recipes are constants; `make.base` keeps what comes out under `.world/zoo/`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hub_scripts.world.zoo import bert, lm, vit
from hub_scripts.world.zoo.training import fit


@dataclass(frozen=True)
class Next:
    """What a version goes on from, and how."""

    old: str
    steps: int
    rate: float
    """At its height; the schedule is that of a pre-training."""
    seed: int


NEXT = {
    "vit-narrow-next": Next("vit-narrow", 300, 3e-4, 71),
    "bert-narrow-next": Next("bert-narrow", 300, 1e-3, 72),
    "lm-a-next": Next("lm-a", 300, 1e-3, 73),
}


def go_on(name: str) -> nn.Module:
    """A next version, in float32 and eval mode."""
    told = NEXT[name]
    torch.set_num_threads(1)
    torch.manual_seed(told.seed)
    generator = torch.Generator().manual_seed(told.seed)
    model, loss_of, decay = _started(told.old, generator)
    fit(name, model.train(), loss_of, told.steps, told.rate, decay, muon=True)
    return model.eval()


def _started(old: str, generator: torch.Generator) -> tuple[nn.Module, Callable[[int], Tensor], float]:
    """The old base, the loss of its pre-training, and the decay."""
    if old in vit.SHAPES:
        model = vit.load(old)
        return model, vit.objective(model, "XY", vit.SHAPES[old].batch, generator), vit.DECAY
    if old in bert.SHAPES:
        model = bert.load(old)
        return model, bert.objective(model, generator), bert.DECAY
    model = lm.load(old)
    return model, lm.objective(model, lm.SHAPES[old].tokenizer, generator), lm.DECAY
