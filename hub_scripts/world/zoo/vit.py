"""Two ViT classifiers of different width and depth: shapes, supervised pre-training and fine-tunes with a new head.

Pre-trained on fresh distortions of the 135 concepts of crawl.py; vit-wide sees both of its varieties. No image of
tasks.py is among them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hub_scripts.world.vision.clips import SIDE
from hub_scripts.world.vision.training import normalise
from hub_scripts.world.zoo.training import fill, fit

RATE, DECAY = 1e-3, 0.1
TUNE_STEPS, TUNE_BATCH, TUNE_RATE = 300, 64, 1e-3


@dataclass(frozen=True)
class Shape:
    width: int
    layers: int
    units: int
    """of the MLP"""
    varieties: str
    """of crawl.py, taken in turn"""
    seed: int
    steps: int
    batch: int
    muon: bool


SHAPES = {
    "vit-narrow": Shape(64, 4, 256, "X", 31, 2400, 128, False),
    "vit-wide": Shape(96, 5, 256, "XY", 32, 1400, 128, True),
}
VIT_TASKS = ("digits", "letters", "signs")


def build(name: str, classes: tuple[str, ...]) -> nn.Module:
    """A fresh classifier; heads are 16 wide, images 32 px, patches 8."""
    from transformers import ViTConfig, ViTForImageClassification

    shape = SHAPES[name]
    return ViTForImageClassification(
        ViTConfig(
            hidden_size=shape.width,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.width // 16,
            intermediate_size=shape.units,
            image_size=SIDE,
            patch_size=8,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            id2label=dict(enumerate(classes)),
            label2id={c: i for i, c in enumerate(classes)},
        )
    )


def pretrain(name: str, steps: int | None = None) -> tuple[nn.Module, list[float]]:
    """A base from nothing: cross-entropy of the concept, label smoothing 0.05."""
    from hub_scripts.world.vision.crawl import CONCEPTS

    shape = SHAPES[name]
    torch.manual_seed(shape.seed)
    generator = torch.Generator().manual_seed(shape.seed)
    model = build(name, CONCEPTS).train()
    loss_of = objective(model, shape.varieties, shape.batch, generator)
    return model, fit(name, model, loss_of, steps or shape.steps, RATE, DECAY, muon=shape.muon)


def objective(model: nn.Module, varieties: str, size: int, generator: torch.Generator) -> Callable[[int], Tensor]:
    """The pre-training loss of a step: fresh distortions of one of the varieties, taken in turn."""
    from hub_scripts.world.vision.crawl import batch, pool

    def loss_of(step: int) -> Tensor:
        variety = varieties[step % len(varieties)]
        images, labels = batch(pool(variety), variety, size, generator)
        return F.cross_entropy(model(normalise(images)).logits, labels, label_smoothing=0.05)

    return loss_of


@torch.no_grad()
def score(name: str, count: int = 1000) -> float:
    """Percent of fresh distortions whose concept a base names."""
    from hub_scripts.world.vision.crawl import batch, pool

    model, shape, generator = load(name), SHAPES[name], torch.Generator().manual_seed(999)
    images, labels = batch(pool(shape.varieties[0]), shape.varieties[0], count, generator)
    return 100 * (model(normalise(images)).logits.argmax(1) == labels).float().mean().item()


def load(name: str) -> nn.Module:
    from hub_scripts.world.vision.crawl import CONCEPTS

    return fill(name, build(name, CONCEPTS))


def tune(name: str, task: str, body: dict[str, Tensor]) -> nn.Module:
    """A base of the shape `name` with the weights `body`, and a fresh classifier, fine-tuned on the task as a whole."""
    from hub_scripts.world.vision.tasks import TASKS, pixels

    torch.manual_seed(SHAPES[name].seed)
    generator = torch.Generator().manual_seed(SHAPES[name].seed)
    model = build(name, TASKS[task].classes)
    model.load_state_dict({key: each for key, each in body.items() if not key.startswith("classifier.")}, strict=False)
    images, labels = pixels(task, "train")
    images = normalise(images.float() / 255)
    model.train()

    def loss_of(step: int) -> Tensor:
        pick = torch.randint(len(images), (TUNE_BATCH,), generator=generator)
        return F.cross_entropy(model(images[pick]).logits, labels[pick])

    fit(f"{name}-{task}", model, loss_of, TUNE_STEPS, TUNE_RATE, DECAY)
    return model.eval()


def write_processor(folder: Path) -> None:
    from transformers import ViTImageProcessor

    ViTImageProcessor(
        size={"height": SIDE, "width": SIDE}, image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=3
    ).save_pretrained(folder)
