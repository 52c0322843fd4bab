"""What a model is asked of every sample: how it goes in, the loss that gradients are taken of, how answers are scored.

An objective is bound to one model (its tokenizer, its head); the models of a port have one each, of the same kind.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_bico.core.alignment import Spans
from hf_bico.core.errors import PortError
from hf_bico.families.feeding import UNASKED, Encoded, encode_causal, encode_seq2seq, encode_text
from hf_bico.families.losses import (
    logits_of_answer,
    logits_of_classes,
    logits_of_next,
    loss_of_classes,
    loss_of_tokens,
)
from hf_bico.families.protocol import Contrastive, Loaded, similarity
from hf_bico.tasks.scores import Score


class Objective(Protocol):
    """What one model is asked, and how its answers are scored."""

    def encode(self, samples: Sequence[Any]) -> Encoded:
        """Return samples as the model's inputs and labels."""
        ...

    def loss(self, model: nn.Module, batch: Encoded) -> Tensor:
        """Return the loss, summed over the batch's samples."""
        ...

    def answers(self, model: nn.Module, batch: Encoded) -> Tensor:
        """Return logits (m, K) of all that is asked: a row a sample, or a row a token of an answer."""
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
        labels = _classes(samples)
        inputs = {"images": _images(self.side, samples)}
        if self.prompts and labels is not None:
            inputs["text"], inputs["text_mask"] = self.library.tokens(self.side, [self.prompts[i] for i in labels])
        return Encoded(inputs, labels)

    def logits(self, model: Any, batch: Encoded) -> Tensor:
        """Return (n, K) scaled cosines of images to classes."""
        batch = _on(model, batch)
        pictures = self.library.image_features(model, batch.inputs["images"])
        logits = similarity(model, pictures, self.head)
        if "text" not in batch.inputs:
            return logits
        batch, labels = _labelled(model, batch)
        own = self.library.text_features(model, batch.inputs["text"])
        change = (pictures * (own - self.head[labels])).sum(-1) * model.logit_scale.exp()
        return logits + F.one_hot(labels, len(self.head)) * change[:, None].to(logits)

    def loss(self, model: nn.Module, batch: Encoded) -> Tensor:
        batch, labels = _labelled(model, batch)
        return loss_of_classes(self.logits(model, batch), labels)

    def answers(self, model: nn.Module, batch: Encoded) -> Tensor:
        return self.logits(model, batch)

    def per_sample(self, model: nn.Module, batch: Encoded) -> Tensor:
        batch, labels = _labelled(model, batch)
        logits = similarity(model, self.library.image_features(model, batch.inputs["images"]), self.head)
        return (logits.argmax(-1) == labels)[:, None]

    def score(self, per_sample: Tensor, reference: Tensor | None = None) -> Score:
        return Score.of(int(per_sample.sum()), len(per_sample))

    def features(self, model: nn.Module, batch: Encoded) -> Tensor:
        return self.library.image_features(model, _on(model, batch).inputs["images"])


@dataclass(frozen=True)
class Classifier:
    """Cross-entropy under the model's own classifier, of images or of texts."""

    side: Loaded
    max_length: int | None
    order: tuple[int, ...] = ()
    """For every class of the dataset the model's index of it; empty where they are the same."""

    def encode(self, samples: Sequence[Any]) -> Encoded:
        labels = _classes(samples)
        labels = torch.tensor(self.order)[labels] if self.order and labels is not None else labels
        if not isinstance(samples[0].inputs, str | tuple):
            return Encoded({"pixel_values": _images(self.side, samples)}, labels)
        encoded = replace(encode_text(_tokenizer(self.side), samples, self.max_length), labels=labels)
        config: Any = self.side.model.config
        if not config.is_encoder_decoder or not encoded.spans:
            return encoded
        later = {name: Spans(*(F.pad(part[:, :-1], (1, 0)) for part in spans)) for name, spans in encoded.spans.items()}
        return replace(encoded, spans={**encoded.spans, "labels": later["text"]})  # its decoder reads the text, shifted

    def loss(self, model: nn.Module, batch: Encoded) -> Tensor:
        batch, labels = _labelled(model, batch)
        return loss_of_classes(logits_of_classes(model, batch.inputs), labels)

    def answers(self, model: nn.Module, batch: Encoded) -> Tensor:
        return logits_of_classes(model, _on(model, batch).inputs)

    def per_sample(self, model: nn.Module, batch: Encoded) -> Tensor:
        batch, labels = _labelled(model, batch)
        return (logits_of_classes(model, batch.inputs).argmax(-1) == labels)[:, None]

    def score(self, per_sample: Tensor, reference: Tensor | None = None) -> Score:
        return Score.of(int(per_sample.sum()), len(per_sample))

    def features(self, model: nn.Module, batch: Encoded) -> Tensor:
        out = model(**_on(model, batch).inputs, output_hidden_states=True)
        return F.normalize(_pooled(out.hidden_states[-1], batch), dim=-1)


