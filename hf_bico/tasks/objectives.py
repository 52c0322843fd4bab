"""What a model is asked of every sample: how it goes in, the loss that gradients are taken of, how answers are scored.

An objective is bound to one model (its tokenizer, its head); the models of a port have one each, of the same kind.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_bico.core.pieces import by_sample
from hf_bico.families.feeding import UNASKED, Encoded, encode_causal, encode_seq2seq
from hf_bico.families.losses import (
    logits_of_answer,
    logits_of_next,
    loss_of_classes,
    loss_of_tokens,
)
from hf_bico.families.protocol import Contrastive, Loaded, similarity
from hf_bico.tasks.inputs import classes_in, images_of, labelled, on_device, pooled, tokenizer_of
from hf_bico.tasks.scores import Score


class Objective(Protocol):
    """What one model is asked, and how its answers are scored."""

    @property
    def side(self) -> Loaded:
        """The model, and what prepares its inputs."""
        ...

    def encode(self, samples: Sequence[Any]) -> Encoded:
        """Return samples as the model's inputs and labels."""
        ...

    def loss(self, model: nn.Module, batch: Encoded) -> Tensor:
        """Return the loss, summed over the batch's samples."""
        ...

    def answers(self, model: nn.Module, batch: Encoded) -> Tensor:
        """Return logits (m, K) of all that is asked: a row a sample, or a row a token of an answer."""
        ...

    def wanted(self, batch: Encoded) -> Tensor | None:
        """Return the index of the right one of every row of the answers, (m,); None where answers are no logits, which
        cannot be learnt from, nor be more or less sure."""
        ...

    def per_sample(self, model: nn.Module, batch: Encoded) -> Tensor:
        """Return the values of every sample that the score is made of, (n, m)."""
        ...

    def score(self, per_sample: Tensor, reference: Tensor | None = None) -> Score:
        """Return the score of all samples.

        Args:
            per_sample: (n, m), the values of all samples.
            reference: the source's values of them, for a score that is taken against the source.
        """
        ...

    def features(self, model: nn.Module, batch: Encoded) -> Tensor:
        """Return one feature of unit length for every sample, (n, d)."""
        ...


@dataclass(frozen=True)
class ZeroShot:
    """Zero-shot classes of a CLIP-like model: the cosine to the classes' texts. Where the text tower moves too, every
    sample brings the prompt of its own class, and that class is scored by it, so that the tower has gradients."""

    library: Contrastive
    side: Loaded
    head: Tensor
    """(K, d) unit text features, averaged over the templates."""
    prompts: tuple[str, ...] = ()
    """One text of every class, for the text tower; empty where it stays."""

    def encode(self, samples: Sequence[Any]) -> Encoded:
        labels = classes_in(samples)
        inputs = {"images": images_of(self.side, samples)}
        if self.prompts and labels is not None:
            inputs["text"], inputs["text_mask"] = self.library.tokens(self.side, [self.prompts[i] for i in labels])
        return Encoded(inputs, labels)

    @by_sample
    def logits(self, model: Any, batch: Encoded) -> Tensor:
        """Return (n, K) scaled cosines of images to classes."""
        batch = on_device(model, batch)
        pictures = self.library.image_features(model, batch.inputs["images"])
        logits = similarity(model, pictures, self.head)
        if "text" not in batch.inputs:
            return logits
        batch, labels = labelled(model, batch)
        own = self.library.text_features(model, batch.inputs["text"])
        change = (pictures * (own - self.head[labels])).sum(-1) * model.logit_scale.exp()
        return logits + F.one_hot(labels, len(self.head)) * change[:, None].to(logits)

    @by_sample
    def loss(self, model: nn.Module, batch: Encoded) -> Tensor:
        batch, labels = labelled(model, batch)
        return loss_of_classes(self.logits(model, batch), labels)

    @by_sample
    def answers(self, model: nn.Module, batch: Encoded) -> Tensor:
        return self.logits(model, batch)

    def wanted(self, batch: Encoded) -> Tensor | None:
        return batch.labels

    def per_sample(self, model: nn.Module, batch: Encoded) -> Tensor:
        batch, labels = labelled(model, batch)
        logits = similarity(model, self.library.image_features(model, batch.inputs["images"]), self.head)
        return (logits.argmax(-1) == labels)[:, None]

    def score(self, per_sample: Tensor, reference: Tensor | None = None) -> Score:
        return Score.of(int(per_sample.sum()), len(per_sample))

    def features(self, model: nn.Module, batch: Encoded) -> Tensor:
        return self.library.image_features(model, on_device(model, batch).inputs["images"])


