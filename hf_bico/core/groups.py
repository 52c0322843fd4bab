"""Layers that are ported group by group, so that the statistics of one group alone are held at a time.

A method that moves τ by maps solves each of them from its own layer's statistics, so a group needs those of its layers
alone: they are collected in a pass of its own, and freed before the next group's. What two groups share (the encoder's
output that every decoder block reads) is collected for both.
"""

from collections import ChainMap
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple, Protocol

from hf_bico.core.chain import NOTHING, Resume
from hf_bico.core.low_rank import Delta
from hf_bico.core.transport import Transported
from hf_bico.core.types import INPUTS, ROWS, Pair, Signal, Site, Stream, Wanted

SUM_BYTES = 4
"""Bytes of a number of a cross-moment (float32)."""


class Crossing(NamedTuple):
    """A cross-moment (d_B, d_A), and a pair that it is of."""

    d_b: int
    d_a: int
    pair: Pair


def crossings(pairs: Sequence[Pair], wanted: Wanted) -> list[Crossing]:
    """Return the cross-moments that `Statistics` of some pairs hold."""
    found = {pair.streams(signal): pair for signal in wanted.signals & ROWS for pair in pairs}
    return [Crossing(_width(b, pair.target), _width(a, pair.base), pair) for (a, b), pair in found.items()]


def moments_bytes(pairs: Sequence[Pair], wanted: Wanted) -> int:
    """Return bytes of the cross-moments that `Statistics` of some pairs hold."""
    return sum(SUM_BYTES * d_b * d_a for d_b, d_a, _ in crossings(pairs, wanted))


def blocks(pairs: Sequence[Pair]) -> Iterator[slice]:
    """Yield the neighbouring pairs of every block: what is fused in one tensor, and a router with its experts."""
    start = 0
    for _, own in groupby(pairs, lambda pair: (pair.target.tower, pair.target.depth)):
        stop = start + len(list(own))
        yield slice(start, stop)
        start = stop


def grouped(pairs: Sequence[Pair], wanted: Wanted, limit: float) -> tuple[slice, ...]:
    """Return groups of neighbouring blocks, as few as there can be if none's cross-moments exceed `limit` bytes; a
    block that does so by itself is a group of its own.
    """
    found: list[slice] = []
    for block in blocks(pairs):
        last = slice(found[-1].start, block.stop) if found else None
        if last and moments_bytes(pairs[last], wanted) <= limit:
            found[-1] = last
        else:
            found.append(block)
    return tuple(found) or (slice(0, 0),)


class Keeping(Protocol):
    """Where the groups of a port are kept while it works, each by its name."""

    def group(self, name: str) -> Resume:
        """Return where the collection of a group's statistics left off."""
        ...

    def moved(self, name: str, like: Delta) -> Transported | None:
        """Return a group that was moved before; None if it was not.

        Args:
            like: an empty change of the same tensors.
        """
        ...

    def keep(self, name: str, part: Transported) -> Transported:
        """Return a group that was moved, as it is kept from now on."""
        ...


class _InMemory:
    """Keeps groups as they are, and nothing across interruptions."""

    def group(self, name: str) -> Resume:
        return NOTHING

    def moved(self, name: str, like: Delta) -> Transported | None:
        return None

    def keep(self, name: str, part: Transported) -> Transported:
        return part


IN_MEMORY = _InMemory()


def together(parts: Sequence[Transported]) -> Transported:
    """Return the changes of groups of layers, no two of which have a tensor in common, as one; none is copied."""
    delta = Delta(parts[0].delta.shapes)
    delta.whole = ChainMap({}, *(part.delta.whole for part in parts))
    delta.products = {key: product for part in parts for key, product in part.delta.products.items()}
    return Transported(
        delta, [each for part in parts for each in part.moved], rode=[each for part in parts for each in part.rode]
    )


def _width(stream: Stream, site: Site) -> int:
    own = site.d_in if stream.signal in INPUTS else site.d_out
    return own + (stream.signal is Signal.WEIGHTED_INPUT)
