"""What training and publishing share: model shapes, class names, the digits, and how weights are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from hub_scripts.world.places import WEIGHTS

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TEMPLATES = ("the digit {c}", "the number {c}", "a photo of the digit {c}", "a handwritten {c}")
WIDTHS = {"vit64": 64, "vit96": 96, "vit64-digits": 64}
VOCABULARY, CONTEXT, SIDE, TRAIN = 49408, 16, 32, 1200


def config(width: int, vocabulary: int = VOCABULARY) -> dict:
    """The `model_cfg` of an open_clip ViT of this width."""
    vision = {"image_size": SIDE, "layers": 4, "width": width, "patch_size": 8, "head_width": 16}
    text = {"context_length": CONTEXT, "vocab_size": vocabulary, "width": 64, "heads": 4, "layers": 2}
    return {"embed_dim": width, "vision_cfg": vision, "text_cfg": text}


def digits() -> dict[str, tuple[list[Image.Image], list[int]]]:
    """scikit-learn's handwritten digits, enlarged to 32x32: images and labels, 1,200 for training."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    pixels = np.round(data.images * (255 / 16)).astype(np.uint8)
    images = [Image.fromarray(pixels[i]).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for i in order]
    labels = [int(data.target[i]) for i in order]
    return {"train": (images[:TRAIN], labels[:TRAIN]), "test": (images[TRAIN:], labels[TRAIN:])}


def keep(path: Path, state: dict[str, Tensor], ids: Tensor | None = None) -> None:
    """Store a state dict; a base's token table has only the rows of `ids`, which are stored beside it."""
    extra = {} if ids is None else {"token_ids": ids.to(torch.int32)}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().clone().contiguous() for k, v in (state | extra).items()}, path)
    path.chmod(0o644)


def kept(name: str, folder: Path = WEIGHTS) -> dict[str, Tensor]:
    """A model's float32 state dict; untrained token rows are zero, the fine-tune has A's text tower."""
    if name == "vit64-digits":
        return kept("vit64", folder) | load_file(folder / f"{name}.safetensors")
    stored = load_file(folder / f"{name}.safetensors")
    ids = stored.pop("token_ids").long()
    state = {k: v.float() for k, v in stored.items()}
    rows = state["token_embedding.weight"]
    state["token_embedding.weight"] = torch.zeros(VOCABULARY, rows.shape[1]).index_copy(0, ids, rows)
    return state
