"""Fine-tunes of the text bases, made when they are asked for and kept in `.world/`."""

from __future__ import annotations

import hashlib

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from hub_scripts.world.places import CACHE, WEIGHTS
from hub_scripts.world.text.models import keep, load, optimizer
from hub_scripts.world.text.probe import pooled
from hub_scripts.world.text.tasks import TEXT_TASKS, samples

STEPS, BATCH, RATE, DECAY = 300, 64, 3e-3, 0.1


def fine_tune(base: str, task: str) -> dict[str, Tensor]:
    """The state dict of `base` fine-tuned on the task's training split; the head that it was trained with is gone."""
    path = CACHE / f"{base}-{task}-{_told(base, task)}.safetensors"
    if not path.is_file():
        keep(path, _trained(base, task).state_dict(), torch.float32)
    state = load_file(path)
    return state | {"encoder.embed_tokens.weight": state["shared.weight"]}


def _told(base: str, task: str) -> str:
    """A hash of all that a fine-tune depends on."""
    recipe = hashlib.sha256(f"{STEPS} {BATCH} {RATE} {DECAY}".encode())
    recipe.update((WEIGHTS / f"{base}.safetensors").read_bytes())
    for tensor in samples(task, "train"):
        recipe.update(tensor.numpy().tobytes())
    return recipe.hexdigest()[:12]


def _trained(base: str, task: str) -> nn.Module:
    """The whole encoder and a linear head on its mean output; the token table stays, as no port would move it."""
    torch.manual_seed(0)
    generator, (ids, labels) = torch.Generator().manual_seed(0), samples(task, "train")
    model = load(base).train().requires_grad_(True)
    model.shared.requires_grad_(False)
    head = nn.Linear(model.config.d_model, len(TEXT_TASKS[task].classes))
    parameters = [*(p for p in model.parameters() if p.requires_grad), *head.parameters()]
    adam, schedule = optimizer(parameters, RATE, DECAY, STEPS)
    for _ in range(STEPS):
        pick = torch.randint(len(ids), (BATCH,), generator=generator)
        loss = F.cross_entropy(head(pooled(model, ids[pick])), labels[pick])
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        adam.step()
        schedule.step()
    return model.eval().requires_grad_(False)
