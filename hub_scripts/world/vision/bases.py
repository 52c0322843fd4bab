"""The four small CLIPs of the tables: what they are, how they are read back, and their zero-shot heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor

from hub_scripts.world.places import WEIGHTS
from hub_scripts.world.vision.clips import CONTEXT, VOCABULARY, config, kept
from hub_scripts.world.vision.crawl import BANK, CONCEPTS, TEMPLATES
from hub_scripts.world.vision.tasks import TASKS

__all__ = ["BANK", "BASES", "Base", "load_base", "zero_shot_head"]


@dataclass(frozen=True)
class Base:
    """Shape (heads are 16 wide), pre-training variety and seed of one base model."""

    width: int
    layers: int
    variety: str
    seed: int


BASES = {
    "s-x": Base(64, 4, "X", 11),
    "s-y": Base(64, 4, "Y", 12),  # the shape of s-x, other data
    "m-y": Base(96, 4, "Y", 13),  # wider
    "l-x": Base(96, 6, "X", 14),  # wider and deeper
}


def model_config(name: str, vocabulary: int = VOCABULARY) -> dict:
    """The `model_cfg` of a base, as open_clip takes it."""
    found = config(BASES[name].width, vocabulary)
    found["vision_cfg"]["layers"] = BASES[name].layers
    return found


@cache
def tokenizer() -> open_clip.tokenizer.SimpleTokenizer:
    """open_clip's own, cut to CONTEXT tokens."""
    return open_clip.tokenizer.SimpleTokenizer(context_length=CONTEXT)


def task_prompts(name: str) -> list[list[str]]:
    """Every class's prompts."""
    return [[t.format(c=c) for t in TASKS[name].templates] for c in TASKS[name].classes]


def token_ids() -> Tensor:
    """The ids that any prompt of pre-training or of a task uses, ascending."""
    texts = [t.format(c=c) for templates in TEMPLATES.values() for c in CONCEPTS for t in templates]
    texts += [text for name in TASKS for prompts in task_prompts(name) for text in prompts]
    return tokenizer()(texts).unique()


def load_base(name: str, folder: Path = WEIGHTS) -> CLIP:
    """A base in float32 and eval mode; token rows of words that no prompt has are zero."""
    model = CLIP(**model_config(name))
    model.load_state_dict(kept(name, folder))
    return model.eval().requires_grad_(False)


@torch.no_grad()
def zero_shot_head(model: CLIP, prompts: str | Sequence[str]) -> Tensor:
    """Normalised head (K, embed): of a task's classes, or of a list of prompts, one row each."""
    groups = task_prompts(prompts) if isinstance(prompts, str) else [[text] for text in prompts]
    device = model.logit_scale.device
    rows = [model.encode_text(tokenizer()(group).to(device), normalize=True).mean(0) for group in groups]
    return F.normalize(torch.stack(rows), dim=-1)
