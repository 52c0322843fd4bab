"""What a model with a head of its own is asked: one class, several, a number, a class for every word, or a span."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_bico.core.alignment import Spans
from hf_bico.core.pieces import by_sample
from hf_bico.families import Answer
from hf_bico.families.feeding import UNASKED, Encoded, Span, encode_text
from hf_bico.families.losses import (
    OUTSIDE,
    logits_of_classes,
    logits_of_ends,
    loss_of_classes,
    loss_of_ends,
    loss_of_numbers,
    loss_of_several,
    loss_of_tokens,
)
from hf_bico.families.marked import encode_spans, encode_words
from hf_bico.families.protocol import Loaded
from hf_bico.tasks.inputs import classes_in, images_of, labelled, on_device, pooled, sounds_of, tokenizer_of
from hf_bico.tasks.labels import Labels
from hf_bico.tasks.scores import Score, answer_scores, entity_counts


@dataclass(frozen=True)
class Classifier:
    """Cross-entropy under the model's own classifier, of images or of texts."""

    side: Loaded
    max_length: int | None
    order: tuple[int, ...] = ()
    """For every class of the dataset the model's index of it; empty where they are the same."""

    def encode(self, samples: Sequence[Any]) -> Encoded:
        labels = self.labels(samples)
        if self.side.ear is not None:
            return Encoded(sounds_of(self.side, samples), labels)
        if not isinstance(samples[0].inputs, str | tuple):
            return Encoded({"pixel_values": images_of(self.side, samples)}, labels)
        bare = [replace(sample, label=None) for sample in samples]
        return replace(self._decoded(encode_text(tokenizer_of(self.side), bare, self.max_length)), labels=labels)

    def labels(self, samples: Sequence[Any]) -> Tensor | None:
        """Return what the samples are answered with, (n, …), in the model's order; None for samples without labels."""
        labels = classes_in(samples)
        return torch.tensor(self.order)[labels] if self.order and labels is not None else labels

    def _decoded(self, encoded: Encoded) -> Encoded:
        """Return a batch with what the tokens of a decoder cover: it reads the text itself, shifted."""
        config: Any = self.side.model.config
        if not config.is_encoder_decoder or not encoded.spans:
            return encoded
        later = Spans(*(F.pad(part[:, :-1], (1, 0)) for part in encoded.spans["text"]))
        return replace(encoded, spans={**encoded.spans, "labels": later})

    @by_sample
    def loss(self, model: nn.Module, batch: Encoded) -> Tensor:
        batch, labels = labelled(model, batch)
        return loss_of_classes(logits_of_classes(model, batch.inputs), labels)

    @by_sample
    def answers(self, model: nn.Module, batch: Encoded) -> Tensor:
        return logits_of_classes(model, on_device(model, batch).inputs)

    def wanted(self, batch: Encoded) -> Tensor | None:
        return batch.labels

    def per_sample(self, model: nn.Module, batch: Encoded) -> Tensor:
        batch, labels = labelled(model, batch)
        return (logits_of_classes(model, batch.inputs).argmax(-1) == labels)[:, None]

    def score(self, per_sample: Tensor, reference: Tensor | None = None) -> Score:
        return Score.of(int(per_sample.sum()), len(per_sample))

    def features(self, model: nn.Module, batch: Encoded) -> Tensor:
        out = model(**on_device(model, batch).inputs, output_hidden_states=True)
        return F.normalize(pooled(out.hidden_states[-1], batch), dim=-1)