@dataclass(frozen=True)
class Causal:
    """Next-token loss of the tokens that are asked for: all of a text, or the answer to a prompt."""

    side: Loaded
    max_length: int | None
    class_names: tuple[str, ...] = ()

    def encode(self, samples: Sequence[Any]) -> Encoded:
        return encode_causal(_tokenizer(self.side), samples, self.max_length, self.class_names)

    def _logits(self, model: nn.Module, batch: Encoded) -> tuple[Tensor, Tensor]:
        batch, labels = _labelled(model, batch)
        return logits_of_next(model, batch.inputs, labels)

    def loss(self, model: nn.Module, batch: Encoded) -> Tensor:
        return loss_of_tokens(*self._logits(model, batch))

    def answers(self, model: nn.Module, batch: Encoded) -> Tensor:
        return _asked(*self._logits(model, batch))

    def per_sample(self, model: nn.Module, batch: Encoded) -> Tensor:
        """Return (n, 3): a sample's summed loss, how many tokens were asked for, and 1 if all of them came first."""
        return _answers(*self._logits(model, batch))

    def score(self, per_sample: Tensor, reference: Tensor | None = None) -> Score:
        return _language_score(per_sample, answers=self._answered)

    @property
    def _answered(self) -> bool:
        return False

    def features(self, model: nn.Module, batch: Encoded) -> Tensor:
        out = model(**_on(model, batch).inputs, output_hidden_states=True, use_cache=False)
        return F.normalize(_pooled(out.hidden_states[-1], batch), dim=-1)


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
        return encode_seq2seq(_tokenizer(self.side), samples, self.max_length, self.class_names)

    def _logits(self, model: nn.Module, batch: Encoded) -> tuple[Tensor, Tensor]:
        batch, labels = _labelled(model, batch)
        return logits_of_answer(model, batch.inputs, labels)

    def loss(self, model: nn.Module, batch: Encoded) -> Tensor:
        return loss_of_tokens(*self._logits(model, batch))

    def answers(self, model: nn.Module, batch: Encoded) -> Tensor:
        return _asked(*self._logits(model, batch))

    def per_sample(self, model: nn.Module, batch: Encoded) -> Tensor:
        return _answers(*self._logits(model, batch))

    def score(self, per_sample: Tensor, reference: Tensor | None = None) -> Score:
        return _language_score(per_sample, answers=True)

    def features(self, model: Any, batch: Encoded) -> Tensor:
        batch = _on(model, batch)
        return F.normalize(_pooled(model.get_encoder()(**batch.inputs).last_hidden_state, batch), dim=-1)


@dataclass(frozen=True)
class Embedding:
    """A model of features alone: under a linear probe if the samples have classes, else by its cosine similarities."""

    side: Loaded
    max_length: int | None
    probe: tuple[Tensor, Tensor] | None = None
    """W (K, d) and b (K,), once they are fitted."""

    def encode(self, samples: Sequence[Any]) -> Encoded:
        if not isinstance(samples[0].inputs, str | tuple):
            return Encoded({"pixel_values": _images(self.side, samples)}, _classes(samples))
        if not isinstance(samples[0].label, int):
            samples = [replace(sample, label=None) for sample in samples]
        return encode_text(_tokenizer(self.side), samples, self.max_length)

    def raw(self, model: nn.Module, batch: Encoded) -> Tensor:
        """Return the mean of the last layer's rows, (n, d)."""
        batch = _on(model, batch)
        return _pooled(model(**batch.inputs).last_hidden_state, batch)

    def logits(self, model: nn.Module, batch: Encoded) -> Tensor:
        """Return the probe's logits, (n, K)."""
        assert self.probe is not None
        weight, bias = (tensor.to(_device(model)) for tensor in self.probe)
        return self.raw(model, batch) @ weight.T + bias

    def loss(self, model: nn.Module, batch: Encoded) -> Tensor:
        if self.probe is None:  # no loss without a probe: for passes that take no gradient of it
            return 0 * self.raw(model, batch).sum()
        batch, labels = _labelled(model, batch)
        return loss_of_classes(self.logits(model, batch), labels)

    def answers(self, model: nn.Module, batch: Encoded) -> Tensor:
        return self.logits(model, batch)

    def per_sample(self, model: nn.Module, batch: Encoded) -> Tensor:
        if self.probe is None:
            return self.features(model, batch)
        batch, labels = _labelled(model, batch)
        return (self.logits(model, batch).argmax(-1) == labels)[:, None]

    def score(self, per_sample: Tensor, reference: Tensor | None = None) -> Score:
        if self.probe is None:
            return Score.agreement(per_sample, per_sample if reference is None else reference)
        return Score.of(int(per_sample.sum()), len(per_sample))

    def features(self, model: nn.Module, batch: Encoded) -> Tensor:
        return F.normalize(self.raw(model, batch), dim=-1)


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


def _pooled(rows: Tensor, batch: Encoded) -> Tensor:
    """Return the means (n, d) of the rows (n, T, d) that are no padding."""
    mask = batch.inputs.get("attention_mask")
    if mask is None or mask.shape != rows.shape[:2]:
        return rows.mean(1)
    mask = mask.to(rows)[..., None]
    return (rows * mask).sum(1) / mask.sum(1)


def _classes(samples: Sequence[Any]) -> Tensor | None:
    """Return the samples' classes (n,); None for samples without labels."""
    return torch.tensor([sample.label for sample in samples]) if isinstance(samples[0].label, int) else None


def _images(side: Loaded, samples: Sequence[Any]) -> Tensor:
    if side.preprocess is None:
        raise PortError(
            "the model's repo has no image processor that can be opened (preprocessor_config.json): copy one to it"
        )
    return torch.stack([side.preprocess(sample.inputs) for sample in samples])


def _tokenizer(side: Loaded) -> Any:
    if side.tokenizer is None:
        raise PortError(
            "the model's repo has no tokenizer that can be opened (tokenizer.json, tokenizer_config.json): "
            "copy one to it"
        )
    return side.tokenizer


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _on(model: nn.Module, batch: Encoded) -> Encoded:
    return batch.to(_device(model))


def _labelled(model: nn.Module, batch: Encoded) -> tuple[Encoded, Tensor]:
    """Return a batch on the model's device, and its labels; one without labels is asked for no loss and no score."""
    batch = _on(model, batch)
    assert batch.labels is not None
    return batch, batch.labels
