"""The losses that models are trained with, summed over the samples, and the one that a live model comes with."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_bico.core.errors import PortError
from hf_bico.families.feeding import UNASKED
from hf_bico.families.open_clip import OPEN_CLIP
from hf_bico.families.protocol import PurposeKind
from hf_bico.families.purposes import CONTRASTIVE, kind_of


def loss_of_classes(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of scores (n, K) and class indices (n,), summed over the samples."""
    return F.cross_entropy(logits, labels, reduction="sum")


def loss_of_several(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the binary cross-entropy of scores (n, K) and labels (n, K) in [0, 1], the mean over a sample's classes
    summed over the samples.
    """
    return F.binary_cross_entropy_with_logits(logits, labels.to(logits), reduction="sum") / logits.shape[-1]


def loss_of_numbers(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the squared error of scores (n, 1) and numbers (n,), summed over the samples."""
    return F.mse_loss(logits.flatten(), labels.to(logits).flatten(), reduction="sum")


def loss_of_ends(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of the scores (n, 2, T) of all tokens to be the first and the last of the answer, whose
    places are labels (n, 2): the mean of the two summed over the samples.
    """
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum") / 2


def loss_of_letters(logits: Tensor, labels: Tensor, frames: Tensor, blank: int) -> Tensor:
    """Return the CTC loss of scores (n, T, V) of letters (n, L), −log of their probability, summed over the samples, in
    float32 or wider.

    Args:
        labels: -100 where there is none.
        frames: (n,) how many of the T are heard.
        blank: the letter that stands for none.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    scores, there = F.log_softmax(wide, dim=-1).transpose(0, 1), labels != UNASKED
    with torch.backends.cudnn.flags(enabled=False):  # as transformers: cudnn takes other lengths and dtypes
        return F.ctc_loss(scores, labels[there], frames, there.sum(-1), blank, reduction="sum")


def loss_of_tokens(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of scores (n, T, V) and tokens (n, T), summed, in float32 or wider.

    Args:
        labels: -100 where nothing is asked.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(wide.flatten(0, 1), labels.flatten(), ignore_index=UNASKED, reduction="sum")


def logits_of_classes(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return a classifier's scores (n, K)."""
    logits: Tensor = model(**inputs).logits
    return logits


def frames_of(model: Any, inputs: Mapping[str, Tensor], logits: Tensor) -> Tensor:
    """Return how many of a CTC model's T rows of scores (n, T, V) are of sound, not of padding, (n,)."""
    mask = inputs.get("attention_mask")
    if mask is None or not hasattr(model, "_get_feat_extract_output_lengths"):
        return torch.full((len(logits),), logits.shape[1], device=logits.device)
    lengths: Tensor = model._get_feat_extract_output_lengths(mask.sum(-1)).to(torch.long)
    return lengths


def logits_of_hidden(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return a masked model's scores of every token, (n, T, V)."""
    out = model(**inputs)
    logits: Tensor = out.prediction_logits if hasattr(out, "prediction_logits") else out.logits
    return logits


def logits_of_ends(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return the scores (n, 2, T) of all tokens to be the first and the last of the answer; those of padding count for
    nothing.
    """
    out = model(**inputs)
    logits = torch.stack([out.start_logits, out.end_logits], dim=1)
    mask = inputs.get("attention_mask")
    return logits if mask is None else logits.masked_fill((mask == 0)[:, None], OUTSIDE)


OUTSIDE = -1e4
"""Score of what cannot be an answer: its share is zero, and its logarithm finite."""


def logits_of_next(model: nn.Module, inputs: Mapping[str, Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return a causal model's scores of token t + 1, (n, T − 1, V), and its labels (n, T − 1)."""
    return model(**inputs, use_cache=False).logits[:, :-1], labels[:, 1:]


def logits_of_answer(model: nn.Module, inputs: Mapping[str, Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return a decoder's scores of its labels, (n, T, V), and the labels (n, T)."""
    return model(**inputs, labels=labels, use_cache=False).logits, labels


def loss_of(model: nn.Module) -> Callable[[nn.Module, Any], Tensor]:
    """Return the `loss(model, batch)` that a transformers model is trained with.

    A batch is as a Trainer's DataLoader gives it, by name, or (inputs, labels).

    Raises:
        PortError: no loss is known for the model's class.
    """
    name, kind = type(model).__name__, kind_of(type(model).__name__)
    config: Any = getattr(model, "config", None)
    pairs_up = kind is PurposeKind.FEATURES and getattr(config, "model_type", None) in CONTRASTIVE
    if OPEN_CLIP.knows(model) or pairs_up:
        raise PortError(
            f"a {name} compares images with texts, so it has no classes of its own: give "
            "loss=class_loss(head) with its text features of the classes (K, d)"
        )
    if kind not in _LOSSES or (kind is PurposeKind.SEQ2SEQ and not config.is_encoder_decoder):
        raise PortError(
            f"a {name} comes with no loss that is known here: give loss=, a function of (model, batch), "
            "summed over the batch's samples"
        )
    return _LOSSES[kind]


def _named(model: Any, batch: Any) -> Mapping[str, Any]:
    """Return a batch's parts by name; refuse a batch that has no names and is not (inputs, labels)."""
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return {model.main_input_name: batch[0], "labels": batch[1]}
    if not isinstance(batch, Mapping):
        raise PortError(
            f"a {type(model).__name__}'s own loss takes batches by name ({model.main_input_name}, labels "
            f"…), not a {type(batch).__name__}: give such batches, or loss="
        )
    return batch


def _inputs(named: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return what forward() takes: the tensors of a batch, without its labels."""
    return {name: part for name, part in named.items() if name != "labels" and isinstance(part, Tensor)}


def _parted(model: nn.Module, batch: Any) -> tuple[dict[str, Tensor], Tensor]:
    """Return what forward() takes, and the labels; refuse a batch without labels."""
    named = _named(model, batch)
    if named.get("labels") is None:
        raise PortError(
            f"a batch has no labels, which a {type(model).__name__}'s loss needs (it has "
            f"{', '.join(named)}): add them, or give loss="
        )
    return _inputs(named), named["labels"]


def _classifier(model: nn.Module, batch: Any) -> Tensor:
    inputs, labels = _parted(model, batch)
    logits = logits_of_classes(model, inputs)
    config: Any = model.config
    problem = config.problem_type or ("regression" if logits.shape[-1] == 1 else None)
    if problem == "multi_label_classification" or (problem is None and labels.shape == logits.shape):
        return loss_of_several(logits, labels)
    labels = labels.flatten()
    if problem == "regression" and len(labels) == logits.numel():
        return loss_of_numbers(logits, labels)
    if labels.is_floating_point() or len(labels) != len(logits):
        raise PortError(
            f"the labels are not one class a sample, which a {type(model).__name__}'s loss needs here: give loss="
        )
    if not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[-1]:
        raise PortError(
            f"the labels are {int(labels.min())} to {int(labels.max())}, and the {type(model).__name__} "
            f"has {logits.shape[-1]} classes: open it with num_labels="
        )
    return loss_of_classes(logits, labels)


def _spans(model: nn.Module, batch: Any) -> Tensor:
    named = _named(model, batch)
    ends = [named.get(f"{end}_positions") for end in ("start", "end")]
    if not all(isinstance(each, Tensor) for each in ends):
        raise PortError(
            f"a batch has no start_positions and end_positions, which a {type(model).__name__}'s loss needs (it has "
            f"{', '.join(named)}): add them, or give loss="
        )
    inputs = {name: part for name, part in _inputs(named).items() if not name.endswith("_positions")}
    return loss_of_ends(
        logits_of_ends(model, inputs), torch.stack([each.flatten() for each in ends if each is not None], dim=1)
    )


def _causal(model: nn.Module, batch: Any) -> Tensor:
    named = _named(model, batch)
    inputs, labels = _inputs(named), named.get("labels")
    if labels is None:
        labels, mask = inputs["input_ids"], inputs.get("attention_mask")
        labels = labels if mask is None else labels.masked_fill(mask == 0, UNASKED)
    return loss_of_tokens(*logits_of_next(model, inputs, labels))


def _seq2seq(model: nn.Module, batch: Any) -> Tensor:
    inputs, labels = _parted(model, batch)
    return loss_of_tokens(*logits_of_answer(model, inputs, labels))


def _seeing(model: nn.Module, batch: Any) -> Tensor:
    inputs, labels = _parted(model, batch)
    return loss_of_tokens(*logits_of_next(model, inputs, labels))


def _hidden(model: nn.Module, batch: Any) -> Tensor:
    inputs, labels = _parted(model, batch)
    return loss_of_tokens(logits_of_hidden(model, inputs), labels)


def _tokens(model: nn.Module, batch: Any) -> Tensor:
    inputs, labels = _parted(model, batch)
    return loss_of_tokens(model(**inputs).logits, labels)


def _letters(model: Any, batch: Any) -> Tensor:
    inputs, labels = _parted(model, batch)
    logits = logits_of_classes(model, inputs)
    labels = labels.masked_fill(labels < 0, UNASKED)
    return loss_of_letters(logits, labels, frames_of(model, inputs, logits), model.config.pad_token_id)


_LOSSES = {
    PurposeKind.IMAGE_CLASSES: _classifier,
    PurposeKind.TEXT_CLASSES: _classifier,
    PurposeKind.CAUSAL_LM: _causal,
    PurposeKind.SEQ2SEQ: _seq2seq,
    PurposeKind.IMAGE_TEXT: _seeing,
    PurposeKind.MASKED_LM: _hidden,
    PurposeKind.TOKEN_CLASSES: _tokens,
    PurposeKind.SPANS: _spans,
    PurposeKind.SOUND_CLASSES: _classifier,
    PurposeKind.CTC: _letters,
    PurposeKind.SPEECH: _seq2seq,
}
"""What a model is for → its loss, (model, batch) → a sum over the samples."""
