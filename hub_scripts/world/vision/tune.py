"""Fine-tune the bases on the eight tasks, as the papers do in miniature; results are cached under `.world/`.

    python -m hub_scripts.world.vision.tune            # all 32, two processes, then a table
    python -m hub_scripts.world.vision.tune --path     # also the checkpoints on the way of two of them

The whole vision tower learns; text tower, logit scale and the zero-shot head stay frozen.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from safetensors.torch import load_file
from torch import Tensor

from hub_scripts.world.places import CACHE, WEIGHTS
from hub_scripts.world.vision.bases import BASES, load_base, zero_shot_head
from hub_scripts.world.vision.clips import keep
from hub_scripts.world.vision.tasks import TASKS, everything, pixels
from hub_scripts.world.vision.training import normalise, optimizer

STEPS, BATCH, RATE, DECAY = 300, 64, 1e-3, 0.1
DRIFT = (("s-x", "digits"), ("m-y", "digits"))  # whose checkpoints --path keeps, ten of each


def images(task: str, split: str) -> tuple[Tensor, Tensor]:
    """A split as the towers take it, (n, 3, 32, 32) normalised float32, and its labels."""
    found, labels = pixels(task, split)
    return normalise(found.float() / 255), labels


def vision(model: CLIP) -> dict[str, Tensor]:
    """The vision tower's part of the state dict, keys `visual.*`, copied."""
    return {k: v.detach().clone() for k, v in model.state_dict().items() if k.startswith("visual.")}


def learn(base: str, task: str, rate: float = RATE, steps: int | None = None, points: Iterable[int] = ()) -> list[dict]:
    """The tuned vision tower, after those of the steps named in `points`; `STEPS` of them unless told."""
    model, passed, steps = load_base(base), [], STEPS if steps is None else steps
    generator = torch.Generator().manual_seed(100 * BASES[base].seed + list(TASKS).index(task))
    pictures, labels = images(task, "train")
    head = model.logit_scale.exp() * zero_shot_head(model, task)
    model.visual.requires_grad_(True)
    adam, schedule = optimizer(list(model.visual.parameters()), rate, DECAY, steps, steps // 10)
    for step in range(steps):
        if step in points:
            passed.append(vision(model))
        pick = torch.randint(len(pictures), (BATCH,), generator=generator)
        loss = F.cross_entropy(model.encode_image(pictures[pick], normalize=True) @ head.T, labels[pick])
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
    return [*passed, vision(model)]


@functools.cache
def digest(base: str, task: str) -> str:
    """Names what a fine-tune follows from: the base's weights, the task's images and the recipe."""
    pictures, labels = everything(task)
    parts = ((WEIGHTS / f"{base}.safetensors").read_bytes(), pictures.numpy().tobytes(), labels.numpy().tobytes(),
             repr((TASKS[task], STEPS, BATCH, RATE, DECAY)).encode())  # fmt: skip
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:12]


def fine_tune(base: str, task: str) -> dict[str, Tensor]:
    """The vision tower of a base fine-tuned on a task, float32, keys `visual.*`; from the cache where it is there."""
    file = CACHE / f"{base}-{task}-{digest(base, task)}.safetensors"
    if not file.exists():
        keep(file, learn(base, task)[-1])
    return load_file(file)


def checkpoints(base: str, task: str, count: int = 10) -> list[tuple[int, dict[str, Tensor]]]:
    """(step, vision tower) at `count` points of a fine-tune, the last after its end."""
    steps = [round(STEPS * k / count) for k in range(1, count + 1)]
    files = [CACHE / f"{base}-{task}-{digest(base, task)}-step{step}.safetensors" for step in steps]
    if not all(file.exists() for file in files):
        for file, state in zip(files, learn(base, task, points=steps), strict=True):
            keep(file, state)
    return [(step, load_file(file)) for step, file in zip(steps, files, strict=True)]


@torch.no_grad()
def accuracy(base: str, task: str, state: dict[str, Tensor] | None = None, split: str = "test") -> float:
    """Top-1 accuracy in percent with the zero-shot head; of the base, or with `state` as its vision tower."""
    model = load_base(base)
    model.load_state_dict(state or {}, strict=False)
    pictures, labels = images(task, split)
    scores = model.encode_image(pictures, normalize=True) @ zero_shot_head(model, task).T
    return 100 * (scores.argmax(1) == labels).float().mean().item()


def change(base: str, state: dict[str, Tensor]) -> float:
    """Norm of the vision tower's change over the norm of the tower."""
    before = vision(load_base(base))
    moved = sum((state[k] - v).square().sum() for k, v in before.items())
    return float((moved / sum(v.square().sum() for v in before.values())).sqrt())


def row(base: str, task: str) -> tuple[float, float, float]:
    """Zero-shot accuracy, fine-tuned accuracy and relative change."""
    torch.set_num_threads(1)
    state = fine_tune(base, task)
    return accuracy(base, task), accuracy(base, task, state), change(base, state)


def table(rows: dict[tuple[str, str], tuple[float, float, float]]) -> str:
    """Markdown: one line a task, a cell `zero-shot / fine-tuned / change` for each base."""
    lines = ["| task | " + " | ".join(BASES) + " |", "|---" * (len(BASES) + 1) + "|"]
    for task in TASKS:
        cells = ["{:.1f} / {:.1f} / {:.3f}".format(*rows[base, task]) for base in BASES]
        lines.append(f"| {task} | " + " | ".join(cells) + " |")
    means = [torch.tensor([rows[base, task] for task in TASKS]).mean(0).tolist() for base in BASES]
    return "\n".join([*lines, "| mean | " + " | ".join("{:.1f} / {:.1f} / {:.3f}".format(*m) for m in means) + " |"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--path", action="store_true", help="also keep ten checkpoints of two fine-tunes")
    pairs = [(base, task) for base in BASES for task in TASKS]
    path = parser.parse_args().path
    with ProcessPoolExecutor(max_workers=2) as workers:
        print(table(dict(zip(pairs, workers.map(row, *zip(*pairs, strict=True)), strict=True))), flush=True)
    if path:
        for base, task in DRIFT:
            checkpoints(base, task)


if __name__ == "__main__":
    main()
