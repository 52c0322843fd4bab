"""Rendered characters: what the demo's two base models are pre-trained on.

Two sources: TrueType fonts (matplotlib's own and those of installed `fontpkg-*` packages), and
the Hershey stroke fonts drawn with pens of several widths. A clean mask of each (font, character) is rendered
once; every training image is a fresh distortion of one.
"""

from __future__ import annotations

import importlib.metadata
import string
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from hub_scripts.world.vision.clips import SIDE

CANVAS = 48  # side of a clean mask
INK = 34  # side of the box its ink is fitted into
CHARACTERS = string.digits + string.ascii_lowercase + string.ascii_uppercase + "?!&#$%+=@*"

PENS = (2, 4, 6)  # widths of the Hershey strokes, in pixels of the canvas
HERSHEY = ("futural", "futuram", "cursive", "rowmans", "rowmand", "scripts", "scriptc", "timesi", "timesr")
HERSHEY += ("gothitt",)
MATPLOTLIB = ("DejaVu*", "STIXGeneral*", "cmr10", "cmss10", "cmtt10", "cmb10", "cmti10")


def font_files() -> list[Path]:
    """Every TrueType file we render, in a fixed order."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    files = [path for pattern in MATPLOTLIB for path in folder.glob(f"{pattern}.ttf")]
    files = [path for path in files if "Display" not in path.name]  # no letters in those
    for package in importlib.metadata.distributions():
        if (package.metadata["Name"] or "").startswith("fontpkg-"):
            files += [Path(package.locate_file(f)) for f in package.files or () if f.suffix == ".ttf"]
    return sorted(files, key=lambda path: path.name)


def fit(mask: Image.Image) -> np.ndarray | None:
    """Crop to the ink and centre it in the canvas, longer side INK, aspect kept; None where there is none."""
    box = mask.getbbox()
    if box is None:
        return None
    ink = mask.crop(box)
    scale = INK / max(ink.size)
    ink = ink.resize([max(2, round(side * scale)) for side in ink.size], Image.Resampling.LANCZOS)
    canvas = Image.new("L", (CANVAS, CANVAS))
    canvas.paste(ink, ((CANVAS - ink.width) // 2, (CANVAS - ink.height) // 2))
    return np.asarray(canvas)


def weights_of(font: ImageFont.FreeTypeFont) -> list[list[float] | None]:
    """Axis settings to render: the default and, for a variable font, its two extremes."""
    try:
        axes = font.get_variation_axes()
    except OSError:
        return [None]
    return [[axis[end] for axis in axes] for end in ("default", "minimum", "maximum")]


def truetype_faces(path: Path) -> list[list[np.ndarray | None]]:
    """The faces of one file: a list of masks, one a character."""
    font = ImageFont.truetype(str(path), 64)
    faces = []
    for axes in weights_of(font):
        if axes is not None:
            font.set_variation_by_axes(axes)
        face = []
        for character in CHARACTERS:
            sheet = Image.new("L", (192, 192))
            ImageDraw.Draw(sheet).text((64, 48), character, fill=255, font=font)
            face.append(fit(sheet))
        faces.append(face)
    return faces


def hershey_faces(name: str) -> list[list[np.ndarray | None]]:
    """One stroke font drawn with each pen."""
    from HersheyFonts import HersheyFonts

    font = HersheyFonts()
    font.load_default_font(name)
    strokes = {c: [np.array(s, float) for s in font.strokes_for_text(c)] for c in CHARACTERS}
    return [[draw_strokes(strokes[c], pen) for c in CHARACTERS] for pen in PENS]


def draw_strokes(strokes: list[np.ndarray], pen: int) -> np.ndarray | None:
    """Polylines drawn four times too large with a round pen, then fitted like any other glyph."""
    if not strokes:
        return None
    points = np.concatenate(strokes)
    low, span = points.min(0), max(float(np.ptp(points, axis=0).max()), 1.0)
    sheet = Image.new("L", (4 * CANVAS, 4 * CANVAS))
    draw, radius = ImageDraw.Draw(sheet), 2 * pen
    for stroke in strokes:
        line = [tuple(p) for p in (stroke - low) / span * 4 * INK + 4 * (CANVAS - INK) / 2]
        draw.line(line, fill=255, width=2 * radius, joint="curve")
        for x, y in line:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return fit(sheet)


def atlas() -> tuple[Tensor, Tensor, list[str]]:
    """Masks (glyphs, CANVAS, CANVAS) uint8, (glyphs, 2) pairs of face and character, and the faces' names."""
    masks, index, names = [], [], []
    sources = [(path.stem, truetype_faces(path)) for path in font_files()]
    sources += [(f"Hershey {name}", hershey_faces(name)) for name in HERSHEY]
    for name, faces in sources:
        for face in faces:
            for character, mask in enumerate(face):
                if mask is not None:
                    masks.append(mask)
                    index.append((len(names), character))
            names.append(name)
    return torch.from_numpy(np.stack(masks)), torch.tensor(index), names


