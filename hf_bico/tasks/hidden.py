"""What a masked language model is asked: the words that are hidden in a text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_bico.families.feeding import UNASKED, Encoded
from hf_bico.families.losses import logits_of_hidden, loss_of_tokens
from hf_bico.families.marked import encode_hidden
from hf_bico.tasks.classifiers import Classifier
from hf_bico.tasks.inputs import labelled, tokenizer_of
from hf_bico.tasks.scores import Score


@dataclass(frozen=True)
class HiddenWords(Classifier):
    """Cross-entropy of the tokens of hidden words under the model's own language-model head."""

    def encode(self, samples: Sequence[Any]) -> Encoded:
        return encode_hidden(tokenizer_of(self.side), samples, self.max_length)

    def loss(self, model: nn.Module, batch: Encoded) -> Tensor:
        batch, labels = labelled(model, batch)
        return loss_of_tokens(logits_of_hidden(model, batch.inputs), labels)

    def answers(self, model: nn.Module, batch: Encoded) -> Tensor:
        batch, labels = labelled(model, batch)
        return logits_of_hidden(model, batch.inputs)[labels != UNASKED]

    def wanted(self, batch: Encoded) -> Tensor | None:
        return None if batch.labels is None else batch.labels[batch.labels != UNASKED]

    def per_sample(self, model: nn.Module, batch: Encoded) -> Tensor:
        """Return (n, 4): the summed loss, tokens, words all of whose tokens come first, and words."""
        batch, labels = labelled(model, batch)
        logits = logits_of_hidden(model, batch.inputs)
        losses = F.cross_entropy(logits.transpose(1, 2).float(), labels, ignore_index=UNASKED, reduction="none").sum(-1)
        right = (logits.argmax(-1) == labels).cpu()
        words = []
        for row, owners in zip(right.tolist(), batch.notes, strict=True):
            there = {owner for owner in owners if owner is not None}
            wrong = {owner for owner, own in zip(owners, row, strict=False) if owner is not None and not own}
            words.append((len(there - wrong), len(there)))
        counts = torch.tensor(words).to(losses)
        return torch.cat([losses[:, None], (labels != UNASKED).sum(-1, keepdim=True).to(losses), counts], dim=-1)

    def score(self, per_sample: Tensor, reference: Tensor | None = None) -> Score:
        losses, tokens, right, words = per_sample.unbind(-1)
        fluent = Score.perplexity(losses, tokens.clamp_min(1e-9))
        return Score.ratio(right, words, "masked accuracy", {"perplexity": fluent.value})
