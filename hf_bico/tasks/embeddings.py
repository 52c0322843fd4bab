"""What a model of features is asked: classes under a probe, scores of pairs, or which texts belong together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_bico.core.device import device_of
from hf_bico.families.feeding import Encoded, encode_text
from hf_bico.families.losses import loss_of_classes
from hf_bico.families.protocol import Loaded
from hf_bico.families.sentences import PLAIN, Dense, Sentence
from hf_bico.tasks.inputs import classes_in, images_of, labelled, on_device, pooled, tokenizer_of
from hf_bico.tasks.scores import Score

SHARP = 20.0
"""What cosines are multiplied by for a softmax over the texts of a batch, as in sentence-transformers' loss."""


@dataclass(frozen=True)
class Embedding:
    """A model of features alone: under a linear probe if the samples have classes, else by its cosine similarities."""

    side: Loaded
    max_length: int | None
    probe: tuple[Tensor, Tensor] | None = None
    """W (K, d) and b (K,), once they are fitted."""
    sentence: Sentence = PLAIN
    """How rows become one feature, and what every text begins with."""
    dense: tuple[Dense, ...] = ()
    """The linear layers behind the pooling, once they are there."""

    def encode(self, samples: Sequence[Any]) -> Encoded:
        if not isinstance(samples[0].inputs, str | tuple):
            return Encoded({"pixel_values": images_of(self.side, samples)}, classes_in(samples))
        if not isinstance(samples[0].label, int):
            samples = [replace(sample, label=None) for sample in samples]
        return self._encoded(samples)

    def _encoded(self, samples: Sequence[Any]) -> Encoded:
        """Return texts, or pairs of them, each with what it begins with."""
        if self.sentence.prompt:
            samples = [replace(sample, inputs=self._prompted(sample.inputs)) for sample in samples]
        return self._cut(samples)

    def _cut(self, samples: Sequence[Any]) -> Encoded:
        """Return texts, or pairs of them, cut to what the model takes."""
        lengths = [length for length in (self.max_length, self.sentence.max_length) if length is not None]
        return encode_text(tokenizer_of(self.side), samples, min(lengths, default=None))

    def _prompted(self, inputs: Any) -> Any:
        first, *rest = (inputs,) if isinstance(inputs, str) else inputs
        return (self.sentence.prompt + first, *rest) if rest else self.sentence.prompt + first

    def raw(self, model: nn.Module, batch: Encoded) -> Tensor:
        """Return the pooled rows of the last layer, (n, d), through the linear layers behind the pooling."""
        x = self.bare(model, batch)
        for layer in self.dense:
            x = layer(x)
        return x

    def bare(self, model: nn.Module, batch: Encoded) -> Tensor:
        """Return the pooled rows of the last layer, (n, d)."""
        batch = on_device(model, batch)
        rows = model(**batch.inputs).last_hidden_state
        mask = batch.inputs.get("attention_mask")
        return pooled(rows, batch) if mask is None else self.sentence.pooled(rows, mask)

    def logits(self, model: nn.Module, batch: Encoded) -> Tensor:
        """Return the probe's logits, (n, K)."""
        assert self.probe is not None
        weight, bias = (tensor.to(device_of(model)) for tensor in self.probe)
        return self.raw(model, batch) @ weight.T + bias

    def loss(self, model: nn.Module, batch: Encoded) -> Tensor:
        if self.probe is None:  # no loss without a probe: for passes that take no gradient of it
            return 0 * self.raw(model, batch).sum()
        batch, labels = labelled(model, batch)
        return loss_of_classes(self.logits(model, batch), labels)

    def answers(self, model: nn.Module, batch: Encoded) -> Tensor:
        return self.logits(model, batch)

    def wanted(self, batch: Encoded) -> Tensor | None:
        return batch.labels

    def per_sample(self, model: nn.Module, batch: Encoded) -> Tensor:
        if self.probe is None:
            return self.features(model, batch)
        batch, labels = labelled(model, batch)
        return (self.logits(model, batch).argmax(-1) == labels)[:, None]

    def score(self, per_sample: Tensor, reference: Tensor | None = None) -> Score:
        if self.probe is None:
            return Score.agreement(per_sample, per_sample if reference is None else reference)
        return Score.of(int(per_sample.sum()), len(per_sample))

    def features(self, model: nn.Module, batch: Encoded) -> Tensor:
        return F.normalize(self.raw(model, batch), dim=-1)


