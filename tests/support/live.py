"""Models, batches and changes for ports of live objects."""

import torch
from support.family_twins import CASES, END
from torch import nn

from hf_bico import BiCo
from hf_bico.families import family_of

EXACT = BiCo(rtol=1e-11)
ASKED = (
    "vit",
    "bert",
    "roberta",
    "distilbert",
    "modernbert",
    "gpt2",
    "llama",
    "llama-classifier",
    "qwen2",
    "t5",
    "t5-classifier",
    "timm",
)
"""Shapes of every kind of loss that comes with a model."""


def named_batch(name: str, n: int = 16, *, seed: int = 0) -> dict[str, torch.Tensor]:
    """A dict as a Trainer's DataLoader gives it, of samples of several lengths, padded on the right."""
    case = CASES[name]
    inputs, labels = case.samples(n, seed=seed)
    if case.kind == "image":
        return {"pixel_values": inputs, "labels": labels}
    mask = torch.ones_like(inputs)
    for row in range(1, n, 2):
        short = 3 + row % 3
        inputs[row, short - 1 :], mask[row, short:] = 0, 0
        inputs[row, short - 1] = END
    if case.kind == "causal":
        labels = inputs.masked_fill(mask == 0, -100)
    if case.kind == "seq2seq":
        labels = labels.clone()
        labels[::3, 2:] = -100
    return {"input_ids": inputs, "attention_mask": mask, "labels": labels}


def model_of(name: str, **options) -> nn.Module:
    model = CASES[name].build(**options)
    model.config.pad_token_id = 0
    return model


def own_loss(name: str, model: nn.Module, whole: dict[str, torch.Tensor]) -> torch.Tensor:
    """transformers' own loss, as a sum."""
    labels = whole["labels"]
    count = (labels != -100).sum() if labels.ndim == 2 else len(labels)
    if CASES[name].kind == "causal":
        count = (labels[:, 1:] != -100).sum()
    return model(**whole).loss.double() * count


def random_sites(model: nn.Module, scale: float = 0.02) -> dict[str, torch.Tensor]:
    keys = {s.key for site in family_of(model).sites(model) for s in site.slices}
    generator = torch.Generator().manual_seed(3)
    return {
        key: tensor + scale * torch.randn(tensor.shape, generator=generator).to(tensor)
        if key in keys
        else tensor.clone()
        for key, tensor in model.state_dict().items()
    }
