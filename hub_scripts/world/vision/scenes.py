"""How the images of the eight tasks are made: each function paints a batch of labels, (n, 3, SIDE, SIDE) in [0, 1].

These renderings differ from those of pre-training: signs in light and shade, digits among other digits, and so on.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hub_scripts.world.vision import glyphs
from hub_scripts.world.vision.clips import DIGITS, SIDE
from hub_scripts.world.vision.crawl import faces, gradient, hollow
from hub_scripts.world.vision.shapes import DRAWN, SYMBOLS, flower, font_marks, gear, outline, polygon, shape, star
from hub_scripts.world.vision.surfaces import land, texture

COUNTING = {"four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "ten": 10}
POLYGONS = {"pentagon": 5, "hexagon": 6, "octagon": 8}
SERIF = ("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta", "DejaVuSerif", "DejaVuSerif-Bold",
         "DejaVuSansMono", "DejaVuSerif-Italic")  # fmt: skip
GREEK = dict(zip(("alpha", "beta", "gamma", "delta", "theta", "lambda", "xi", "pi", "sigma", "phi", "psi", "omega"),
                 "αβγδθλξπσφψω", strict=True))  # fmt: skip
RED, BLUE, WHITE, BLACK, YELLOW = (0.8, 0.1, 0.12), (0.1, 0.25, 0.7), (0.95,) * 3, (0.08,) * 3, (0.95, 0.8, 0.1)
BORDERS = {  # border, rim, field and glyph colour of each sign
    "exclamation sign": ("triangle", RED, WHITE, BLACK), "snowflake": ("triangle", RED, WHITE, BLACK),
    "lightning": ("triangle", BLACK, YELLOW, BLACK), "plane": ("triangle", RED, WHITE, BLACK),
    "up arrow": ("circle", WHITE, BLUE, WHITE), "left arrow": ("circle", WHITE, BLUE, WHITE),
    "right arrow": ("circle", WHITE, BLUE, WHITE), "cross": ("circle", RED, BLUE, RED),
    "digit three": ("circle", RED, WHITE, BLACK), "digit five": ("circle", RED, WHITE, BLACK),
    "capital letter p": ("square", WHITE, BLUE, WHITE), "octagon": ("octagon", WHITE, RED, WHITE),
}  # fmt: skip


def stacked(masks: list[np.ndarray]) -> Tensor:
    """Masks as (n, 1, CANVAS, CANVAS) in [0, 1]."""
    return torch.from_numpy(np.stack(masks))[:, None].float() / 255


def place(images: Tensor, size: Tensor, angle: Tensor, shift: Tensor, padding: str = "zeros") -> Tensor:
    """Images scaled by `size`, turned and moved (in halves of the side) into a SIDE x SIDE frame."""
    cos, sin = angle.cos() / size, angle.sin() / size
    turn = torch.stack([cos, -sin, sin, cos], 1).view(-1, 2, 2)
    theta = torch.cat([turn, -(turn @ shift[..., None])], 2)
    grid = F.affine_grid(theta, [len(images), 1, SIDE, SIDE], align_corners=False)
    return F.grid_sample(images, grid, padding_mode=padding, align_corners=False)


def over(paper: Tensor, mask: Tensor, ink: Tensor) -> Tensor:
    """Ink laid on paper where the mask is."""
    return paper + (ink - paper) * mask.clamp(0, 1)


def contrast(paper: Tensor, draw, low: float, high: float) -> Tensor:
    """An ink (n, 3, 1, 1) lighter or darker than the paper's mean by low to high, of its own hue."""
    mean = paper.mean((2, 3), keepdim=True)
    away = torch.where(mean.mean(1, keepdim=True) > 0.5, -1.0, 1.0) * draw(low, high, 1, 1, 1)
    return (mean + away + draw(-0.2, 0.2, 3, 1, 1)).clamp(0, 1)


