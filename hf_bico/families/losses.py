"""The losses that models are trained with, summed over the samples, and which of them a live model comes with."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_bico.core.errors import PortError
from hf_bico.families.feeding import UNASKED
from hf_bico.families.open_clip import OPEN_CLIP
from hf_bico.families.purposes import CONTRASTIVE, kind_of


def of_classes(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of (n, K) scores and n class indices."""
    return F.cross_entropy(logits, labels, reduction="sum")


def of_tokens(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of (n, T, V) scores and (n, T) tokens, -100 where nothing is asked; in float32 or wider."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(wide.flatten(0, 1), labels.flatten(), ignore_index=UNASKED, reduction="sum")


def loss_of(model: nn.Module) -> Callable[[nn.Module, Any], Tensor]:
    """`loss(model, batch)` of what a model of transformers is for; a batch as a Trainer's DataLoader gives it, by name,
    or (inputs, labels).

    Raises:
        PortError: a model that brings no loss of its own.
    """
    name, kind = type(model).__name__, kind_of(type(model).__name__)
    pairs_up = kind == "features" and getattr(model.config, "model_type", None) in CONTRASTIVE
    if OPEN_CLIP.knows(model) or pairs_up:
        raise PortError(
            f"a {name} compares images with texts, so it has no classes of its own: give "
            "loss=class_loss(head) with its text features of the classes (K, d)"
        )
    if kind not in _LOSSES or (kind == "seq2seq" and not model.config.is_encoder_decoder):
        raise PortError(
            f"a {name} comes with no loss that is known here: give loss=, a function of (model, batch) "
            "that is summed over the batch's samples"
        )
    return _LOSSES[kind]


def _parted(model: nn.Module, batch: Any, *, needs_labels: bool = True) -> tuple[dict[str, Any], Tensor | None]:
    """What forward() takes, and the labels."""
    if isinstance(batch, tuple | list) and len(batch) == 2:
        batch = {model.main_input_name: batch[0], "labels": batch[1]}
    if not isinstance(batch, Mapping):
        raise PortError(
            f"a {type(model).__name__}'s own loss takes batches by name ({model.main_input_name}, labels "
            f"…), not a {type(batch).__name__}: give such batches, or loss="
        )
    inputs = {name: part for name, part in batch.items() if name != "labels" and isinstance(part, Tensor)}
    if batch.get("labels") is None and needs_labels:
        raise PortError(
            f"a batch has no labels, which a {type(model).__name__}'s loss is taken of (it has "
            f"{', '.join(batch)}): add them, or give loss="
        )
    return inputs, batch.get("labels")


def _classifier(model: nn.Module, batch: Any) -> Tensor:
    inputs, labels = _parted(model, batch)
    logits = model(**inputs).logits
    labels = labels.flatten()
    if labels.is_floating_point() or len(labels) != len(logits):
        raise PortError(
            f"the labels are not one class a sample, which a {type(model).__name__}'s loss is taken of here: give loss="
        )
    if not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[-1]:
        raise PortError(
            f"the labels are {int(labels.min())} to {int(labels.max())}, and the {type(model).__name__} "
            f"has {logits.shape[-1]} classes: open it with num_labels="
        )
    return of_classes(logits, labels)


def _causal(model: nn.Module, batch: Any) -> Tensor:
    inputs, labels = _parted(model, batch, needs_labels=False)
    if labels is None:
        labels, mask = inputs["input_ids"], inputs.get("attention_mask")
        labels = labels if mask is None else labels.masked_fill(mask == 0, UNASKED)
    return of_tokens(model(**inputs, use_cache=False).logits[:, :-1], labels[:, 1:])


def _seq2seq(model: nn.Module, batch: Any) -> Tensor:
    inputs, labels = _parted(model, batch)
    return of_tokens(model(**inputs, labels=labels, use_cache=False).logits, labels)


def _masked(model: nn.Module, batch: Any) -> Tensor:
    inputs, labels = _parted(model, batch)
    return of_tokens(model(**inputs).logits, labels)


_LOSSES = {
    "image-classification": _classifier,
    "text-classification": _classifier,
    "causal-lm": _causal,
    "seq2seq": _seq2seq,
    "masked-lm": _masked,
}
"""By the kinds of `hf_bico.families.hf`."""
