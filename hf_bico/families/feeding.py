"""Encodes samples as what a transformers model's forward takes, with the places that every token covers.

Labels are aligned with the ids (the loss shifts: the logits of token t are for the label of token t + 1), and are -100
where nothing is asked. Padding is on the right, whatever the tokenizer is set to.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from hf_bico.core.alignment import Part, Spans, Token, places, stack_spans
from hf_bico.core.errors import PortError, setting
from hf_bico.core.notes import note
from hf_bico.core.pieces import cut
from hf_bico.families.chat import Rendered, rendered_chat

KNOWN = "known_tokens"
"""Attribute of a tokenizer with how many tokens its model has, where that is known."""
UNASKED = -100
"""Label of a token that nothing is asked for."""
TEXT, LABELS = "text", "labels"


class Span(NamedTuple):
    """Characters [start, end) of a text."""

    start: int
    end: int


class Sample(Protocol):
    """A row of a dataset."""

    inputs: Any
    """str, (str, str), a list of words, or a tuple of messages, each with its role and content."""
    label: Any
    """Class index, the classes of every word, spans of the second text, the text or messages to answer with, or
    None."""


@dataclass(frozen=True)
class Encoded:
    """A batch as a model takes it; its length is the number of samples."""

    inputs: Mapping[str, Tensor]
    """What forward() takes, by name, batch first."""
    labels: Tensor | None = None
    """Class indices or numbers (n,); whether each class is there (n, K); first and last token of the answer (n, 2); or
    classes of tokens, a causal model's or a decoder's labels (n, T), -100 where nothing is asked."""
    spans: Mapping[str, Spans] = field(default_factory=dict)
    """What tokens cover: "text" for the input ids, "labels" for a decoder's labels (its row t answers for label t).
    Empty for images, and for slow tokenizers, which do not say: such a model meets only models with its tokenizer."""
    notes: Sequence[Any] = ()
    """What a score needs of every sample besides."""
    shown: Sequence[Any] = ()
    """Where the images of every sample lie in its row (`hf_bico.families.patches.Shown`); empty without images."""

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def cut(self, samples: int, size: int) -> list["Encoded"] | None:
        """Return the batch in pieces of so many samples; None of texts, and of images of several sizes."""
        tensors = {**self.inputs} if self.labels is None else {**self.inputs, LABELS: self.labels}
        rows = None if self.spans or self.shown or self.notes else cut(tensors, samples, size)
        return rows and [Encoded(row, row.pop(LABELS, None)) for row in rows]

    def to(self, device: torch.device | str) -> "Encoded":
        return replace(
            self,
            inputs={name: tensor.to(device) for name, tensor in self.inputs.items()},
            labels=None if self.labels is None else self.labels.to(device),
            spans={name: spans.to(device) for name, spans in self.spans.items()},
        )


class Row(NamedTuple):
    """A sample's token ids, and what goes with each of them."""

    ids: list[int]
    types: list[int] | None
    """Token types (segments); None if the tokenizer has none."""
    tokens: list[Token] | None
    """What each covers; None for slow tokenizers, which do not say."""
    places: list[tuple[int, int]] | None
    """The same in places; None as above."""


def encode_text(tokenizer: Any, samples: Sequence[Sample], max_length: int | None) -> Encoded:
    """Encode texts or pairs of texts, with the class as label.

    Raises:
        PortError: a sample is not text, or has no class where others have one.
    """
    max_length = _limit(tokenizer, max_length)
    rows = [_row(tokenizer, _texts(sample, number), max_length) for number, sample in enumerate(samples)]
    labels = [sample.label for sample in samples]
    if any(label is not None for label in labels) and not all(isinstance(label, int) for label in labels):
        raise PortError(
            f"some samples have a class and some have none: name the label's column with {setting('columns')}"
        )
    return Encoded(
        _inputs(tokenizer, rows, types=True), torch.tensor(labels) if labels[:1] != [None] else None, _spans(TEXT, rows)
    )


def encode_causal(
    tokenizer: Any, samples: Sequence[Sample], max_length: int | None, class_names: Sequence[str] = ()
) -> Encoded:
    """Encode texts for a causal model.

    - A text alone: every token is asked for.
    - Prompt and completion (or class name): joined, by a space where neither has white space at the seam, and closed
      with the end of sequence; the completion is asked for. A token across the seam counts to the completion. Of what
      is too long the beginning is cut, except for a special token there.
    - A chat: rendered by the tokenizer's template; what the assistant says is asked for, as the template marks it,
      else up to the end of its turn. Without a template: a line "role: content" per message, and the end of sequence.

    Raises:
        PortError: cut to `max_length`, a sample has nothing left to ask for; or a chat does not fit its template.
    """
    rows, labels, max_length = [], [], _limit(tokenizer, max_length)
    for number, sample in enumerate(samples):
        text = _rendered(tokenizer, sample, number, class_names)
        answers = not text.every and tokenizer.is_fast
        row = _row(
            tokenizer, (text.text,), None if answers else max_length, text.parts, special=text.special, close=text.close
        )
        row = _end(row, max_length) if answers else row
        asked = _asked(tokenizer, text, row)
        if not any(asked[1:]):
            raise PortError(
                f"sample {number} ({_start(text.text)}) has nothing left to ask for in its first "
                f"{len(row.ids)} tokens: give a larger {setting('max_length')} or leave the sample out"
            )
        rows.append(row)
        labels.append([token if ask else UNASKED for token, ask in zip(row.ids, asked, strict=True)])
    return Encoded(_inputs(tokenizer, rows), _padded(labels, UNASKED), _spans(TEXT, rows))


