"""What the zoo's trainings share: one loop, and how the weights of a base are kept and read back."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hub_scripts.world.places import CACHE, WEIGHTS
from hub_scripts.world.text.models import optimizer

ZOO = CACHE / "zoo"


def fit(
    name: str,
    model: nn.Module,
    loss_of: Callable[[int], Tensor],
    steps: int,
    rate: float,
    decay: float,
    muon: bool = False,
) -> list[float]:
    """`steps` steps (warm-up over a twentieth, cosine, gradient norm clipped at 1) on `loss_of(step)`.

    By AdamW; with `muon` the matrices of the blocks go by Muon at the same rate, which needs half of the steps.
    Returns the loss of every step.
    """
    learnt = {key: p for key, p in model.named_parameters() if p.requires_grad}
    flat = [p for key, p in learnt.items() if muon and p.ndim == 2 and ".layer" in key]
    pairs = [optimizer([p for p in learnt.values() if all(p is not other for other in flat)], rate, decay, steps)]
    if flat:
        matrices = torch.optim.Muon(flat, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
        pairs.append((matrices, torch.optim.lr_scheduler.LambdaLR(matrices, pairs[0][1].lr_lambdas[0])))
    start, seen = time.time(), []
    for step in range(steps):
        loss = loss_of(step)
        model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learnt.values(), 1.0)
        for descent, schedule in pairs:
            descent.step()
            schedule.step()
        seen.append(loss.item())
        if step % 100 == 99:
            print(
                f"{name} step {step + 1}/{steps} loss {sum(seen[-100:]) / 100:.3f} {time.time() - start:.0f} s",
                flush=True,
            )
    return seen


def weights(name: str) -> Path:
    """Where a base's committed weights lie."""
    return WEIGHTS / f"zoo-{name}.safetensors"


def keep(name: str, model: nn.Module) -> None:
    """A base's parameters as float16; tensors that share their memory are kept once."""
    state, seen = {}, set()
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point() and tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            state[key] = tensor.detach().half().clone().contiguous()
    save_file(state, weights(name))
    weights(name).chmod(0o644)


def fill(name: str, model: nn.Module) -> nn.Module:
    """The model with a base's kept weights, in float32 and eval mode.

    Raises:
        ValueError: a parameter that is not in the file, other than a tied one.
    """
    state = {key: tensor.float() for key, tensor in load_file(weights(name)).items()}
    missed = model.load_state_dict(state, strict=False)
    kept = {model.state_dict()[key].data_ptr() for key in state}
    lost = [key for key, p in model.named_parameters() if p.data_ptr() not in kept]
    if missed.unexpected_keys or lost:
        raise ValueError(f"{weights(name).name}: unexpected {missed.unexpected_keys}, missing {lost}")
    return model.float().eval()


def digest(*told: object) -> str:
    """Twelve hex digits that name what something was made from."""
    return hashlib.sha256(repr(told).encode()).hexdigest()[:12]


def file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
