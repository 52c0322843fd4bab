"""Procedural surfaces: textures as masks and aerial views in colour, CANVAS pixels a side."""

from __future__ import annotations

import numpy as np
from PIL import Image

from hub_scripts.world.vision.glyphs import CANVAS

WAVE = 2 * np.pi


def noise(rng: np.random.Generator, cells: int, side: int = CANVAS) -> np.ndarray:
    """Smooth noise of about unit variance with that many cells a side."""
    grid = Image.fromarray(rng.standard_normal((cells + 1, cells + 1)).astype(np.float32))
    return np.asarray(grid.resize((side, side), Image.Resampling.BICUBIC)) * 1.3


def cells(x: np.ndarray, y: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances from every pixel to the nearest and the second nearest point."""
    away = np.hypot(x[..., None] - points[:, 0], y[..., None] - points[:, 1])
    near = np.partition(away, 1, axis=-1)
    return near[..., 0], near[..., 1]


def lattice(x: np.ndarray, y: np.ndarray, rng: np.random.Generator, jitter: float) -> np.ndarray:
    """Hexagonal lattice points of unit spacing over the plane, each moved at random."""
    low, high = int(min(x.min(), y.min())) - 2, int(max(x.max(), y.max())) + 3
    row, column = np.meshgrid(np.arange(low, high) / 0.866, np.arange(low, high), indexing="ij")
    index = np.round(row * 0.866).astype(int)
    points = np.stack([column + 0.5 * (index % 2), index * 0.866], -1).reshape(-1, 2)
    return points + rng.uniform(-jitter, jitter, points.shape)


def edges(jitter: float, width: float):
    """Cell borders of a jittered lattice."""

    def field(x, y, rng):
        near, far = cells(x, y, lattice(x, y, rng, jitter))
        return (far - near - width) * 3

    return field


def scales(x, y, rng):
    """Overlapping arcs in rows, every other row moved by half."""
    row = np.floor(y * 1.6)
    return np.cos(WAVE * np.hypot((x + 0.5 * (row % 2)) % 1 - 0.5, (y * 1.6 % 1) * 0.7) * 1.3)


def bricks(x, y, rng):
    row = np.floor(y * 1.4)
    across, up = (x * 0.7 + 0.5 * (row % 2)) % 1, y * 1.4 % 1
    return np.minimum(np.minimum(across, 1 - across) * 1.4, np.minimum(up, 1 - up)) * 6 - 0.8


def weave(x, y, rng):
    over = (np.floor(x) + np.floor(y)) % 2 == 0
    return np.where(over, np.cos(WAVE * 2 * x), np.cos(WAVE * 2 * y)) * 0.9


def centred(x, y):
    """Radius and angle about the middle of the image."""
    dx, dy = x - x.mean(), y - y.mean()
    return np.hypot(dx, dy), np.arctan2(dy, dx)


FIELDS = {
    "striped": lambda x, y, rng: np.sin(WAVE * x),
    "banded": lambda x, y, rng: np.sin(WAVE * y),
    "dotted": lambda x, y, rng: np.cos(WAVE * x) + np.cos(WAVE * y) - 0.6,
    "chequered": lambda x, y, rng: 2 * np.sin(np.pi * x) * np.sin(np.pi * y),
    "grid": lambda x, y, rng: 2 * (np.maximum(np.cos(WAVE * x), np.cos(WAVE * y)) - 0.75),
    "zigzag": lambda x, y, rng: np.sin(WAVE * (y + 1.2 * np.abs(x * 0.7 % 1 - 0.5))),
    "wavy": lambda x, y, rng: np.sin(WAVE * (y + 0.28 * np.sin(WAVE * x * 0.5))),
    "speckled": lambda x, y, rng: noise(rng, 36) - 0.9,
    "blotchy": lambda x, y, rng: noise(rng, int(3 + np.ptp(x))) - 0.2,
    "cracked": edges(0.42, 0.09),
    "honeycomb": edges(0.0, 0.16),
    "scaly": scales,
    "brick": bricks,
    "woven": weave,
    "ringed": lambda x, y, rng: np.sin(WAVE * centred(x, y)[0]),
    "spiralled": lambda x, y, rng: np.sin(WAVE * centred(x, y)[0] * 0.8 + centred(x, y)[1] * 2),
    "rayed": lambda x, y, rng: np.sin(centred(x, y)[1] * round(4 + np.ptp(x) * 0.8)),
    "hatched": lambda x, y, rng: 2 * (np.maximum(np.cos(WAVE * (x + y)), np.cos(WAVE * (x - y))) - 0.8),
    "marbled": lambda x, y, rng: np.sin(WAVE * (x * 0.5 + 0.55 * noise(rng, 4))),
}


def plane(rng: np.random.Generator, repeats: float, turned: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates that run through that many units over the canvas, turned by an angle, with a random origin."""
    line = (np.arange(CANVAS) + 0.5) / CANVAS * repeats
    x, y = np.meshgrid(line, line)
    cos, sin = np.cos(turned), np.sin(turned)
    return cos * x - sin * y + rng.uniform(0, 4), sin * x + cos * y + rng.uniform(0, 4)


def texture(name: str, rng: np.random.Generator, repeats=(3.0, 6.0), sharp=(1.5, 8.0), turn=0.25) -> np.ndarray:
    """One of FIELDS as a mask, (CANVAS, CANVAS) uint8; a low `sharp` gives soft edges."""
    x, y = plane(rng, rng.uniform(*repeats), rng.uniform(-turn, turn))
    value = FIELDS[name](x, y, rng) * rng.uniform(*sharp)
    return (255 / (1 + np.exp(-np.clip(value, -20, 20)))).astype(np.uint8)


# Aerial views --------------------------------------------------------------------------------------------
GREEN, DARK, SAND, WATER = (0.45, 0.6, 0.3), (0.15, 0.33, 0.17), (0.83, 0.75, 0.55), (0.15, 0.35, 0.6)
GREY, ROOF, EARTH, SNOW = (0.5, 0.5, 0.52), (0.7, 0.45, 0.38), (0.55, 0.42, 0.3), (0.93, 0.94, 0.97)


def ground(rng: np.random.Generator, colour: tuple, rough: float = 0.05) -> np.ndarray:
    """A ground of one colour with some large and some small variation, (CANVAS, CANVAS, 3)."""
    shade = rough * (noise(rng, 5) + 0.6 * noise(rng, 24))
    return np.array(colour) * rng.uniform(0.85, 1.15, 3) + shade[..., None]


def mix(below: np.ndarray, above: np.ndarray | tuple, where: np.ndarray) -> np.ndarray:
    """`above` where the mask is one."""
    where = np.clip(where, 0, 1)[..., None]
    return below * (1 - where) + np.asarray(above) * where


def path(x: np.ndarray, y: np.ndarray, rng: np.random.Generator, bend: float) -> np.ndarray:
    """Distance from a line through the middle, bent by noise."""
    turned, shift = rng.uniform(0, np.pi), rng.uniform(-0.15, 0.15)
    bent = bend * (noise(rng, 2) + 0.3 * noise(rng, 5))
    return np.cos(turned) * x + np.sin(turned) * y + shift + bent


def fields(x, y, rng, scale):
    u, v = plane(rng, rng.uniform(2, 3.2) * scale, rng.uniform(0, np.pi))
    plot = (np.floor(u * 1.3) * 7 + np.floor(v) * 13).astype(int) % 11
    colours = np.array([GREEN, SAND, EARTH, DARK])[rng.integers(0, 4, 11)] * rng.uniform(0.8, 1.2, (11, 1))
    furrow = 0.05 * np.sin(WAVE * 3.5 * np.where(plot % 2 == 0, u, v))
    return colours[plot] + furrow[..., None] + 0.03 * noise(rng, 20)[..., None]


def city(x, y, rng, scale):
    u, v = plane(rng, rng.uniform(4, 6) * scale, rng.uniform(-0.4, 0.4))
    block = (np.floor(u) * 5 + np.floor(v) * 17).astype(int) % 23
    roofs = np.array([GREY, ROOF, SNOW, EARTH])[rng.integers(0, 4, 23)] * rng.uniform(0.7, 1.2, (23, 1))
    street = np.maximum(np.abs(u % 1 - 0.5), np.abs(v % 1 - 0.5)) > 0.34
    return mix(roofs[block] + 0.03 * noise(rng, 30)[..., None], (0.28, 0.28, 0.3), street)


def forest(x, y, rng, scale):
    u, v = plane(rng, rng.uniform(7, 10) * scale, 0)
    near, _ = cells(u, v, lattice(u, v, rng, 0.35))
    return ground(rng, DARK, 0.04) + (0.18 * (0.5 - near))[..., None]


def river(x, y, rng, scale):
    land = ground(rng, (GREEN, DARK, EARTH)[rng.integers(3)], 0.06)
    return mix(land, ground(rng, WATER, 0.02), (rng.uniform(0.07, 0.13) - np.abs(path(x, y, rng, 0.12))) * 30 + 0.5)


def coast(x, y, rng, scale):
    line = path(x, y, rng, 0.06)
    shore = mix(ground(rng, (GREEN, EARTH)[rng.integers(2)]), ground(rng, SAND, 0.03), (0.14 - line) * 30)
    return mix(shore, ground(rng, WATER, 0.03), -line * 40)


def lake(x, y, rng, scale):
    land = ground(rng, (GREEN, DARK, EARTH)[rng.integers(3)], 0.06)
    away = np.hypot(x * rng.uniform(0.8, 1.25), y) + 0.06 * noise(rng, 4)
    return mix(land, ground(rng, WATER, 0.02), (rng.uniform(0.2, 0.3) - away) * 30)


def island(x, y, rng, scale):
    away = np.hypot(x * rng.uniform(0.8, 1.25), y) + 0.06 * noise(rng, 4) - rng.uniform(0.2, 0.3)
    beach = mix(ground(rng, WATER, 0.03), ground(rng, SAND, 0.03), -away * 40)
    return mix(beach, ground(rng, (GREEN, DARK)[rng.integers(2)], 0.06), (-away - 0.06) * 30)


def highway(x, y, rng, scale):
    land, line = ground(rng, (GREEN, DARK, EARTH, SAND)[rng.integers(4)], 0.05), np.abs(path(x, y, rng, 0.03))
    road = mix(land, (0.42, 0.42, 0.44), (rng.uniform(0.07, 0.12) - line) * 40)
    return mix(road, SNOW, (0.018 - line) * 80)


def desert(x, y, rng, scale):
    u, _ = plane(rng, rng.uniform(3, 6) * scale, rng.uniform(0, np.pi))
    return ground(rng, SAND, 0.03) + (0.09 * np.sin(WAVE * (u + 0.25 * noise(rng, 4))))[..., None]


def mountain(x, y, rng, scale):
    ridge = 1 - np.abs(noise(rng, round(4 * scale))) - 0.4 * np.abs(noise(rng, 9))
    rock = ground(rng, GREY, 0.05) + (0.2 * np.gradient(ridge, axis=1) * 6)[..., None]
    return mix(rock, SNOW, (ridge - 0.5) * 4)


def harbour(x, y, rng, scale):
    u, v = plane(rng, rng.uniform(3, 4.5) * scale, rng.uniform(-0.5, 0.5) + np.pi / 2 * rng.integers(2))
    quay = mix(ground(rng, WATER, 0.03), GREY, (np.abs(u % 1 - 0.5) < 0.13).astype(float))
    boat = (np.abs(u % 1 - 0.1) < 0.09) & (np.abs(v * 2 % 1 - 0.5) < 0.25)
    return mix(quay, SNOW, boat.astype(float))


def orchard(x, y, rng, scale):
    u, v = plane(rng, rng.uniform(5, 7) * scale, rng.uniform(0, np.pi))
    crown = 0.36 - np.hypot(u % 1 - 0.5, v % 1 - 0.5)
    return mix(ground(rng, (EARTH, GREEN)[rng.integers(2)]), DARK, crown * 8)


LANDS = {f.__name__: f for f in (fields, city, forest, river, coast, lake, island, highway, desert, mountain, harbour,
                                 orchard)}  # fmt: skip


def land(name: str, rng: np.random.Generator, scale: float = 1.0) -> np.ndarray:
    """One aerial view, (3, CANVAS, CANVAS) uint8; a larger scale shows more ground."""
    line = (np.arange(CANVAS) + 0.5) / CANVAS - 0.5
    x, y = np.meshgrid(line, line)
    view = LANDS[name](x, y, rng, scale)
    return (np.clip(view, 0, 1) * 255).astype(np.uint8).transpose(2, 0, 1)