def encode_seq2seq(
    tokenizer: Any, samples: Sequence[Sample], max_length: int | None, class_names: Sequence[str] = ()
) -> Encoded:
    """Encode texts or pairs for an encoder, and the completion or class name as the decoder's labels.

    Raises:
        PortError: a sample is not text, or has nothing to answer with.
    """
    rows, answers, max_length = [], [], _limit(tokenizer, max_length)
    for number, sample in enumerate(samples):
        rows.append(_row(tokenizer, _texts(sample, number), max_length))
        answers.append(_row(tokenizer, (_answer(sample, number, class_names),), max_length, target=True))
    return Encoded(
        _inputs(tokenizer, rows),
        _padded([row.ids for row in answers], UNASKED),
        _spans(TEXT, rows) | _spans(LABELS, answers),
    )


def _texts(sample: Sample, number: int) -> tuple[str, ...]:
    """Return a sample's texts; refuse one that is neither a text nor a tuple of texts."""
    texts = (sample.inputs,) if isinstance(sample.inputs, str) else sample.inputs
    if not isinstance(texts, tuple) or not all(isinstance(text, str) for text in texts):
        raise PortError(
            f"sample {number} is neither a text nor a pair of texts: name its columns with {setting('columns')}"
        )
    return texts


def _answer(sample: Sample, number: int, class_names: Sequence[str]) -> str:
    """Return the text that a sample is answered with: its completion, or its class's name; refuse one without."""
    answer = sample.label
    if isinstance(answer, int) and 0 <= answer < len(class_names):
        answer = class_names[answer]
    if not isinstance(answer, str) or not answer:
        raise PortError(
            f"sample {number} has no text to answer with (its label is {answer!r}): name the completion's "
            f"column with {setting('columns')}"
        )
    return answer


def _rendered(tokenizer: Any, sample: Sample, number: int, class_names: Sequence[str]) -> Rendered:
    """Return a sample as text for a causal model."""
    if isinstance(sample.inputs, tuple) and all(isinstance(message, Mapping) for message in sample.inputs):
        later = sample.label if isinstance(sample.label, tuple) else ()
        return rendered_chat(tokenizer, (*sample.inputs, *later), number, len(sample.inputs) if later else 0)
    prompt = "\n".join(_texts(sample, number))
    if sample.label is None:
        return Rendered(prompt, [Part(0, len(prompt))], [(0, len(prompt))], every=True)
    answer = _answer(sample, number, class_names)
    seam = "" if not prompt or prompt[-1].isspace() or answer[0].isspace() else " "
    text = prompt + seam + answer
    return Rendered(text, [Part(0, len(text))], [(len(prompt), len(text))], close=True)


def _limit(tokenizer: Any, max_length: int | None) -> int | None:
    """Return the smaller of `max_length` and the number of tokens that the model takes; None if neither is set."""
    known = [length for length in (max_length, tokenizer.model_max_length) if length is not None and length < 10**9]
    return min(known, default=None)


def _row(
    tokenizer: Any,
    texts: tuple[str, ...],
    max_length: int | None,
    parts: Sequence[Part] | None = None,
    *,
    special: bool = True,
    close: bool = False,
    target: bool = False,
) -> Row:
    """Return texts, one after the other, as one row.

    Args:
        parts: of the joined texts; None: every text is one.
        special: add the tokenizer's own special tokens.
        close: add the end of sequence, unless there is no room or it is there already.
        target: the text is a decoder's labels.
    """
    named = {"text_target": texts[0]} if target else dict(zip(("text", "text_pair"), texts, strict=False))
    made = tokenizer(
        **named,
        add_special_tokens=special,
        truncation=max_length is not None,
        max_length=max_length,
        return_offsets_mapping=bool(tokenizer.is_fast),
        verbose=False,
    )
    ids = list(made["input_ids"])
    end = tokenizer.eos_token_id
    close = close and end is not None and ids[-1:] != [end] and (max_length is None or len(ids) < max_length)
    types = list(made["token_type_ids"]) if "token_type_ids" in made else None
    if not tokenizer.is_fast:
        return Row(ids + [end] * close, types, None, None)
    tokens = _tokens(texts, made["offset_mapping"], made.sequence_ids(0))
    length = sum(map(len, texts))
    tokens += [Token(length, length, True)] * close
    if parts is None:
        starts = [len("".join(texts[:number])) for number in range(len(texts))]
        parts = [Part(start, len(text)) for start, text in zip(starts, texts, strict=True)]
    return Row(ids + [end] * close, types, tokens, places(tokens, parts, length))


