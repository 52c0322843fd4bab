"""What models of speech are asked: the letters of what is said, by CTC, or its text, that a decoder writes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_bico.core.device import device_of
from hf_bico.core.errors import PortError
from hf_bico.families.feeding import UNASKED, Encoded
from hf_bico.families.losses import frames_of, logits_of_classes, loss_of_letters
from hf_bico.families.protocol import Loaded
from hf_bico.families.spoken import encode_spoken, letters_of, room_of
from hf_bico.tasks.inputs import labelled, on_device, pooled, sounds_of, tokenizer_of
from hf_bico.tasks.objectives import Seq2Seq
from hf_bico.tasks.scores import Score, error_counts


@dataclass(frozen=True)
class Spelled:
    """CTC loss of the letters of what is said; the likeliest letter of every frame is scored by its words."""

    side: Loaded
    max_length: int | None

    def encode(self, samples: Sequence[Any]) -> Encoded:
        inputs = sounds_of(self.side, samples)
        letters, spelled = letters_of(self.side, tokenizer_of(self.side), [sample.label for sample in samples])
        self._require_room(samples, letters)
        return Encoded(inputs, letters, notes=spelled)

    def _require_room(self, samples: Sequence[Any], letters: Tensor) -> None:
        """Refuse a sound with fewer frames than it takes to spell what is said: letters, and a pause between equals."""
        frames: Any = getattr(self.side.model, "_get_feat_extract_output_lengths", None)
        ear = self.side.ear
        if frames is None or ear is None or ear.fixed or ear.extractor.model_input_names[0] != "input_values":
            return
        for number, (sample, row) in enumerate(zip(samples, letters, strict=True)):
            there = row[row != UNASKED]
            needed = len(there) + int((there[1:] == there[:-1]).sum())
            heard = int(frames(torch.tensor(len(sample.inputs.at(ear.extractor.sampling_rate)))))
            if heard < needed:
                raise PortError(
                    f"sample {number} has a sound of {max(heard, 0)} frames, too short for the {needed} that its "
                    f"transcription {sample.label[:40]!r} takes: leave such rows out of the dataset"
                )

    def loss(self, model: nn.Module, batch: Encoded) -> Tensor:
        batch, labels = labelled(model, batch)
        logits = logits_of_classes(model, batch.inputs)
        config: Any = model.config
        return loss_of_letters(logits, labels, frames_of(model, batch.inputs, logits), config.pad_token_id)

    def answers(self, model: nn.Module, batch: Encoded) -> Tensor:
        return logits_of_classes(model, on_device(model, batch).inputs).flatten(0, 1)

    def wanted(self, batch: Encoded) -> Tensor | None:
        return None  # no letter of a frame is the right one

    def per_sample(self, model: nn.Module, batch: Encoded) -> Tensor:
        """Return (n, 4): wrong words, words, wrong characters, characters."""
        given = tokenizer_of(self.side).batch_decode(self.likeliest(model, batch))
        return torch.tensor([error_counts(a, b) for a, b in zip(given, batch.notes, strict=True)])

    def likeliest(self, model: nn.Module, batch: Encoded) -> Tensor:
        """Return the likeliest letter of every frame, (n, T)."""
        return logits_of_classes(model, on_device(model, batch).inputs).argmax(-1).cpu()

    def score(self, per_sample: Tensor, reference: Tensor | None = None) -> Score:
        return Score.errors(per_sample)

    def features(self, model: nn.Module, batch: Encoded) -> Tensor:
        out = model(**on_device(model, batch).inputs, output_hidden_states=True)
        return F.normalize(pooled(out.hidden_states[-1], batch), dim=-1)


@dataclass(frozen=True)
class Written(Seq2Seq):
    """Loss of the text under the decoder; the text that it writes by itself, greedily, is scored by its words."""

    def encode(self, samples: Sequence[Any]) -> Encoded:
        inputs, tokenizer = sounds_of(self.side, samples), tokenizer_of(self.side)
        encoded = encode_spoken(self.side, tokenizer, [sample.label for sample in samples], self.max_length, inputs)
        return Encoded(inputs, encoded.labels, encoded.spans, list(zip(samples, encoded.notes, strict=True)))

    def per_sample(self, model: nn.Module, batch: Encoded) -> Tensor:
        """Return (n, 4): wrong words, words, wrong characters, characters."""
        given = tokenizer_of(self.side).batch_decode(self.generated(model, batch), skip_special_tokens=True)
        said = [sample.label for sample, _ in batch.notes]
        return torch.tensor([error_counts(a.strip(), b.strip()) for a, b in zip(given, said, strict=True)])

    def generated(self, model: Any, batch: Encoded) -> Tensor:
        """Return what the decoder writes, (n, T), after the tokens with which the samples' own texts begin.

        The repo's own settings of how to generate are left out: they may forbid or force tokens, and differ between
        the models of a port.
        """
        from transformers import GenerationConfig, GenerationMixin

        config = model.config
        first = [config.decoder_start_token_id, *batch.notes[0][1]]
        room = room_of(config)
        chosen = GenerationConfig(
            max_new_tokens=max(min(room, self.max_length or room) - len(first), 1),
            do_sample=False,
            eos_token_id=config.eos_token_id,
            pad_token_id=config.pad_token_id,
            decoder_start_token_id=config.decoder_start_token_id,
        )
        begun = torch.tensor([first] * len(batch), device=device_of(model))
        inputs = on_device(model, batch).inputs
        found: Tensor = GenerationMixin.generate(model, **inputs, decoder_input_ids=begun, generation_config=chosen)
        return found[:, len(first) :].cpu()

    def score(self, per_sample: Tensor, reference: Tensor | None = None) -> Score:
        return Score.errors(per_sample)

    def features(self, model: Any, batch: Encoded) -> Tensor:
        rows = model.get_encoder()(**on_device(model, batch).inputs).last_hidden_state
        return F.normalize(rows.mean(1), dim=-1)
