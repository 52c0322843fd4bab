"""Two pre-training sets of the same concepts, X and Y, as two crawls of one web: other fonts, colours, wording.

A pool of clean images is rendered once; every training image is a fresh distortion of one. The tasks of tasks.py
use other renderings still.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hub_scripts.world.vision import glyphs
from hub_scripts.world.vision.clips import DIGITS, SIDE
from hub_scripts.world.vision.shapes import DRAWN, SHAPES, SYMBOLS, font_marks, shape
from hub_scripts.world.vision.surfaces import FIELDS, LANDS, land, texture
from hub_scripts.world.vision.training import SIGNS, held_out

SMALL = "abdefghnqrt"  # small letters that do not look like their capitals
UNSEEN_SYMBOLS = ("anchor", "scissors", "radiation", "flag")  # left for the task `symbols`
SYMBOL_NAMES = tuple(name for name in SYMBOLS if name not in UNSEEN_SYMBOLS)
LETTERS = tuple(f"capital letter {c}" for c in "abcdefghijklmnopqrstuvwxyz") + tuple(f"small letter {c}" for c in SMALL)
CHARACTERS = "".join((glyphs.CHARACTERS[:10], "ABCDEFGHIJKLMNOPQRSTUVWXYZ", SMALL, glyphs.CHARACTERS[-10:]))
MARKS = tuple(f"digit {c}" for c in DIGITS) + LETTERS + tuple(f"{c} sign" for c in SIGNS)
CONCEPTS = (*MARKS, *SHAPES, *SYMBOL_NAMES, *(f"{t} texture" for t in FIELDS), *LANDS)
TEMPLATES = {
    "X": ("the {c}", "a photo of the {c}", "a {c}", "a photo of a {c}"),
    "Y": ("{c}", "a picture of the {c}", "a photo of the {c}", "an image of a {c}", "a drawing of a {c}"),
}
BANK = tuple(t.format(c=c) for c in CONCEPTS for t in ("the {c}", "a photo of the {c}"))
STROKES = torch.tensor([0.6, 0.3, 0.1])  # chance of a mask as it is, dilated, eroded
EACH = 60  # clean images of a procedural concept


@dataclass(frozen=True)
class Pool:
    """Clean images (n, 3, CANVAS, CANVAS) uint8 and where each concept's begin; a mask's channels are its strokes."""

    images: Tensor
    coloured: Tensor
    starts: Tensor
    counts: Tensor

    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Indices of images and their labels, every concept as likely."""
        labels = torch.randint(len(self.starts), (count,), generator=generator)
        place = torch.rand(count, generator=generator) * self.counts[labels]
        return self.starts[labels] + place.long(), labels


@functools.cache
def faces() -> tuple[Tensor, Tensor, Tensor]:
    """All characters' masks, their (face, character) pairs, and which belong to fonts no model sees."""
    masks, index, names = glyphs.atlas()
    return masks, index, held_out(index, names)


def characters(variety: str) -> list[list[np.ndarray]]:
    """The masks of each of CHARACTERS in this variety's half of the fonts."""
    masks, index, unseen = faces()
    half = (index[:, 0] % 2 == "XY".index(variety)) & ~unseen
    places = [half & (index[:, 1] == glyphs.CHARACTERS.index(c)) for c in CHARACTERS]
    return [list(masks[place].numpy()) for place in places]


def strokes(masks: np.ndarray) -> np.ndarray:
    """Masks (n, CANVAS, CANVAS) as they are, dilated and eroded, in three channels."""
    ink = torch.from_numpy(masks)[:, None].float()
    return torch.cat([ink, F.max_pool2d(ink, 3, 1, 1), -F.max_pool2d(-ink, 3, 1, 1)], 1).byte().numpy()


def hollow(mask: np.ndarray, line: int = 2) -> np.ndarray:
    """The outline of a mask."""
    ink = torch.from_numpy(mask.copy())[None, None].float()
    inner = -F.max_pool2d(-ink, 2 * line + 1, 1, line)
    return (ink - inner).clamp(0, 255)[0, 0].byte().numpy()


