"""Clean masks of shapes and symbols: outlines given by a radius over the angle, polygons, and font symbols."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hub_scripts.world.vision.glyphs import CANVAS, fit

SHEET = 4 * CANVAS  # masks are drawn four times too large
TURN = np.linspace(0, 2 * np.pi, 360, endpoint=False)

SYMBOLS = {
    "spade": "♠", "club": "♣", "umbrella": "☂", "music note": "♪", "telephone": "☎", "plane": "✈", "sun": "☀",
    "cloud": "☁", "snowman": "☃", "scissors": "✂", "envelope": "✉", "anchor": "⚓", "queen": "♛", "knight": "♞",
    "rook": "♜", "pencil": "✏", "flag": "⚑", "skull": "☠", "scales": "⚖", "snowflake": "❄", "check mark": "✔",
    "peace": "☮", "wheelchair": "♿", "smile": "☺", "radiation": "☢", "female": "♀", "male": "♂", "recycling": "♻",
}  # fmt: skip
DRAWN = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique")


def polygon(corners: int) -> Callable:
    """Radius of the regular polygon with a corner at angle zero."""
    half = np.pi / corners
    return lambda turn, rng: np.cos(half) / np.cos(turn % (2 * half) - half)


def star(points: int) -> Callable:
    """Radius of a star, its inner radius random."""

    def radius(turn: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        phase = np.abs(turn * points / (2 * np.pi) % 1 - 0.5) * 2  # 1 at a point, 0 between two
        inner = rng.uniform(0.4, 0.52)
        return inner / (1 - phase * (1 - inner))

    return radius


def gear(teeth: int) -> Callable:
    """Radius of a gear with square teeth."""
    return lambda turn, rng: np.where((turn * teeth / (2 * np.pi) + 0.25) % 1 < 0.5, 1.0, rng.uniform(0.62, 0.75))


def flower(petals: int) -> Callable:
    """Radius of a flower with round petals."""
    return lambda turn, rng: rng.uniform(0.35, 0.5) + 0.5 * np.abs(np.cos(turn * petals / 2))


def heart(turn: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Radius of a heart whose tip points down (angle zero is up)."""
    away = np.abs((turn + np.pi) % (2 * np.pi) - np.pi) / np.pi  # 0 up, 1 down
    return np.interp(away, [0, 0.2, 0.45, 0.75, 0.93, 1], [0.55, 1.0, 1.0, 0.85, 1.02, 1.15])


RADII = {
    "circle": lambda turn, rng: np.ones_like(turn), "triangle": polygon(3), "diamond": polygon(4),
    "pentagon": polygon(5), "hexagon": polygon(6), "octagon": polygon(8), "heart": heart,
    "star with four points": star(4), "star with five points": star(5), "star with six points": star(6),
    "gear": lambda turn, rng: gear(int(rng.integers(6, 11)))(turn, rng),
    "flower": lambda turn, rng: flower(int(rng.integers(4, 8)))(turn, rng),
}  # fmt: skip
ARROW = [(0, -1), (0.8, -0.1), (0.3, -0.1), (0.3, 1), (-0.3, 1), (-0.3, -0.1), (-0.8, -0.1)]
CORNERS = {
    "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
    "rectangle": [(-1, -0.5), (1, -0.5), (1, 0.5), (-1, 0.5)],
    "cross": [(0.3 * x, 0.3 * y) for x, y in ((-1, -1), (-1, -3), (1, -3), (1, -1), (3, -1), (3, 1), (1, 1), (1, 3),
                                               (-1, 3), (-1, 1), (-3, 1), (-3, -1))],
    "lightning": [(0.2, -1), (-0.6, 0.15), (-0.05, 0.15), (-0.3, 1), (0.6, -0.25), (0.05, -0.25), (0.5, -1)],
    "house": [(0, -1), (1, -0.1), (0.75, -0.1), (0.75, 1), (-0.75, 1), (-0.75, -0.1), (-1, -0.1)],
    "up arrow": ARROW,
    "down arrow": [(-x, -y) for x, y in ARROW],
    "left arrow": [(y, -x) for x, y in ARROW],
    "right arrow": [(-y, x) for x, y in ARROW],
}  # fmt: skip
SHAPES = (*RADII, *CORNERS, "ring", "crescent")


def draw(points: np.ndarray | list, hole: tuple[float, float, float] | None = None) -> np.ndarray:
    """A filled polygon of points in [-1, 1], less a disc (x, y, radius); (CANVAS, CANVAS) uint8."""
    sheet = Image.new("L", (SHEET, SHEET))
    pen, place = ImageDraw.Draw(sheet), lambda p: tuple((np.asarray(p) * 0.4 + 0.5) * SHEET)
    pen.polygon([place(p) for p in points], fill=255)
    if hole is not None:
        x, y, radius = hole
        pen.ellipse((*place((x - radius, y - radius)), *place((x + radius, y + radius))), fill=0)
    return fit(sheet)


def outline(radius: Callable, rng: np.random.Generator, turned: float = 0.0) -> np.ndarray:
    """The mask of a radius function, turned by that angle; angle zero is up."""
    r = radius(TURN, rng)
    return draw(np.stack([r * np.sin(TURN + turned), -r * np.cos(TURN + turned)], 1))


def shape(name: str, rng: np.random.Generator) -> np.ndarray:
    """One of SHAPES upright, (CANVAS, CANVAS) uint8."""
    circle = np.stack([np.sin(TURN), np.cos(TURN)], 1)
    if name == "ring":
        return draw(circle, (0, 0, rng.uniform(0.5, 0.8)))
    if name == "crescent":
        return draw(circle, (rng.choice([-1, 1]) * rng.uniform(0.35, 0.55), rng.uniform(-0.2, 0.2), 0.85))
    return outline(RADII[name], rng) if name in RADII else draw(CORNERS[name])


def font_marks(characters: str, faces: tuple[str, ...]) -> list[list[np.ndarray]]:
    """The masks of each character in those of matplotlib's faces that have it."""
    import matplotlib
    from fontTools.ttLib import TTFont

    per_sample: list[list[np.ndarray]] = [[] for _ in characters]
    for face in faces:
        path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{face}.ttf"
        known, font = TTFont(path).getBestCmap(), ImageFont.truetype(str(path), 96)
        for character, found in zip(characters, per_sample, strict=True):
            if ord(character) in known:
                sheet = Image.new("L", (288, 288))
                ImageDraw.Draw(sheet).text((96, 72), character, fill=255, font=font)
                found.append(fit(sheet))
    return per_sample
