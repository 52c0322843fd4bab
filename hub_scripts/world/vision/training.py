"""What the trainings of small CLIPs share: schedule, step, rounding, and the fonts that are never trained on."""

from __future__ import annotations

import math

import torch
from open_clip.model import CLIP
from torch import Tensor

BATCH, RATE = 128, 1e-3
SIGNS = ("question", "exclamation", "ampersand", "hash", "dollar", "percent", "plus", "equals", "at", "star")


def optimizer(parameters: list[torch.nn.Parameter], rate: float, decay: float, steps: int, warm: int):
    """AdamW, no decay on vectors, linear warm-up and a cosine to zero."""
    matrices = [p for p in parameters if p.ndim > 1]
    vectors = [p for p in parameters if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))
    rule = lambda s: min((s + 1) / warm, 0.5 * (1 + math.cos(math.pi * min(s / steps, 1))))  # noqa: E731
    return adam, torch.optim.lr_scheduler.LambdaLR(adam, rule)


def normalise(images: Tensor) -> Tensor:
    return (images - 0.5) / 0.5


def update(model: CLIP, loss: Tensor, adam: torch.optim.Optimizer, schedule) -> None:
    """One step of pre-training, the gradient's norm clipped at 1 and the logit scale at 50."""
    adam.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    adam.step()
    schedule.step()
    with torch.no_grad():
        model.logit_scale.clamp_(max=math.log(50))


def rounded(model: CLIP) -> CLIP:
    """The model as it is kept: float16 values."""
    model.load_state_dict({k: v.half().float() for k, v in model.state_dict().items()})
    return model.requires_grad_(False)


def held_out(index: Tensor, names: list[str]) -> Tensor:
    """Which glyphs belong to the tenth of the font files that no model sees in training."""
    files = {name for place, name in enumerate(sorted(set(names))) if place % 10 == 5}
    return torch.tensor([names[face] in files for face in index[:, 0]])