@functools.cache
def pool(variety: str) -> Pool:
    """Everything of one variety, in the order of CONCEPTS."""
    rng, coarse = np.random.default_rng("XY".index(variety)), variety == "Y"
    repeats, sharp = ((2.5, 4.5), (4.0, 10.0)) if coarse else ((3.0, 5.5), (1.5, 5.0))
    groups = characters(variety)
    for name in SHAPES:
        drawn = [shape(name, rng) for _ in range(EACH)]
        groups.append([hollow(m) if rng.random() < (0.5 if coarse else 0.2) else m for m in drawn])
    symbols = "".join(SYMBOLS[name] for name in SYMBOL_NAMES)
    groups += font_marks(symbols, DRAWN[1::2] if coarse else DRAWN[0::2])
    groups += [[texture(name, rng, repeats, sharp) for _ in range(EACH)] for name in FIELDS]
    counts = torch.tensor([len(group) for group in groups])
    masks = strokes(np.stack([mask for group in groups for mask in group]))
    views = np.stack([land(name, rng, 0.85 if coarse else 1.15) for name in LANDS for _ in range(EACH)])
    coloured = torch.arange(len(masks) + len(views)) >= len(masks)
    counts = torch.cat([counts, torch.full((len(LANDS),), EACH)])
    return Pool(torch.from_numpy(np.concatenate([masks, views])), coloured, counts.cumsum(0) - counts, counts)


def gradient(count: int, generator: torch.Generator, cells: int = 2) -> Tensor:
    """Smooth colour fields in about [-1, 1], (n, 3, SIDE, SIDE)."""
    field = torch.rand(count, 3, cells, cells, generator=generator) * 2 - 1
    return F.interpolate(field, size=(SIDE, SIDE), mode="bilinear", align_corners=True)


def colourful(masks: Tensor, generator: torch.Generator) -> Tensor:
    """Variety Y's paint: saturated ink on a paper whose colour runs; (n, 1, SIDE, SIDE) to three channels."""
    n, draw = len(masks), glyphs.uniform(len(masks), generator)
    paper = draw(0.1, 0.9, 3, 1, 1)
    ink = (paper + torch.where(paper.mean(1, keepdim=True) > 0.5, -1, 1) * draw(0.3, 0.8, 1, 1, 1)
           + draw(-0.3, 0.3, 3, 1, 1))  # fmt: skip
    paper = paper + 0.2 * gradient(n, generator) * draw(0, 1, 1, 1, 1)
    image = paper + (ink.clamp(0, 1) - paper) * masks.clamp(0, 1)
    return (image + torch.randn(image.shape, generator=generator) * draw(0, 0.05, 1, 1, 1)).clamp(0, 1)


def tint(images: Tensor, variety: str, generator: torch.Generator) -> Tensor:
    """Light of the aerial views: X strong and warm, Y pale and hazy, a third of Y grey."""
    draw = glyphs.uniform(len(images), generator)
    images = images * draw(0.8, 1.2, 3, 1, 1) + draw(-0.1, 0.1, 1, 1, 1)
    if variety == "Y":
        grey = images.mean(1, keepdim=True)
        images = grey + (images - grey) * (draw(-0.5, 1, 1, 1, 1).clamp(min=0))
        images = images + (draw(0.5, 0.9, 1, 1, 1) - images) * draw(0, 0.4, 1, 1, 1)
    return (images + torch.randn(images.shape, generator=generator) * draw(0, 0.06, 1, 1, 1)).clamp(0, 1)


def batch(pool: Pool, variety: str, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Fresh training images (count, 3, SIDE, SIDE) in [0, 1] and their labels in CONCEPTS."""
    place, labels = pool.sample(count, generator)
    coloured = pool.coloured[place]
    width = torch.multinomial(STROKES, count, replacement=True, generator=generator)[~coloured]
    masks = pool.images[place[~coloured], width][:, None].float() / 255
    masks = glyphs.degrade(glyphs.warp(masks, generator), generator)
    views = pool.images[place[coloured]].float() / 255
    views = glyphs.degrade(glyphs.warp(views, generator), generator)
    images = torch.empty(count, 3, SIDE, SIDE)
    images[~coloured] = (glyphs.paint if variety == "X" else colourful)(masks, generator)
    images[coloured] = tint(views, variety, generator)
    return images, labels
