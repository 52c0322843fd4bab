"""Sounds as models take them: one channel, at the rate of the model's feature extractor."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_bico.core.notes import note


@dataclass(frozen=True, eq=False)
class Sound:
    """A recording of one channel."""

    samples: "np.ndarray[Any, np.dtype[np.float32]]"
    """(T,), in [-1, 1]"""
    rate: int
    """Samples a second."""

    def at(self, rate: int) -> "np.ndarray[Any, np.dtype[np.float32]]":
        """Return the recording at another rate, (T · rate / own,)."""
        from scipy.signal import resample_poly

        if rate == self.rate:
            return self.samples
        note(f"sounds of {self.rate} Hz are resampled to the {rate} Hz that the models take")
        common = gcd(rate, self.rate)
        made: np.ndarray[Any, Any] = resample_poly(self.samples, rate // common, self.rate // common)
        return made.astype(np.float32)


@dataclass(frozen=True)
class Ear:
    """What prepares a model's sounds: transformers' feature extractor."""

    extractor: Any

    @cached_property
    def fixed(self) -> bool:
        """Whether sounds of any length become inputs of one length, as Whisper's of 30 s."""
        rate = self.extractor.sampling_rate
        lengths = {len(self._one(np.zeros(n * rate // 10, np.float32)).flatten()) for n in (2, 3)}
        return len(lengths) == 1

    def hear(self, sounds: Sequence[Sound]) -> dict[str, Tensor]:
        """Return sounds as what forward() takes, by name, (n, …). They are of one length, or `fixed`: nothing is padded
        beside another, so that a sound is heard in a batch as it is alone.
        """
        rate = self.extractor.sampling_rate
        waves = [sound.at(rate) for sound in sounds]
        most = self._most()
        if most and max(map(len, waves)) > most:
            note(f"sounds are cut at {most / rate:.4g} s: a model hears no more")
        return {self.extractor.model_input_names[0]: torch.stack([self._one(wave) for wave in waves])}

    def _most(self) -> int | None:
        """Return the most samples that a model hears; None where there is no such limit."""
        frames = getattr(self.extractor, "max_length", None)  # of 10 ms, in spectrograms of one size
        return getattr(self.extractor, "n_samples", None) or (frames and frames * self.extractor.sampling_rate // 100)

    def _one(self, wave: "np.ndarray[Any, Any]") -> Tensor:
        made = self.extractor(wave, sampling_rate=self.extractor.sampling_rate, return_tensors="pt")
        found: Tensor = made[self.extractor.model_input_names[0]][0]
        return found


def ear_in(folder: Path) -> Ear | None:
    """Return what prepares the sounds of a repo's model; None if it has no feature extractor that can be opened."""
    from transformers import AutoFeatureExtractor

    auto: Any = AutoFeatureExtractor  # its from_pretrained has no annotations
    try:
        return Ear(auto.from_pretrained(folder, trust_remote_code=False))
    except (OSError, ValueError, KeyError):
        return None


SPOKEN = ("language", "task", "predict_timestamps")
"""What a tokenizer of Whisper's kind writes before a text says."""


def speak_like(tokenizer: Any, other: Any) -> Any:
    """Return a tokenizer that begins a text as another does: Whisper's says the language and what is asked.

    Args:
        other: None (an adapter's repo may have none) leaves it as it is.
    """
    if other is None:
        return tokenizer
    said = {name: getattr(other, name, None) for name in SPOKEN}
    if not hasattr(tokenizer, "set_prefix_tokens") or said == {name: getattr(tokenizer, name, None) for name in SPOKEN}:
        return tokenizer
    for name, value in said.items():  # set_prefix_tokens() alone takes nothing back
        setattr(tokenizer, name, value)
    tokenizer.set_prefix_tokens()
    note(
        f"the models are asked as the fine-tune's tokenizer says (language {said['language']}, task {said['task']}): "
        "give the same to generate()"
    )
    return tokenizer