def _end(row: Row, max_length: int | None) -> Row:
    """Return a row cut to its last `max_length` tokens; a special token that it begins with is kept in front."""
    cut = len(row.ids) - (max_length or len(row.ids))
    if cut <= 0:
        return row
    first = 1 if row.tokens and row.tokens[0].special and cut + 1 < len(row.ids) else 0
    rest = first + cut
    return Row(
        row.ids[:first] + row.ids[rest:],
        row.types and row.types[:first] + row.types[rest:],
        row.tokens and row.tokens[:first] + row.tokens[rest:],
        row.places and row.places[:first] + row.places[rest:],
    )


def _tokens(texts: Sequence[str], offsets: Sequence[tuple[int, int]], owners: Sequence[int | None]) -> list[Token]:
    """Return what every token covers of the joined texts.

    Args:
        offsets: every token's [start, end) in its own text.
        owners: that text's number; None for special tokens, which stand before the next text, or after the last.
    """
    tokens, reached, joined = [], 0, "".join(texts)
    starts = [len("".join(texts[:number])) for number in range(len(texts))]
    for place, ((start, end), owner) in enumerate(zip(offsets, owners, strict=True)):
        if owner is None:
            upcoming = next((each for each in owners[place:] if each is not None), None)
            at = len(joined) if upcoming is None else starts[upcoming]
            tokens.append(Token(at, at, True))
        else:
            floor = max(reached, starts[owner])
            tokens.append(_with_space(joined, start + starts[owner], end + starts[owner], floor))
            reached = max(reached, tokens[-1].end)
    return tokens


def _with_space(text: str, start: int, end: int, floor: int) -> Token:
    """Return a token with the white space before it.

    Some tokenizers count that as the token's own, some leave it out, some make it a token that covers nothing.
    """
    while start > floor and text[start - 1].isspace():
        start -= 1
    if start == end >= floor and text[end : end + 1].isspace():
        end += 1
    return Token(start, end)


def _asked(tokenizer: Any, text: Rendered, row: Row) -> list[bool]:
    """Return for every token of a row whether a causal model is asked for it."""
    if text.every:
        return [True] * len(row.ids)
    if row.tokens is None:
        asked = [False] * len(row.ids)
        for span in text.asked:
            first, last = (_agreeing(tokenizer, text, row, at) for at in span)
            asked[first:last] = [True] * (last - first)
    else:
        asked = [
            not token.special and any(start < token.end <= end for start, end in text.asked) for token in row.tokens
        ]
    if text.close and row.ids[-1] == tokenizer.eos_token_id:
        asked[-1] = True
    return asked


def _agreeing(tokenizer: Any, text: Rendered, row: Row, at: int) -> int:
    """Return how many of a row's tokens lie before the character `at`, for tokenizers that give no offsets."""
    before = tokenizer(text.text[:at], add_special_tokens=text.special)["input_ids"]
    pairs = enumerate(zip(before, row.ids, strict=False))
    return next((number for number, (a, b) in pairs if a != b), min(len(before), len(row.ids)))


def padding(tokenizer: Any) -> int:
    """Return the id that short rows are padded with."""
    most = getattr(tokenizer, KNOWN, 0) or float("inf")  # a token beyond the model's has no embedding to be masked
    chosen = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return next(token for token in chosen if token is not None and token < most)


def _inputs(tokenizer: Any, rows: Sequence[Row], *, types: bool = False) -> dict[str, Tensor]:
    """Return what forward() takes, (n, T) int64 each; with token types if `types` and all rows have them."""
    _require_known(tokenizer, rows)
    if max(len(row.ids) for row in rows) == tokenizer.model_max_length:
        note(f"texts are cut at {tokenizer.model_max_length} tokens: a model has positions for no more")
    inputs = {
        "input_ids": _padded([row.ids for row in rows], padding(tokenizer)),
        "attention_mask": _padded([[1] * len(row.ids) for row in rows], 0),
    }
    known = [row.types for row in rows if row.types is not None]
    if types and len(known) == len(rows):
        inputs["token_type_ids"] = _padded(known, 0)
    return inputs


def _require_known(tokenizer: Any, rows: Sequence[Row]) -> None:
    """Refuse a token that the model has no embedding for.

    Raises:
        PortError: the tokenizer has more tokens than the model, and a text has one of them.
    """
    most = getattr(tokenizer, KNOWN, 0)
    odd = next((token for row in rows for token in row.ids if most and token >= most), None)
    if odd is not None:
        raise PortError(
            f"the token {tokenizer.convert_ids_to_tokens(odd)!r} of a text is none of the {most} that its model has: "
            "give the model as many as its tokenizer (resize_token_embeddings), or the tokenizer that it was saved with"
        )


def _padded(rows: Sequence[list[int]], value: int) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])


def _spans(name: str, rows: Sequence[Row]) -> dict[str, Spans]:
    known = [row.places for row in rows if row.places is not None]
    return {name: stack_spans(known)} if len(known) == len(rows) else {}


def _start(text: str, most: int = 40) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= most else line[:most] + "…")
