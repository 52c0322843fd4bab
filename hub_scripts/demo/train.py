"""Make the demo's world from nothing: two CLIPs on rendered glyphs, one fine-tuned on handwritten digits.

    pip install matplotlib scikit-learn Hershey-Fonts FONTS     # FONTS below; the extra `world`
    python -m hub_scripts.demo.train --out hub_scripts/world/weights

A (width 64) and B (width 96) share the recipe and nothing else: initialisation, order and distortions come
from different seeds. B never sees the digits; its own fine-tune is made here for its accuracy alone.
"""

from __future__ import annotations

import argparse
import copy
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor

from hub_scripts.world.places import WEIGHTS
from hub_scripts.world.vision import glyphs
from hub_scripts.world.vision.clips import CONTEXT, DIGITS, TEMPLATES, WIDTHS, config, digits, keep
from hub_scripts.world.vision.training import BATCH, RATE, SIGNS, held_out, normalise, optimizer, rounded, update

# FONTS: fontpkg-abril-fatface fontpkg-caveat fontpkg-comfortaa fontpkg-dancing-script fontpkg-delius
# fontpkg-great-vibes fontpkg-inconsolata fontpkg-indie-flower fontpkg-kalam fontpkg-lobster
# fontpkg-oleo-script fontpkg-orbitron fontpkg-pacifico fontpkg-permanent-marker fontpkg-playfair-display
# fontpkg-quicksand fontpkg-roboto-slab fontpkg-rowdies fontpkg-satisfy fontpkg-shadows-into-light
# fontpkg-space-mono fontpkg-titan-one fontpkg-yellowtail fontpkg-zeyada fontpkg-zilla-slab
SEEDS = {"vit64": 1, "vit96": 2}
STEPS = 4000
TUNE_STEPS, TUNE_BATCH, TUNE_RATE = 200, 64, 1e-3

LETTER_TEMPLATES = ("the {c}", "a {c}", "a photo of the {c}", "a handwritten {c}")


def prompts() -> list[list[str]]:
    """Every class's prompts, in the order of glyphs.CHARACTERS."""
    small = [f"small letter {c}" for c in "abcdefghijklmnopqrstuvwxyz"]
    capital = [f"capital letter {c}" for c in "abcdefghijklmnopqrstuvwxyz"]
    signs = [f"{c} sign" for c in SIGNS]
    letters = [[t.format(c=c) for t in LETTER_TEMPLATES] for c in small + capital + signs]
    return [[t.format(c=c) for t in TEMPLATES] for c in DIGITS] + letters


def tokens() -> tuple[Tensor, Tensor]:
    """Prompts as (class, template, CONTEXT) indices into the token ids that occur, and those ids, ascending.

    Ascending order keeps the end-of-text token the largest, which is how open_clip finds it.
    """
    tokenizer = open_clip.tokenizer.SimpleTokenizer(context_length=CONTEXT)
    rows = torch.stack([tokenizer(texts) for texts in prompts()])
    ids, compact = rows.unique(return_inverse=True)
    return compact, ids


def build(width: int, vocabulary: int) -> CLIP:
    """A fresh model with a token table of only the ids in use."""
    return CLIP(**config(width, vocabulary))