def grain(images: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    return (images + amount * torch.randn(images.shape, generator=generator)).clamp(0, 1)


def pick(groups: list[list[np.ndarray]], labels: Tensor, rng: np.random.Generator) -> Tensor:
    """One mask at random of each label's group."""
    return stacked([groups[i][rng.integers(len(groups[i]))] for i in labels.tolist()])


def characters(names: str) -> list[list[np.ndarray]]:
    """Masks of characters in the fonts that no base saw."""
    masks, index, unseen = faces()
    return [list(masks[unseen & (index[:, 1] == glyphs.CHARACTERS.index(c))].numpy()) for c in names]


def scene_digits(classes, labels, rng, generator) -> Tensor:
    """House numbers: one digit in the middle, parts of others at its sides, on a colourful wall."""
    draw, digits = glyphs.uniform(len(labels), generator), characters("0123456789")
    image = (0.5 + 0.35 * draw(-1, 1, 3, 1, 1) + 0.22 * gradient(len(labels), generator, 4)).clamp(0, 1)
    ink, angle, size = contrast(image, draw, 0.35, 0.7), draw(-0.15, 0.15), draw(0.95, 1.2)
    for side in (-1, 1, 0):
        other = torch.from_numpy(rng.integers(0, len(DIGITS), len(labels))) if side else labels
        shift = torch.stack([side * draw(0.85, 1.05), draw(-0.1, 0.1)], 1)
        mask = place(pick(digits, other, rng), size, angle, shift)
        image = over(image, mask * (draw(0, 1, 1, 1, 1) < (0.7 if side else 2)), ink)
    return grain(glyphs.degrade(image, generator), 0.03, generator)


def sign_glyph(name: str, rng: np.random.Generator) -> np.ndarray:
    """What is painted inside a sign."""
    if name in SYMBOLS:
        return font_marks(SYMBOLS[name], DRAWN[:1])[0][0]
    if name == "octagon":
        return shape("rectangle", rng)
    letters = {"exclamation sign": "!", "capital letter p": "P", "digit three": "3", "digit five": "5"}
    if name not in letters:
        return shape(name, rng)
    found = characters(letters[name])[0]
    return found[rng.integers(len(found))]


def signs(classes, labels, rng, generator) -> Tensor:
    """Traffic signs cropped tight: border, field and glyph, a little turned, under any light, some blurred."""
    n, draw = len(labels), glyphs.uniform(len(labels), generator)
    looks = [BORDERS[classes[i]] for i in labels.tolist()]
    border = stacked([shape(look[0], rng) for look in looks])
    cache = {name: [sign_glyph(name, rng) for _ in range(6)] for name in classes}
    glyph = pick([cache[name] for name in classes], labels, rng)
    size, angle, shift = draw(1.25, 1.5), draw(-0.2, 0.2), draw(-0.08, 0.08, 2)
    image = (0.45 + 0.25 * draw(-1, 1, 1, 1, 1) + 0.25 * gradient(n, generator, 5)).clamp(0, 1)
    low = torch.tensor([0.14 if look[0] == "triangle" else 0.0 for look in looks])
    glyph_size = torch.where(low > 0, 0.6, 0.75)
    inside = torch.stack([torch.zeros(n), low], 1)
    for part, scale, move, layer in ((border, 1.3, 0, 1), (border, 1.18, 0, 2), (glyph, glyph_size, inside, 3)):
        mask = place(part, size * scale, angle, shift + move)
        image = over(image, mask, torch.tensor([look[layer] for look in looks])[..., None, None])
    light = draw(0.35, 1.1, 1, 1, 1) * (1 + 0.3 * gradient(n, generator)) + draw(0, 0.15, 1, 1, 1)
    return grain(glyphs.degrade((image * light).clamp(0, 1), generator), 0.03, generator)


def textures(classes, labels, rng, generator) -> Tensor:
    """Surfaces in natural colours under uneven light, from near and far."""
    n, draw = len(labels), glyphs.uniform(len(labels), generator)
    masks = stacked([texture(classes[i], rng, (3.0, 5.5), (2.0, 8.0), 0.4) for i in labels.tolist()])
    mask = place(masks, draw(1.0, 1.5), draw(-0.1, 0.1), draw(-0.2, 0.2, 2), "reflection")
    paper = torch.tensor([0.6, 0.48, 0.36])[:, None, None] + draw(-0.3, 0.3, 1, 1, 1) + draw(-0.12, 0.12, 3, 1, 1)
    image = over(paper.expand(-1, -1, SIDE, SIDE), mask, contrast(paper, draw, 0.3, 0.6))
    return grain(image * (1 + 0.35 * gradient(n, generator)), 0.04, generator)


def lands(classes, labels, rng, generator) -> Tensor:
    """Aerial views in other seasons and hazes, turned in any direction."""
    draw = glyphs.uniform(len(labels), generator)
    views = [land(classes[i], rng, rng.uniform(0.7, 1.4)) for i in labels.tolist()]
    views = torch.from_numpy(np.stack(views)).float() / 255
    image = place(views, draw(1.1, 1.4), draw(-0.2, 0.2), draw(-0.1, 0.1, 2), "reflection")
    season, haze = draw(0.7, 1.3, 3, 1, 1), draw(0, 0.45, 1, 1, 1)
    return grain((image * season) * (1 - haze) + haze * draw(0.4, 0.9, 3, 1, 1), 0.04, generator)


def fine_shape(name: str, rng: np.random.Generator) -> np.ndarray:
    """A polygon, star, gear or flower by its name, turned at random."""
    kind, _, count = name.partition(" with ")
    number = POLYGONS[kind] if kind in POLYGONS else COUNTING[count.split()[0]]
    make = polygon if kind in POLYGONS else {"star": star, "gear": gear, "flower": flower}[kind]
    mask = outline(make(number), rng, rng.uniform(0, 2 * np.pi))
    return hollow(mask) if rng.random() < 0.3 else mask


def fine_shapes(classes, labels, rng, generator) -> Tensor:
    """Shapes that differ in a count alone, on shaded paper."""
    n, draw = len(labels), glyphs.uniform(len(labels), generator)
    masks = stacked([fine_shape(classes[i], rng) for i in labels.tolist()])
    paper = (0.5 + 0.4 * draw(-1, 1, 3, 1, 1) + 0.15 * gradient(n, generator, 3)).clamp(0, 1)
    mask = place(masks, draw(1.0, 1.3), draw(-0.1, 0.1), draw(-0.1, 0.1, 2))
    return grain(over(paper, mask, contrast(paper, draw, 0.3, 0.7)), 0.04, generator)


def letters(classes, labels, rng, generator) -> Tensor:
    """Greek letters as if scanned: bright on black, warped, of any stroke width."""
    draw, groups = glyphs.uniform(len(labels), generator), font_marks("".join(GREEK[c] for c in classes), SERIF)
    mask = glyphs.warp(glyphs.thicken(pick(groups, labels, rng), generator), generator)
    image = 0.05 + mask.clamp(0, 1) * draw(0.6, 0.95, 1, 1, 1)
    return grain(image.expand(-1, 3, -1, -1), 0.04, generator)


def symbols(classes, labels, rng, generator) -> Tensor:
    """Symbols drawn in ink on ruled paper, half of them as outlines."""
    n, draw = len(labels), glyphs.uniform(len(labels), generator)
    groups = font_marks("".join(SYMBOLS[c] for c in classes), DRAWN)
    groups = [group + [hollow(mask, 1) for mask in group] for group in groups]
    mask = glyphs.warp(pick(groups, labels, rng), generator)
    rows = torch.arange(SIDE).view(1, 1, SIDE, 1) + draw(0, 8, 1, 1, 1)
    paper = draw(0.75, 0.95, 1, 1, 1) - 0.3 * (rows % 8 < 1).float() * torch.tensor([1, 0.6, 0.2]).view(3, 1, 1)
    ink = draw(0.0, 0.4, 3, 1, 1)
    image = over(paper.expand(-1, -1, -1, SIDE), mask, ink) * (1 + 0.15 * gradient(n, generator))
    return grain(image, 0.03, generator)


PAINTERS = {"scene-digits": scene_digits, "signs": signs, "textures": textures, "land": lands,
            "fine-shapes": fine_shapes, "letters": letters, "symbols": symbols}  # fmt: skip
