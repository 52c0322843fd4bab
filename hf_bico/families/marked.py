"""Encodes texts in which something is marked: a class for every word, the answer to a question, or hidden words.

Labels are aligned with the tokens, as transformers' own examples align them.
"""

import random
import re
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from hf_bico.core.alignment import Part, Token, places
from hf_bico.core.errors import PortError
from hf_bico.families.feeding import (
    TEXT,
    UNASKED,
    Encoded,
    Row,
    Sample,
    Span,
    _inputs,
    _limit,
    _padded,
    _row,
    _spans,
    _texts,
    _tokens,
)


def encode_words(tokenizer: Any, samples: Sequence[Sample], max_length: int | None) -> Encoded:
    """Encode lists of words, with the class of a word as label of its first token; all others are -100.

    Raises:
        PortError: the tokenizer is a slow one, which does not say which word a token is of.
    """
    max_length = _limit(tokenizer, max_length)
    rows, labels = [], []
    for sample in samples:
        row, owners = _row_of_words(tokenizer, sample.inputs, max_length)
        first = [word is not None and word not in owners[:place] for place, word in enumerate(owners)]
        rows.append(row)
        if sample.label is not None:
            labels.append([sample.label[word] if new else UNASKED for word, new in zip(owners, first, strict=True)])
    return Encoded(
        _inputs(tokenizer, rows, types=True), _padded(labels, UNASKED) if labels else None, _spans(TEXT, rows)
    )


def _row_of_words(tokenizer: Any, words: list[str], max_length: int | None) -> tuple[Row, list[int | None]]:
    """Return words as one row, and the number of the word that every token is of; None for special tokens."""
    if not tokenizer.is_fast:
        raise PortError(
            "a slow tokenizer does not say which word a token is of, which tags of words need: add a tokenizer.json to "
            "its repo"
        )
    made = tokenizer(
        words,
        is_split_into_words=True,
        truncation=max_length is not None,
        max_length=max_length,
        return_offsets_mapping=True,
        verbose=False,
    )
    owners = made.word_ids(0)
    tokens = _tokens(words, made["offset_mapping"], owners)
    length = sum(map(len, words))
    types = list(made["token_type_ids"]) if "token_type_ids" in made else None
    return Row(list(made["input_ids"]), types, tokens, places(tokens, [Part(0, length)], length)), owners


class Context(NamedTuple):
    """Where the tokens of a context lie in it, and the right answers."""

    text: str
    tokens: Sequence[Span | None]
    """What every token of the row covers of it; None for those outside."""
    answers: tuple[Span, ...]
    """Empty where the text has none."""


def encode_spans(tokenizer: Any, samples: Sequence[Sample], max_length: int | None) -> Encoded:
    """Encode a question and its context, with the first and last token of the first answer as labels (n, 2); both are
    the first token, as for SQuAD 2, where the context has no answer or is cut before its end. The notes are a
    `Context` of every sample.

    Raises:
        PortError: a sample is no pair of texts, or the tokenizer is a slow one, which does not say where tokens lie.
    """
    max_length = _limit(tokenizer, max_length)
    rows, labels, notes = [], [], []
    for number, sample in enumerate(samples):
        question, context = _texts(sample, number)
        row = _row(tokenizer, (question, context), max_length)
        if row.tokens is None:
            raise PortError(
                "a slow tokenizer does not say where in a text a token lies, which answers need: add a tokenizer.json "
                "to its repo"
            )
        inside = [_inside(token, len(question)) for token in row.tokens]
        rows.append(row)
        notes.append(Context(context, inside, sample.label or ()))
        labels.append(_ends(inside, sample.label[0]) if sample.label else (0, 0))
    asked = torch.tensor(labels) if samples[0].label is not None else None
    return Encoded(_inputs(tokenizer, rows, types=True), asked, _spans(TEXT, rows), notes)


def _inside(token: Token, start: int) -> Span | None:
    """Return what a token covers of the text that begins at `start`; None if it is before that, or special."""
    return None if token.special or token.end <= start else Span(max(token.start - start, 0), token.end - start)


def _ends(tokens: Sequence[Span | None], answer: Span) -> tuple[int, int]:
    """Return the first and the last token that an answer is in; (0, 0) if the text is cut before its end."""
    own = [
        place
        for place, token in enumerate(tokens)
        if token is not None and token.start < answer.end and answer.start < token.end
    ]
    covered = bool(own) and all(
        any(t is not None and t.start <= at < t.end for t in tokens) for at in (answer.start, answer.end - 1)
    )
    return (own[0], own[-1]) if covered else (0, 0)


HIDDEN = 0.15
"""The share of words that are hidden, as in BERT's training."""


def encode_hidden(tokenizer: Any, samples: Sequence[Sample], max_length: int | None) -> Encoded:
    """Encode texts or pairs with some words hidden, all tokens of each, so that models that cut words differently are
    asked for the same ones; the labels are the tokens that were there, -100 elsewhere. The notes are, of every sample,
    the number of the hidden word that every token is of, None for all others.

    The words are drawn by the text: the same at every call.

    Raises:
        PortError: the tokenizer is a slow one, or has no token that hides.
    """
    if tokenizer.mask_token_id is None:
        raise PortError("the tokenizer has no mask token, so no word can be hidden: add one to its repo")
    max_length = _limit(tokenizer, max_length)
    rows, labels, notes = [], [], []
    for number, sample in enumerate(samples):
        texts = _texts(sample, number)
        row = _row(tokenizer, texts, max_length)
        if row.tokens is None:
            raise PortError(
                "a slow tokenizer does not say which word a token is of, which hidden words need: add a tokenizer.json "
                "to its repo"
            )
        words = _drawn("".join(texts), texts)
        owners = [_owner(token, words) for token in row.tokens]
        hidden = [
            token if owner is None else tokenizer.mask_token_id for token, owner in zip(row.ids, owners, strict=True)
        ]
        rows.append(row._replace(ids=hidden))
        labels.append([UNASKED if owner is None else token for token, owner in zip(row.ids, owners, strict=True)])
        notes.append(owners)
    return Encoded(_inputs(tokenizer, rows, types=True), _padded(labels, UNASKED), _spans(TEXT, rows), notes)


def _drawn(joined: str, texts: Sequence[str]) -> list[Span]:
    """Return the words of texts that are hidden, in places of the joined text: `HIDDEN` of them, and one at least."""
    words, start = [], 0
    for text in texts:
        words += [Span(start + found.start(), start + found.end()) for found in re.finditer(r"\S+", text)]
        start += len(text)
    chosen = random.Random(zlib.crc32(joined.encode("utf-8", "surrogatepass")))
    return sorted(chosen.sample(words, max(1, round(HIDDEN * len(words)))))


def _owner(token: Token, words: Sequence[Span]) -> int | None:
    """Return the number of the word that a token is of; None if it is of none, or special."""
    if token.special:
        return None
    return next((i for i, word in enumerate(words) if token.start < word.end and word.start < token.end), None)
