"""What goes into a model, and its rows: what every objective needs of samples and batches."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hf_bico.core.device import device_of
from hf_bico.core.errors import PortError
from hf_bico.families.feeding import Encoded
from hf_bico.families.protocol import Loaded
from hf_bico.families.sounds import Sound


def pooled(rows: Tensor, batch: Encoded) -> Tensor:
    """Return the means (n, d) of the rows (n, T, d) that are no padding."""
    mask = batch.inputs.get("attention_mask")
    if mask is None or mask.shape != rows.shape[:2]:
        return rows.mean(1)
    mask = mask.to(rows)[..., None]
    return (rows * mask).sum(1) / mask.sum(1)


def classes_in(samples: Sequence[Any]) -> Tensor | None:
    """Return the samples' classes (n,); None for samples without labels."""
    return torch.tensor([sample.label for sample in samples]) if isinstance(samples[0].label, int) else None


def images_of(side: Loaded, samples: Sequence[Any]) -> Tensor:
    if side.preprocess is None:
        raise PortError(
            "the model's repo has no image processor that can be opened (preprocessor_config.json): copy one to it"
        )
    return torch.stack([side.preprocess(sample.inputs) for sample in samples])


def sounds_of(side: Loaded, samples: Sequence[Any]) -> dict[str, Tensor]:
    """Return samples' sounds as what forward() takes, by name."""
    if side.ear is None:
        raise PortError(
            "the model's repo has no feature extractor that can be opened (preprocessor_config.json): copy one to it"
        )
    if not all(isinstance(sample.inputs, Sound) for sample in samples):
        raise PortError("a model of sound is asked about texts or images: give it sounds")
    return side.ear.hear([sample.inputs for sample in samples])


def tokenizer_of(side: Loaded) -> Any:
    if side.tokenizer is None:
        raise PortError(
            "the model's repo has no tokenizer that can be opened (tokenizer.json, tokenizer_config.json): "
            "copy one to it"
        )
    return side.tokenizer


def on_device(model: nn.Module, batch: Encoded) -> Encoded:
    return batch.to(device_of(model))


def labelled(model: nn.Module, batch: Encoded) -> tuple[Encoded, Tensor]:
    """Return a batch on the model's device, and its labels; one without labels is asked for no loss and no score."""
    batch = on_device(model, batch)
    assert batch.labels is not None
    return batch, batch.labels
