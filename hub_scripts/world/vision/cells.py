"""What the tables are made of: one comparison of methods on one task, one pair of bases, one draw of samples."""

from __future__ import annotations

import copy
import functools
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from hf_bico.core.collect import Batch
from hf_bico.core.compare import compare
from hf_bico.core.methods import Job, Method, method_of
from hf_bico.core.methods.polished import Polish, Polished
from hf_bico.core.transport import holding
from hf_bico.families import logits
from hf_bico.tasks.strategies import Calibration, chosen
from hf_bico.workflows.live import class_loss, class_scores, job_of
from hub_scripts.world.vision import tune
from hub_scripts.world.vision.bases import BANK, load_base, zero_shot_head

BATCH = 100
RATE = 3e-4
"""The best of 3e-5, 1e-4, 3e-4 and 1e-3 for one step of few-shot and for 40, by the validation splits (s-x → m-y,
N = 100), and for a polish on the half of the world that is for choosing."""
STEPS = 100
"""Steps of what is trained in earnest."""
POLISHED = " + polish"

FIELD = ("naive", "theseus", "gradfix", "gradfix sign=vote", "transfusion", "few-shot", "bico", "weighted")
ABLATION = ("input-only", "output-only", "gradient-only")
POLICIES = ("bico completion=free", "bico completion=filled")
IDEAS = (
    "bico centred=true",
    "bico label_free=8",
    "bico label_free=8 centred=true",
    "bico steps=4",
    "bico label_free=8 centred=true steps=4",
    "few-shot steps=40",
)


@dataclass(frozen=True)
class Cell:
    """One draw for one task and one pair of bases, and the methods that are compared on it."""

    source: str
    target: str
    task: str
    seed: int
    n: int | None = None
    per_class: int | None = None
    strategy: str | None = None
    methods: tuple[str, ...] = FIELD
    """Each a method's name, then its options as name=value."""


def method(words: str) -> Method:
    """A method by name and options, or its port polished; what is trained steps at the world's own rate.

    few-shot takes one step unless told, and sees the samples themselves unless it takes a hundred.
    """
    plain = words.removesuffix(POLISHED)
    if plain != words:
        return Polished(method(plain), Polish(STEPS, rate=RATE))
    name, *options = words.split()
    if name == "few-shot":
        steps = [] if any(each.startswith("steps=") for each in options) else ["steps=1"]
        options += [*steps, *([] if f"steps={STEPS}" in options else ["views=false"])]
    return method_of(name, [*options, *([f"rate={RATE}"] if name in ("few-shot", "distil") else [])])


@functools.cache
def images(task: str, split: str) -> tuple[Tensor, Tensor]:
    return tune.images(task, split)


@functools.cache
def base(name: str) -> nn.Module:
    return load_base(name)


@functools.cache
def heads(name: str, task: str) -> tuple[Tensor, Tensor]:
    """The task's zero-shot head, and that of the bank of general prompts."""
    return zero_shot_head(base(name), task), zero_shot_head(base(name), BANK)


def tuned(name: str, task: str) -> dict[str, Tensor]:
    return base(name).state_dict() | tune.fine_tune(name, task)


@torch.no_grad()
def accuracy(model: nn.Module, name: str, task: str, split: str = "test") -> float:
    """Top-1 accuracy in %, under the zero-shot head of the base of this name."""
    pictures, labels = images(task, split)
    scores = logits(model, pictures, heads(name, task)[0])
    return 100 * float((scores.argmax(1) == labels).float().mean())


@functools.cache
def anchors(source: str, target: str, task: str) -> dict[str, float]:
    """Accuracies that no draw changes: the source's fine-tune, the target zero-shot and its own fine-tune."""
    found = {"zero_shot": accuracy(base(target), target, task)}
    for role, name in (("source", source), ("reference", target)):
        with holding(base(name), tune.fine_tune(name, task).items()):
            found[role] = accuracy(base(name), name, task)
    return found


def features(name: str, task: str):
    """Features of training images in the base's image encoder, for the centroid strategies."""

    @torch.no_grad()
    def of(indices) -> np.ndarray:
        return base(name).encode_image(images(task, "train")[0][list(indices)]).numpy()

    return of


def job(cell: Cell) -> tuple[Job, int]:
    """The port of a cell, and how many samples it has."""
    pictures, labels = images(cell.task, "train")
    want = Calibration(cell.n, cell.per_class, cell.strategy, cell.seed)
    n = want.size(len(labels.unique()))
    picked = list(chosen(labels.numpy(), want.kind, n, cell.seed, features(cell.target, cell.task)))
    samples = [(pictures[some], labels[some]) for some in (picked[k : k + BATCH] for k in range(0, n, BATCH))]
    own = [heads(name, cell.task) for name in (cell.source, cell.target)]
    made = job_of(
        tuned=tuned(cell.source, cell.task),
        base=base(cell.source),
        target=copy.deepcopy(base(cell.target)),
        calibration=[Batch(batch, batch) for batch in samples],
        loss=tuple(class_loss(task) for task, _ in own),
        scores=tuple(class_scores(bank) for _, bank in own),
        only=["linear"],  # as all tables so far
    )
    sides = [
        side._replace(answers=class_scores(task)) for side, (task, _) in zip((made.base, made.target), own, strict=True)
    ]
    return replace(made, base=sides[0], target=sides[1]), n


def run(cell: Cell) -> dict:
    """The cell's rows as data: what it was, its anchors, and score or refusal of every method."""
    work, n = job(cell)
    rows = compare(
        work, {words: method(words) for words in cell.methods}, n, lambda model: accuracy(model, cell.target, cell.task)
    )
    kept = ("method", "score", "refusal", "seconds", "shared_seconds")
    return {
        "cell": asdict(cell),
        "n": n,
        **anchors(cell.source, cell.target, cell.task),
        "rows": [{key: value for key, value in asdict(row).items() if key in kept} for row in rows],
    }