def uniform(count: int, generator: torch.Generator) -> Callable[..., Tensor]:
    """draw(low, high, *shape): `count` uniform samples of that shape."""

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator) * (high - low) + low

    return draw


def warp(masks: Tensor, generator: torch.Generator) -> Tensor:
    """Random affine map and a smooth elastic field; (n, 1, CANVAS, CANVAS) to (n, 1, SIDE, SIDE)."""
    n, draw = len(masks), uniform(len(masks), generator)
    angle, shear, zoom = draw(-0.3, 0.3), draw(-0.35, 0.35), draw(0.62, 1.0)
    aspect = draw(-0.3, 0.3).exp()
    cos, sin = angle.cos(), angle.sin()
    rotation = torch.stack([cos, -sin, sin, cos], 1).view(n, 2, 2)
    slant = torch.stack([torch.ones(n), shear, torch.zeros(n), torch.ones(n)], 1).view(n, 2, 2)
    stretch = torch.diag_embed(torch.stack([zoom / aspect.sqrt(), zoom * aspect.sqrt()], 1))
    theta = torch.cat([rotation @ slant @ stretch, draw(-0.12, 0.12, 2)[..., None]], 2)
    grid = F.affine_grid(theta, [n, 1, SIDE, SIDE], align_corners=False)
    field = torch.randn(n, 2, 4, 4, generator=generator) * draw(0.0, 0.13, 1, 1, 1)
    field = F.interpolate(field, size=(SIDE, SIDE), mode="bicubic", align_corners=True)
    return F.grid_sample(masks, grid + field.permute(0, 2, 3, 1), align_corners=False)


def thicken(masks: Tensor, generator: torch.Generator) -> Tensor:
    """A third of the masks dilated, a tenth eroded, the rest as they are."""
    chance = torch.rand(len(masks), 1, 1, 1, generator=generator)
    fat = F.max_pool2d(masks, 3, 1, 1)
    fatter = F.max_pool2d(fat, 3, 1, 1)
    thin = -F.max_pool2d(-masks, 3, 1, 1)
    masks = torch.where(chance < 0.10, thin, masks)
    return torch.where(chance > 0.85, fatter, torch.where(chance > 0.67, fat, masks))


def degrade(images: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the images seen through a coarse sensor: 8 to 20 pixels a side, then back to SIDE."""
    chance = torch.rand(len(images), generator=generator)
    for step, side in enumerate((8, 10, 12, 16, 20)):
        chosen = ((chance * 10).long() == step).nonzero().squeeze(1)
        if len(chosen):
            mode = "bicubic" if torch.rand((), generator=generator) < 0.5 else "bilinear"
            small = F.interpolate(images[chosen], size=(side, side), mode="area")
            images[chosen] = F.interpolate(small, size=(SIDE, SIDE), mode=mode, align_corners=False)
    return images


def paint(masks: Tensor, generator: torch.Generator) -> Tensor:
    """Ink and paper colours (a third grey, half inverted) with enough contrast, and sensor noise."""
    n, draw = len(masks), uniform(len(masks), generator)
    dark, contrast = draw(0.0, 0.45, 1, 1, 1), draw(0.35, 1.0, 1, 1, 1)
    light = dark + (1 - dark) * contrast
    tint = draw(-0.15, 0.15, 2, 3, 1, 1) * (draw(0, 1, 1, 1, 1, 1) > 0.33)
    flip = draw(0, 1, 1, 1, 1) < 0.5
    ink, paper = torch.where(flip, dark, light) + tint[:, 0], torch.where(flip, light, dark) + tint[:, 1]
    image = paper + (ink - paper) * masks.clamp(0, 1)
    noise = torch.randn(n, 3, SIDE, SIDE, generator=generator) * draw(0.0, 0.12, 1, 1, 1)
    return (image + noise).clamp(0, 1)


def distort(masks: Tensor, generator: torch.Generator) -> Tensor:
    """Fresh training images (n, 3, SIDE, SIDE) in [0, 1] from clean masks (n, CANVAS, CANVAS) uint8."""
    clean = masks[:, None].float() / 255
    return paint(degrade(warp(thicken(clean, generator), generator), generator), generator)
