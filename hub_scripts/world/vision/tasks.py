"""Eight vision tasks in miniature, 32x32 in colour, after the eight of the papers; no pre-training image is in them.

`pixels(name, split)` gives 900 training, 100 validation or 500 test images, always the same ones.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hub_scripts.world.vision.clips import DIGITS, digits

COUNTS = {"train": 900, "validation": 100, "test": 500}


@dataclass(frozen=True)
class Task:
    """A task's name, its classes in label order and its prompt templates with `{c}` for the class."""

    name: str
    classes: tuple[str, ...]
    templates: tuple[str, ...] = ("the {c}", "a photo of the {c}")


DIGIT = ("the digit {c}", "a photo of the digit {c}", "an image of a digit {c}")
SIGN = ("exclamation sign", "up arrow", "left arrow", "right arrow", "cross", "capital letter p", "digit three",
        "digit five", "snowflake", "plane", "lightning", "octagon")  # fmt: skip
TEXTURE = ("striped", "dotted", "chequered", "grid", "zigzag", "cracked", "scaly", "brick", "spiralled", "woven",
           "honeycomb", "marbled")  # fmt: skip
LAND = ("fields", "city", "forest", "river", "coast", "lake", "highway", "desert", "mountain", "harbour")
FINE = ("pentagon", "hexagon", "octagon", "star with four points", "star with five points", "star with six points",
        "star with eight points", "gear with six teeth", "gear with eight teeth", "gear with ten teeth",
        "flower with five petals", "flower with seven petals")  # fmt: skip
GREEK = ("alpha", "beta", "gamma", "delta", "theta", "lambda", "xi", "pi", "sigma", "phi", "psi", "omega")
SYMBOL = ("spade", "club", "umbrella", "music note", "telephone", "plane", "sun", "envelope", "anchor", "scissors",
          "radiation", "flag")  # fmt: skip
TASKS = {
    task.name: task
    for task in (
        Task("digits", tuple(DIGITS), DIGIT),
        Task("scene-digits", tuple(DIGITS), DIGIT),
        Task("signs", SIGN),
        Task("textures", TEXTURE, ("the {c} texture", "a photo of the {c} texture")),
        Task("land", LAND),
        Task("fine-shapes", FINE),
        Task("letters", GREEK, ("the greek letter {c}", "a photo of the greek letter {c}")),
        Task("symbols", SYMBOL),
    )
}


def real_digits() -> tuple[Tensor, Tensor]:
    """scikit-learn's handwritten digits in grey, in the order of common.digits."""
    splits = digits().values()
    grey = torch.from_numpy(np.stack([np.asarray(image) for images, _ in splits for image in images]))
    labels = torch.tensor([label for _, found in splits for label in found])
    return grey[:, None].expand(-1, 3, -1, -1).contiguous(), labels


@functools.cache
def everything(name: str) -> tuple[Tensor, Tensor]:
    """All images of a task and their labels, the splits one after another."""
    if name == "digits":
        return real_digits()
    from hub_scripts.world.vision.scenes import PAINTERS

    place, classes, total = list(TASKS).index(name), TASKS[name].classes, sum(COUNTS.values())
    rng, generator = np.random.default_rng(place), torch.Generator().manual_seed(place)
    labels = torch.from_numpy(rng.permutation(total) % len(classes))
    images = PAINTERS[name](classes, labels, rng, generator)
    return (255 * images).round().byte(), labels


def pixels(name: str, split: str) -> tuple[Tensor, Tensor]:
    """Images (n, 3, 32, 32) uint8 and labels (n,) of `train`, `validation` or `test`."""
    start = sum(COUNTS[s] for s in list(COUNTS)[: list(COUNTS).index(split)])
    images, labels = everything(name)
    return images[start : start + COUNTS[split]], labels[start : start + COUNTS[split]]