@dataclass(frozen=True)
class Several(Classifier):
    """Binary cross-entropy of every class under the model's own classifier; a class is given where its score is above
    0, as transformers' pipelines do."""

    classes: int = 0

    def labels(self, samples: Sequence[Any]) -> Tensor | None:
        if samples[0].label is None:
            return None
        hot = torch.zeros(len(samples), self.classes)
        for row, sample in enumerate(samples):
            hot[row, [self.order[k] if self.order else k for k in sample.label]] = 1
        return hot

    def loss(self, model: nn.Module, batch: Encoded) -> Tensor:
        batch, labels = labelled(model, batch)
        return loss_of_several(logits_of_classes(model, batch.inputs), labels)

    def answers(self, model: nn.Module, batch: Encoded) -> Tensor:
        """Return (n K, 2): every class is a choice of no, at 0, and yes."""
        logits = super().answers(model, batch).flatten()
        return torch.stack([torch.zeros_like(logits), logits], dim=-1)

    def wanted(self, batch: Encoded) -> Tensor | None:
        return None if batch.labels is None else batch.labels.flatten().long()

    def per_sample(self, model: nn.Module, batch: Encoded) -> Tensor:
        """Return (n, 2 K): the scores, then the labels."""
        batch, labels = labelled(model, batch)
        logits = logits_of_classes(model, batch.inputs)
        return torch.cat([logits, labels.to(logits)], dim=-1)

    def score(self, per_sample: Tensor, reference: Tensor | None = None) -> Score:
        return Score.several(*per_sample.chunk(2, dim=-1))


@dataclass(frozen=True)
class Regression(Classifier):
    """Squared error of the one number that the model's head gives."""

    def labels(self, samples: Sequence[Any]) -> Tensor | None:
        return None if samples[0].label is None else torch.tensor([float(sample.label) for sample in samples])

    def loss(self, model: nn.Module, batch: Encoded) -> Tensor:
        batch = on_device(model, batch)
        logits = logits_of_classes(model, batch.inputs)
        return 0 * logits.sum() if batch.labels is None else loss_of_numbers(logits, batch.labels)

    def wanted(self, batch: Encoded) -> Tensor | None:
        return None

    def per_sample(self, model: nn.Module, batch: Encoded) -> Tensor:
        """Return (n, 2): what the model gives, and the label."""
        batch, labels = labelled(model, batch)
        logits = logits_of_classes(model, batch.inputs)
        return torch.cat([logits, labels.to(logits)[:, None]], dim=-1)

    def score(self, per_sample: Tensor, reference: Tensor | None = None) -> Score:
        given, wanted = per_sample.unbind(-1)
        return Score.correlation(given, wanted)


@dataclass(frozen=True)
class WordClasses(Classifier):
    """Cross-entropy of the first token of every word under the model's own classifier, scored by entities."""

    tags: tuple[str, ...] = ()
    """The classes, in the model's order."""

    def encode(self, samples: Sequence[Any]) -> Encoded:
        if isinstance(samples[0].inputs, str):  # a general text, which nothing is asked about
            return super().encode(samples)
        encoded = self._decoded(encode_words(tokenizer_of(self.side), samples, self.max_length))
        if not self.order or encoded.labels is None:
            return encoded
        asked = encoded.labels != UNASKED
        labels = torch.tensor(self.order)[encoded.labels.clamp_min(0)]
        return replace(encoded, labels=labels.where(asked, torch.tensor(UNASKED)))

    def loss(self, model: nn.Module, batch: Encoded) -> Tensor:
        batch, labels = labelled(model, batch)
        return loss_of_tokens(logits_of_classes(model, batch.inputs), labels)

    def answers(self, model: nn.Module, batch: Encoded) -> Tensor:
        batch, labels = labelled(model, batch)
        return logits_of_classes(model, batch.inputs)[labels != UNASKED]

    def wanted(self, batch: Encoded) -> Tensor | None:
        return None if batch.labels is None else batch.labels[batch.labels != UNASKED]

    def per_sample(self, model: nn.Module, batch: Encoded) -> Tensor:
        """Return (n, 5): entities that are found and right, found, and there; words that are right, and words."""
        batch, labels = labelled(model, batch)
        given = logits_of_classes(model, batch.inputs).argmax(-1)
        rows = [(a[b != UNASKED], b[b != UNASKED]) for a, b in zip(given.cpu(), labels.cpu(), strict=True)]
        return torch.tensor(
            [
                [*entity_counts([self.tags[k] for k in a], [self.tags[k] for k in b]), int((a == b).sum()), len(b)]
                for a, b in rows
            ]
        )

    def score(self, per_sample: Tensor, reference: Tensor | None = None) -> Score:
        right, found, there, words_right, words = per_sample.unbind(-1)
        accuracy = float(words_right.sum() / words.sum().clamp_min(1))
        if not any(tag.startswith(("B-", "I-")) for tag in self.tags):
            return Score.ratio(words_right, words, "word accuracy")
        return Score.ratio(2 * right, found + there, "entity F1", {"word accuracy": accuracy})


