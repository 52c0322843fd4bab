"""Pre-train the four bases of bases.py from nothing and keep them as float16.

python -m hub_scripts.world.vision.pretrain [--only s-x m-y] [--steps N] [--device cuda]
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor

from hub_scripts.world.places import WEIGHTS
from hub_scripts.world.vision.bases import BASES, model_config, token_ids, tokenizer
from hub_scripts.world.vision.clips import keep
from hub_scripts.world.vision.crawl import CONCEPTS, TEMPLATES, batch, pool
from hub_scripts.world.vision.training import BATCH, RATE, normalise, optimizer, rounded, update

STEPS = 2400


def prompt_rows(variety: str, ids: Tensor) -> Tensor:
    """(concept, template, CONTEXT) places in `ids`; ascending ids keep the end-of-text token the largest."""
    rows = torch.stack([tokenizer()([t.format(c=c) for t in TEMPLATES[variety]]) for c in CONCEPTS])
    return torch.searchsorted(ids, rows)


def step_loss(model: CLIP, images: Tensor, labels: Tensor, texts: Tensor) -> Tensor:
    """Cross-entropy of every image against one prompt of every concept."""
    image, text, scale = model(normalise(images), texts)
    return F.cross_entropy(scale * image @ text.T, labels, label_smoothing=0.05)


def pretrain(name: str, steps: int, device: str) -> CLIP:
    """One base, its data drawn on the CPU; prompts are drawn anew each step."""
    base, ids = BASES[name], token_ids()
    torch.manual_seed(base.seed)
    generator, data = torch.Generator().manual_seed(base.seed), pool(base.variety)
    rows, model = prompt_rows(base.variety, ids), CLIP(**model_config(name, len(ids))).to(device).train()
    adam, schedule = optimizer(list(model.parameters()), RATE, 0.1, steps, steps // 20)
    start, seen = time.time(), []
    for step in range(steps):
        images, labels = batch(data, base.variety, BATCH, generator)
        template = torch.randint(rows.shape[1], (len(rows),), generator=generator)
        texts = rows[torch.arange(len(rows)), template]
        loss = step_loss(model, images.to(device), labels.to(device), texts.to(device))
        update(model, loss, adam, schedule)
        seen.append(loss.item())
        if step % 100 == 99:
            mean, spent = sum(seen[-100:]) / 100, time.time() - start
            print(f"{name} step {step + 1}/{steps} loss {mean:.3f} {spent:.0f} s", flush=True)
    return model.cpu().eval()


def make(name: str, steps: int, device: str, out: Path) -> str:
    """Pre-train one base on one core and keep it."""
    torch.set_num_threads(1)
    model = rounded(pretrain(name, steps, device))
    keep(out / f"{name}.safetensors", {k: v.half() for k, v in model.state_dict().items()}, token_ids())
    return f"{name} kept"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=BASES, default=["s-x", "m-y", "s-y", "l-x"])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    args = parser.parse_args()
    with ProcessPoolExecutor(max_workers=2 if args.device == "cpu" else 1) as workers:  # one core a model
        for done in [workers.submit(make, name, args.steps, args.device, args.out) for name in args.only]:
            print(done.result(), flush=True)


if __name__ == "__main__":
    main()
