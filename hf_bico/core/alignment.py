"""Which rows of two models meet when their tokenizers cut the same text differently: those that share characters.

Positions are counted in places, not characters. The text that both models are shown has one or more parts (the two of
a pair, the messages of a chat). Before every part and after the last is a gap, one character wide, for special tokens
and for what a chat template writes. So whatever stands before, between or after the parts meets its like: CLS meets
BOS, SEP meets EOS, and none of them ever meets text. A character is `PLACES` wide; the tokens in a gap or in one
character (bytes) divide it among them.

In a causal model a token's row has read all of the token's characters and predicts the next ones. Where B's token ends
inside a longer token of A, A's row has read more than B's: it is the first that has read everything B's has.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

PLACES = 720_720
"""Places in a character: divisible by every number of tokens from 1 to 16."""


class Spans(NamedTuple):
    """The places [start, end) that every token covers, (n, T) each; `mask` is true where it covers any (no padding)."""

    start: Tensor
    end: Tensor
    mask: Tensor

    def to(self, device: torch.device | str) -> "Spans":
        return Spans(*(tensor.to(device) for tensor in self))


class Token(NamedTuple):
    """The characters [start, end) of a sample's text that a token covers; a special token stands before `start`."""

    start: int
    end: int
    special: bool = False


class Part(NamedTuple):
    """A stretch of the text that both models are shown; `start` is None where this model's template left it out."""

    start: int | None
    length: int
    width: int | None = None
    """How many characters it counts for, where models write it in different lengths (an image); None: its length."""


def meeting(a: Spans, b: Spans) -> Tensor:
    """Return P (n, T_B, T_A), float32: a token of B takes the weighted mean of A's rows that cover the same characters.

    The weights are proportional to the shared characters and sum to 1; a row that meets none is zero.
    """
    start = torch.maximum(b.start[:, :, None], a.start[:, None])
    end = torch.minimum(b.end[:, :, None], a.end[:, None])
    shared = (end - start).clamp_min(0) * (b.mask[:, :, None] & a.mask[:, None])
    total = shared.sum(-1, keepdim=True)
    return shared.float() / total.clamp_min(1)


def same(a: Spans, b: Spans) -> bool:
    """Return whether every token of A meets its twin and no other: `meeting` is the identity on the mask."""
    return (
        a.mask.shape == b.mask.shape
        and torch.equal(a.mask, b.mask)
        and all(torch.equal(x * a.mask, y * a.mask) for x, y in zip(a[:2], b[:2], strict=True))
    )


def stack_spans(rows: Sequence[Sequence[tuple[int, int]]]) -> Spans:
    """Return the samples' places as (n, T) int64 tensors, padded on the right with (0, 0)."""
    width = max(map(len, rows), default=0)
    both = torch.tensor([[*row, *[(0, 0)] * (width - len(row))] for row in rows], dtype=torch.long)
    start, end = both.reshape(len(rows), width, 2).unbind(-1)
    return Spans(start, end, end > start)


def places(tokens: Sequence[Token], parts: Sequence[Part], length: int) -> list[tuple[int, int]]:
    """Return the places [start, end) of a sample's tokens; (0, 0) for a token that covers nothing.

    Args:
        parts: in order.
        length: of the text, in characters.
    """
    specials = sorted(token.start for token in tokens if token.special)
    spans, passed = [], 0
    for token in tokens:
        if token.special:  # a character of its own
            spans.append((token.start + passed, token.start + passed + 1))
            passed += 1
        else:
            spans.append(_opened(specials, token.start, token.end))
    scale = _stretches(specials, parts, length)
    return [_scaled(scale, *span) for span in _divided(spans)]


def _opened(specials: Sequence[int], start: int, end: int) -> tuple[int, int]:
    """Return where characters [start, end) lie once every special token has a character of its own in the text."""
    return start + bisect_right(specials, start), end + bisect_left(specials, end)


def _divided(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the spans in places; tokens that share a character (its bytes, say) each get a part of it, in order."""
    owners = defaultdict(list)
    for number, span in enumerate(spans):
        for character in range(*span):
            owners[character].append(number)

    def edge(number: int, character: int, side: int) -> int:
        own = owners[character]
        return PLACES * character + PLACES * (own.index(number) + side) // len(own)

    return [
        (edge(number, start, 0), edge(number, end - 1, 1)) if start < end else (0, 0)
        for number, (start, end) in enumerate(spans)
    ]


def _stretches(specials: Sequence[int], parts: Sequence[Part], length: int) -> list[tuple[int, int, int, int]]:
    """Return stretches [from, to) → [place, place): parts keep their width, what lies between is a character wide."""
    found, reached, base = [], 0, PLACES
    for part in parts:
        if part.start is not None and part.length:
            start, end = (PLACES * x for x in _opened(specials, part.start, part.start + part.length))
            wide = part.length if part.width is None else part.width
            found += [(reached, start, base - PLACES, base), (start, end, base, base + PLACES * wide)]
            reached = end
        base += PLACES * ((part.length if part.width is None else part.width) + 1)
    found.append((reached, PLACES * (length + len(specials)), base - PLACES, base))
    return [stretch for stretch in found if stretch[0] < stretch[1]]


def _scaled(stretches: Sequence[tuple[int, int, int, int]], start: int, end: int) -> tuple[int, int]:
    """Return [start, end) moved to the places that its stretches are mapped to; (0, 0) if it is empty."""
    if start >= end:
        return 0, 0
    ends = [stretch[1] for stretch in stretches]

    def at(position: int, number: int) -> int:
        low, high, first, last = stretches[number]
        return first + (position - low) * (last - first) // (high - low)

    return at(start, bisect_right(ends, start)), at(end, bisect_left(ends, end))