@dataclass(frozen=True)
class Causal:
    """Next-token loss of the tokens that are asked for: all of a text, or the answer to a prompt."""

    side: Loaded
    max_length: int | None
    class_names: tuple[str, ...] = ()

    def encode(self, samples: Sequence[Any]) -> Encoded:
        return encode_causal(tokenizer_of(self.side), samples, self.max_length, self.class_names)

    def _logits(self, model: nn.Module, batch: Encoded) -> tuple[Tensor, Tensor]:
        batch, labels = labelled(model, batch)
        return logits_of_next(model, batch.inputs, labels)

    def loss(self, model: nn.Module, batch: Encoded) -> Tensor:
        return loss_of_tokens(*self._logits(model, batch))

    def answers(self, model: nn.Module, batch: Encoded) -> Tensor:
        return _asked(*self._logits(model, batch))

    def wanted(self, batch: Encoded) -> Tensor | None:
        return None if batch.labels is None else batch.labels[:, 1:][batch.labels[:, 1:] != UNASKED]

    def per_sample(self, model: nn.Module, batch: Encoded) -> Tensor:
        """Return (n, 3): a sample's summed loss, how many tokens were asked for, and 1 if all of them came first."""
        return _answers(*self._logits(model, batch))

    def score(self, per_sample: Tensor, reference: Tensor | None = None) -> Score:
        return _language_score(per_sample, answers=self._answered)

    @property
    def _answered(self) -> bool:
        return False

    def features(self, model: nn.Module, batch: Encoded) -> Tensor:
        out = model(**on_device(model, batch).inputs, output_hidden_states=True, use_cache=False)
        return F.normalize(pooled(out.hidden_states[-1], batch), dim=-1)


@dataclass(frozen=True)
class Completion(Causal):
    """Next-token loss of an answer, scored by whether the whole answer is right."""

    @property
    def _answered(self) -> bool:
        return True


@dataclass(frozen=True)
class Seq2Seq:
    """Loss of the answer under the decoder, scored by whether the whole answer is right."""

    side: Loaded
    max_length: int | None
    class_names: tuple[str, ...] = ()

    def encode(self, samples: Sequence[Any]) -> Encoded:
        return encode_seq2seq(tokenizer_of(self.side), samples, self.max_length, self.class_names)

    def _logits(self, model: nn.Module, batch: Encoded) -> tuple[Tensor, Tensor]:
        batch, labels = labelled(model, batch)
        return logits_of_answer(model, batch.inputs, labels)

    def loss(self, model: nn.Module, batch: Encoded) -> Tensor:
        return loss_of_tokens(*self._logits(model, batch))

    def answers(self, model: nn.Module, batch: Encoded) -> Tensor:
        return _asked(*self._logits(model, batch))

    def wanted(self, batch: Encoded) -> Tensor | None:
        return None if batch.labels is None else batch.labels[batch.labels != UNASKED]

    def per_sample(self, model: nn.Module, batch: Encoded) -> Tensor:
        return _answers(*self._logits(model, batch))

    def score(self, per_sample: Tensor, reference: Tensor | None = None) -> Score:
        return _language_score(per_sample, answers=True)

    def features(self, model: Any, batch: Encoded) -> Tensor:
        batch = on_device(model, batch)
        return F.normalize(pooled(model.get_encoder()(**batch.inputs).last_hidden_state, batch), dim=-1)


def similarity_scores(objective: Objective, bank: Encoded, model: nn.Module) -> Callable[[nn.Module, Encoded], Tensor]:
    """Return scores that know nothing of labels: a sample's cosines to the M samples of a general bank, (n, M)."""
    with torch.no_grad():
        head = objective.features(model, bank)
    return lambda live, batch: objective.features(live, batch) @ head.T


def _asked(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the rows (m, V) of logits (n, T, V) at the tokens that are asked for."""
    return logits[labels != UNASKED]


def _answers(logits: Tensor, labels: Tensor) -> Tensor:
    asked = labels != UNASKED
    losses = F.cross_entropy(logits.transpose(1, 2).float(), labels, ignore_index=UNASKED, reduction="none").sum(-1)
    right = ((logits.argmax(-1) == labels) | ~asked).all(-1)
    return torch.stack([losses, asked.sum(-1).to(losses), right.to(losses)], dim=-1)


def _language_score(per_sample: Tensor, *, answers: bool) -> Score:
    losses, tokens, right = per_sample.unbind(-1)
    fluent = Score.perplexity(losses, tokens)
    if not answers:
        return fluent
    return Score.of(int(right.sum()), len(right), "exact match", {"perplexity": fluent.value})