def pretrain(width: int, seed: int, masks: Tensor, labels: Tensor, steps: int) -> CLIP:
    """Cross-entropy of every image against one prompt of every class, prompts drawn anew each step."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    rows, ids = tokens()
    model = build(width, len(ids)).train()
    adam, schedule = optimizer(list(model.parameters()), RATE, 0.1, steps, steps // 20)
    start, seen = time.time(), []
    for step in range(steps):
        pick = torch.randint(len(masks), (BATCH,), generator=generator)
        images = normalise(glyphs.distort(masks[pick], generator))
        template = torch.randint(rows.shape[1], (len(rows),), generator=generator)
        image, text, scale = model(images, rows[torch.arange(len(rows)), template])
        loss = F.cross_entropy(scale * image @ text.T, labels[pick], label_smoothing=0.05)
        update(model, loss, adam, schedule)
        seen.append(loss.item())
        if step % 250 == 249:
            mean, spent = sum(seen[-250:]) / 250, time.time() - start
            print(f"width {width} step {step + 1}/{steps} loss {mean:.3f} {spent:.0f} s", flush=True)
    return model.eval()


@torch.no_grad()
def head(model: CLIP, rows: Tensor) -> Tensor:
    """Zero-shot head (classes, embed_dim): the normalised mean of each class's normalised prompts."""
    classes, templates = rows.shape[:2]
    text = model.encode_text(rows.flatten(0, 1), normalize=True)
    return F.normalize(text.view(classes, templates, -1).mean(1), dim=-1)


@torch.no_grad()
def accuracy(model: CLIP, images: Tensor, labels: Tensor, rows: Tensor) -> float:
    """Zero-shot top-1 accuracy in percent."""
    guess = (model.encode_image(normalise(images), normalize=True) @ head(model, rows).T).argmax(1)
    return 100 * (guess == labels).float().mean().item()


def pixels(split: str) -> tuple[Tensor, Tensor]:
    """The digits of a split as (n, 3, SIDE, SIDE) in [0, 1] and labels."""
    images, labels = digits()[split]
    grey = torch.from_numpy(np.stack([np.asarray(image) for image in images])).float() / 255
    return grey[:, None].expand(-1, 3, -1, -1), torch.tensor(labels)


def finetune(base: CLIP, seed: int) -> CLIP:
    """Learn the training digits in the vision tower; text tower, logit scale and so the head stay frozen."""
    generator, model = torch.Generator().manual_seed(seed), copy.deepcopy(base)
    images, labels = pixels("train")
    text = base.logit_scale.detach().exp() * head(base, tokens()[0][: len(DIGITS)])
    model.requires_grad_(False)
    model.visual.requires_grad_(True)
    adam, schedule = optimizer(list(model.visual.parameters()), TUNE_RATE, 0.1, TUNE_STEPS, TUNE_STEPS // 10)
    for _ in range(TUNE_STEPS):
        pick = torch.randint(len(images), (TUNE_BATCH,), generator=generator)
        feature = model.encode_image(normalise(images[pick]), normalize=True)
        loss = F.cross_entropy(feature @ text.T, labels[pick])
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
    return model.eval().requires_grad_(False)


def make(name: str, seed: int, out: Path, steps: int) -> str:
    """Pre-train and keep a base, fine-tune it, keep A's fine-tune; returns the accuracies in words."""
    torch.set_num_threads(1)
    masks, index, names = glyphs.atlas()
    unseen = held_out(index, names)
    model = rounded(pretrain(WIDTHS[name], seed, masks[~unseen], index[~unseen, 1], steps))
    tuned = finetune(model, seed)

    rows, ids = tokens()
    keep(out / f"{name}.safetensors", {k: v.half() for k, v in model.state_dict().items()}, ids)
    if name == "vit64":
        vision = {k: v for k, v in tuned.state_dict().items() if k.startswith("visual.")}
        keep(out / f"{name}-digits.safetensors", vision)

    glyph = glyphs.distort(masks[unseen], torch.Generator().manual_seed(0))
    fonts = accuracy(model, glyph, index[unseen, 1], rows)
    shot, tune = (accuracy(m, *pixels("test"), rows[: len(DIGITS)]) for m in (model, tuned))
    return f"{name}: unseen fonts {fonts:.1f} %, digits zero-shot {shot:.1f} %, fine-tuned {tune:.1f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--steps", type=int, default=STEPS)
    args = parser.parse_args()
    with ProcessPoolExecutor(max_workers=2) as pool:  # one core a model
        work = [pool.submit(make, name, seed, args.out, args.steps) for name, seed in SEEDS.items()]
        for done in work:
            print(done.result(), flush=True)


if __name__ == "__main__":
    main()