@dataclass(frozen=True)
class SpanFinder(Classifier):
    """Cross-entropy of the first and the last token of the answer; the text between is scored by SQuAD's rules."""

    may_lack: bool = False
    """Whether a text may have no answer: none is given where the first token is likelier than any (SQuAD 2)."""
    longest: int = 30
    """The most tokens of an answer."""

    def encode(self, samples: Sequence[Any]) -> Encoded:
        if isinstance(samples[0].inputs, str):  # a general text, which nothing is asked about
            return super().encode(samples)
        return self._decoded(encode_spans(tokenizer_of(self.side), samples, self.max_length))

    def loss(self, model: nn.Module, batch: Encoded) -> Tensor:
        batch, labels = labelled(model, batch)
        return loss_of_ends(logits_of_ends(model, batch.inputs), labels)

    def answers(self, model: nn.Module, batch: Encoded) -> Tensor:
        return logits_of_ends(model, on_device(model, batch).inputs).flatten(0, 1)

    def wanted(self, batch: Encoded) -> Tensor | None:
        return None if batch.labels is None else batch.labels.flatten()

    def per_sample(self, model: nn.Module, batch: Encoded) -> Tensor:
        """Return (n, 2): whether the answer is exact, and its F1, the best over the right answers."""
        logits = logits_of_ends(model, on_device(model, batch).inputs).float().cpu()
        found = []
        for (start, end), note in zip(logits, batch.notes, strict=True):
            span = self._best(start, end, note.tokens)
            text = note.text[span.start : span.end].strip() if span else ""
            found.append(answer_scores(text, [note.text[each.start : each.end] for each in note.answers]))
        return torch.tensor(found)

    def _best(self, start: Tensor, end: Tensor, tokens: Sequence[Span | None]) -> Span | None:
        """Return the characters of the likeliest answer; None where none is likelier, if the text may have none."""
        inside = torch.tensor([token is not None for token in tokens])
        n = len(tokens)
        scores = start[:n, None] + end[None, :n]
        allowed = (inside[:, None] & inside[None]).triu() & ~torch.ones(n, n, dtype=torch.bool).triu(self.longest)
        scores = scores.masked_fill(~allowed, 3 * OUTSIDE)
        first, last = divmod(int(scores.argmax()), n)
        if (self.may_lack and float(start[0] + end[0]) > float(scores.max())) or not inside.any():
            return None
        a, b = tokens[first], tokens[last]
        return Span(a.start, b.end) if a and b else None

    def score(self, per_sample: Tensor, reference: Tensor | None = None) -> Score:
        exact, f1 = per_sample.unbind(-1)
        return Score.mean(f1, "answer F1", {"exact match": float(exact.mean())})


def classifier_of(side: Loaded, length: int, labels: Labels, order: tuple[int, ...]) -> Classifier:
    """Return what a model with a head is asked.

    Args:
        order: for every class of the dataset the model's index of it; empty where they are the same.
    """
    answer, names = labels.answer, labels.names
    if answer is Answer.CLASSES:
        return Several(side, length, order, len(names))
    if answer is Answer.NUMBER:
        return Regression(side, length)
    if answer is Answer.WORD_CLASSES:
        tags = list(names)
        for mine, theirs in enumerate(order):
            tags[theirs] = names[mine]
        return WordClasses(side, length, order, tuple(tags))
    if answer is Answer.SPAN:
        return SpanFinder(side, length, may_lack=labels.may_lack)
    return Classifier(side, length, order)
