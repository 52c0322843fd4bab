"""Text tasks whose labels lie in the text itself: crops of LENGTH tokens, train and test from different files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from hub_scripts.world.text.corpus import documents, pieces

LENGTH = 32
SIZES = {"train": 4000, "test": 600}


@dataclass(frozen=True)
class TextTask:
    name: str
    classes: tuple[str, ...]


TOPICS = ("networkx", "pandas", "scipy", "sklearn", "sympy", "torch")
KINDS = {
    "opening": ("",),
    "parameters": ("Parameters", "Other Parameters", "Attributes"),
    "returns": ("Returns", "Yields", "Raises"),
    "examples": ("Examples",),
    "notes": ("Notes",),
    "references": ("References",),
}
TEXT_TASKS = {
    task.name: task
    for task in (
        TextTask("topic", TOPICS),
        TextTask("kind", tuple(KINDS)),
        TextTask("order", ("in order", "halves swapped")),
        TextTask("shuffle", ("as written", "shuffled")),
    )
}


@cache
def samples(task: str, split: str) -> tuple[Tensor, Tensor]:
    """(token ids (n, LENGTH) long, labels (n,)) with equally many of every class, shuffled; no crop comes twice.

    A crop of the test split comes from a held-out file, and is not in the training split word for word.
    """
    classes, n = len(TEXT_TASKS[task].classes), SIZES[split]
    generator = np.random.default_rng([list(TEXT_TASKS).index(task), split == "test"])
    seen = {row.tobytes() for row in samples(task, "train")[0].numpy()} if split == "test" else set()
    draw = [_crops(task, label, split == "test", generator) for label in range(classes)]
    rows, labels = [], [k % classes for k in range(n)]
    for label in labels:
        row = next(row for row in draw[label] if row.tobytes() not in seen)
        seen.add(row.tobytes())
        rows.append(row)
    order = generator.permutation(n)
    return torch.from_numpy(np.stack(rows)[order]), torch.tensor(labels)[torch.from_numpy(order)]


def _crops(task: str, label: int, held_out: bool, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Endless (LENGTH,) int64 samples of a class."""
    texts = _texts(task, label, held_out)
    while True:
        text = texts[generator.integers(len(texts))]
        start = generator.integers(len(text) - LENGTH + 1)
        crop = text[start : start + LENGTH].astype(np.int64)
        yield SPOILED[task](crop, generator) if label and task in SPOILED else crop


@cache
def _texts(task: str, label: int, held_out: bool) -> list[np.ndarray]:
    """What a class is cropped from: documents of one package, sections of one kind, or all documents."""
    if task == "kind":
        headings = list(KINDS.values())[label]
        return [p.ids for p in pieces() if p.held_out == held_out and p.section in headings and len(p.ids) >= LENGTH]
    packages = (TOPICS[label],) if task == "topic" else TOPICS
    return [ids for package, ids in documents(held_out) if package in packages and len(ids) >= LENGTH]


def _halves_swapped(crop: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return np.roll(crop, LENGTH // 2)


def _run_shuffled(crop: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A quarter of the crop, in one run, in another order."""
    run = LENGTH // 4
    start = generator.integers(LENGTH - run + 1)
    return np.concatenate([crop[:start], generator.permutation(crop[start : start + run]), crop[start + run :]])


SPOILED = {"order": _halves_swapped, "shuffle": _run_shuffled}
"""What is done to the crops of the second class."""
