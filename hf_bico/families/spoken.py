"""Encodes what is said in sounds: the letters that CTC spells, and the text that a decoder writes."""

from collections.abc import Sequence
from typing import Any

import torch

from hf_bico.core.errors import PortError, setting
from hf_bico.families.feeding import LABELS, UNASKED, Encoded, Row, _limit, _padded, _require_known, _row, _spans
from hf_bico.families.protocol import Loaded

UNKNOWN = 0.5
"""The share of a transcription's letters that a vocabulary may lack."""


def letters_of(side: Loaded, tokenizer: Any, texts: Sequence[str]) -> tuple[torch.Tensor, list[str]]:
    """Return the letters of texts, (n, L), -100 behind the last, and the texts as these letters spell them.

    Raises:
        PortError: a text has letters that the vocabulary lacks, more than half of them; or it has a letter that the
            model has no score for.
    """
    rows = [list(tokenizer(text)["input_ids"]) for text in texts]
    known = int(side.model.config.vocab_size)  # type: ignore[union-attr, arg-type]
    for number, (row, text) in enumerate(zip(rows, texts, strict=True)):
        unknown = sum(letter == tokenizer.unk_token_id for letter in row)
        if not row or unknown > UNKNOWN * len(row):
            some = "".join(sorted({*tokenizer.get_vocab()} - {*tokenizer.all_special_tokens}))[:30]
            raise PortError(
                f"sample {number} has the transcription {text[:40]!r}, whose letters the model's vocabulary ({some} …) "
                "lacks: write them as it was trained on them, in capitals or not"
            )
        if max(row) >= known:
            raise PortError(
                f"sample {number} has the letter {tokenizer.convert_ids_to_tokens(max(row))!r}, and the model has "
                f"{known}: give it the tokenizer that it was trained with"
            )
    spelled = [tokenizer.decode(row, group_tokens=False) for row in rows]
    return _padded(rows, UNASKED), spelled


def encode_spoken(
    side: Loaded, tokenizer: Any, texts: Sequence[str], max_length: int | None, inputs: dict[str, torch.Tensor]
) -> Encoded:
    """Return sounds with the text that the decoder is asked to write as labels, without the token that it begins with;
    the notes are the special tokens that stand before each text.

    Args:
        inputs: the sounds.

    Raises:
        PortError: the tokenizer is a slow one, which does not say where its tokens lie; a text is cut to nothing.
    """
    start, most = int(side.model.config.decoder_start_token_id), room_of(side.model.config)  # type: ignore
    limit = _limit(tokenizer, min(most, max_length or most))
    rows = [_begun(_row(tokenizer, (text,), limit, target=True), start) for text in texts]
    _require_known(tokenizer, rows)
    if any(row.tokens is None for row in rows):
        raise PortError(
            "a slow tokenizer does not say where in a text a token lies, by which the texts of two models meet: add a "
            "tokenizer.json to its repo"
        )
    for number, (row, text) in enumerate(zip(rows, texts, strict=True)):
        if text.strip() and all(token.special for token in row.tokens or ()):
            raise PortError(
                f"sample {number} ({text[:40]!r}) has nothing left to write in its first {limit} tokens: give a larger "
                f"{setting('max_length')}"
            )
    return Encoded(
        inputs, _padded([row.ids for row in rows], UNASKED), _spans(LABELS, rows), [_before(row) for row in rows]
    )


def room_of(config: Any) -> int:
    """Return the most tokens that a decoder has positions for."""
    return int(getattr(config, "max_target_positions", None) or config.max_position_embeddings)


def _begun(row: Row, start: int) -> Row:
    """Return a row without the decoder's first token, which its labels lack."""
    if row.ids[:1] != [start]:
        return row
    return Row(row.ids[1:], None, row.tokens and row.tokens[1:], row.places and row.places[1:])


def _before(row: Row) -> list[int]:
    """Return the special tokens before a row's text."""
    special = [bool(token.special) for token in row.tokens or ()]
    return row.ids[: special.index(False)] if False in special else []