@dataclass(frozen=True)
class Paired(Embedding):
    """A model of features under the cosines of pairs of texts, each of which goes in by itself."""

    def encode(self, samples: Sequence[Any]) -> Encoded:
        if isinstance(samples[0].inputs, str):  # a general text, which nothing is asked about
            return super().encode(samples)
        texts = [
            replace(sample, inputs=self.prompts[side > 0] + sample.inputs[side], label=None)
            for side in range(len(samples[0].inputs))
            for sample in samples
        ]
        return replace(self._cut(texts), labels=self.labels(samples))

    @property
    def prompts(self) -> tuple[str, str]:
        """What the first texts begin with, and the others."""
        return self.sentence.prompt, self.sentence.prompt

    def labels(self, samples: Sequence[Any]) -> Tensor | None:
        """Return what the pairs are answered with, (n,); None where there is nothing."""
        return None

    def sides(self, model: nn.Module, batch: Encoded) -> tuple[Tensor, Tensor]:
        """Return unit features of the first and the second texts, (n, d) each."""
        first, second = F.normalize(self.raw(model, batch), dim=-1).chunk(2)
        return first, second


@dataclass(frozen=True)
class Similar(Paired):
    """Squared error of the cosine of a pair and its score, itself scored by ranks, as sentence-transformers does."""

    most: float = 1.0
    """What the scores are divided by, so that the largest is 1."""

    def labels(self, samples: Sequence[Any]) -> Tensor | None:
        given = [sample.label for sample in samples]
        return None if None in given else torch.tensor(given, dtype=torch.float32) / self.most

    def _cosines(self, model: nn.Module, batch: Encoded) -> Tensor:
        first, second = self.sides(model, batch)
        return (first * second).sum(-1)

    def loss(self, model: nn.Module, batch: Encoded) -> Tensor:
        batch = on_device(model, batch)
        cosines = self._cosines(model, batch)
        return 0 * cosines.sum() if batch.labels is None else (cosines - batch.labels.to(cosines)).square().sum()

    def wanted(self, batch: Encoded) -> Tensor | None:
        return None

    def per_sample(self, model: nn.Module, batch: Encoded) -> Tensor:
        """Return (n, 2): the cosine and the label."""
        batch, labels = labelled(model, batch)
        cosines = self._cosines(model, batch)
        return torch.stack([cosines, labels.to(cosines)], dim=-1)

    def score(self, per_sample: Tensor, reference: Tensor | None = None) -> Score:
        given, wanted = per_sample.unbind(-1)
        return Score.correlation(given, wanted, "spearman")


@dataclass(frozen=True)
class Together(Paired):
    """Cross-entropy of a text's own partner among those of the batch and all of their hard negatives, as in
    sentence-transformers' MultipleNegativesRankingLoss; scored by its rank among the partners of all samples.
    """

    @property
    def prompts(self) -> tuple[str, str]:
        return self.sentence.query, self.sentence.document

    def labels(self, samples: Sequence[Any]) -> Tensor | None:
        """Return the place of every text's partner among the others."""
        return torch.arange(len(samples))

    def _parts(self, model: nn.Module, batch: Encoded) -> tuple[Tensor, Tensor]:
        """Return unit features of the n first texts, and of all others: (n, d), and their partners first, (m, d)."""
        batch, labels = labelled(model, batch)
        features, n = F.normalize(self.raw(model, batch), dim=-1), len(labels)
        return features[:n], features[n:]

    def answers(self, model: nn.Module, batch: Encoded) -> Tensor:
        first, others = self._parts(model, batch)
        return SHARP * first @ others.T

    def loss(self, model: nn.Module, batch: Encoded) -> Tensor:
        batch, labels = labelled(model, batch)
        return loss_of_classes(self.answers(model, batch), labels)

    def wanted(self, batch: Encoded) -> Tensor | None:
        return batch.labels

    def per_sample(self, model: nn.Module, batch: Encoded) -> Tensor:
        """Return (n, 2 d): the features of a text and of its partner."""
        first, others = self._parts(model, batch)
        return torch.cat([first, others[: len(first)]], dim=-1)

    def score(self, per_sample: Tensor, reference: Tensor | None = None) -> Score:
        return Score.retrieval(*per_sample.chunk(2, dim=-1))
