"""How alike the blocks of two models are, from streamed Gram sums, and the matching of blocks that follows from it."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from hf_bico.core.chain import fill
from hf_bico.core.collect import Batch, Side
from hf_bico.core.errors import PortError
from hf_bico.core.moments import CrossMoment, Statistics
from hf_bico.core.types import Pair, Signal, Site, Stream, Wanted

MEMORY = 2 * 2**30
"""Bytes of cross-moments held at once. All of them take 4 L_A L_B d_A d_B; where that is more, they are collected in
several passes over the samples, some blocks of B at a time (one at least: 4 L_A d_A d_B bytes)."""
NOTHING = 1e-6
"""Share of its uncentred norm below which what centring leaves of a moment is rounding."""


class Grams(Statistics):
    """The inputs of blocks of A and of B: Σ b aᵀ for every two, and Σ a aᵀ, Σ b bᵀ for either, over the same rows.

    A's rows are taken as B's meet them, resized where the token counts differ, so that no CKA leaves [0, 1].
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        super().__init__(pairs, Wanted(frozenset({Signal.INPUT})))
        # A block's own Gram matrix grows where it meets the first of its partners, once a batch.
        self._first_b = dict(reversed(self._moments))
        self._first_a = {b: a for a, b in reversed(self._moments)}
        self._own_a: dict[Stream, CrossMoment] = defaultdict(CrossMoment)
        self._own_b: dict[Stream, CrossMoment] = defaultdict(CrossMoment)

    def add(self, a: Stream, b: Stream, rows_a: Tensor, rows_b: Tensor, meeting: Mapping[str, Tensor]) -> None:
        super().add(a, b, rows_a, rows_b, meeting)
        resample = self.meets(a, b, rows_a.shape[1], rows_b.shape[1], meeting)
        if resample is not None:
            resample = resample.to(rows_a)
            rows_a, rows_b = resample @ rows_a, rows_b * resample.any(-1).expand(rows_b.shape[:2])[..., None]
        if self._first_b[a] == b:
            self._own_a[a].add(rows_a, rows_a)
        if self._first_a[b] == a:
            self._own_b[b].add(rows_b, rows_b)

    def cka(self, pair: Pair) -> float:
        """Return linear CKA ‖X_BᵀX_A‖² / (‖X_AᵀX_A‖ ‖X_BᵀX_B‖) of centred features; Kornblith et al. 2019,
        1905.00414, eq. 3.

        0 where either side does not vary over the rows.
        """
        a, b = pair.streams(Signal.INPUT)
        cross = self[pair, Signal.INPUT]
        norms = []
        for moment in (cross, self._own_a[a], self._own_b[b]):
            left = replace(moment, rows=cross.rows).centred()  # rows that are padding are in an own moment's count
            assert left.cross is not None  # what is centred has one
            norm = float(left.cross.norm())
            norms.append(norm if norm > NOTHING * left.removed else 0.0)
        return norms[0] ** 2 / (norms[1] * norms[2]) if norms[1] and norms[2] else 0.0


def block_inputs(sites: Iterable[Site], tower: str) -> list[Site]:
    """Return the first site of every block of a tower: what it reads is the block's input."""
    first: dict[int, Site] = {}
    for site in sites:
        if site.tower == tower and site.depth is not None:
            first.setdefault(site.depth, site)
    return [first[depth] for depth in sorted(first)]


def cka_matrix(
    base: Side,
    target: Side,
    sites: tuple[Iterable[Site], Iterable[Site]],
    tower: str,
    batches: Callable[[], Iterable[Batch]],
    *,
    memory: int = MEMORY,
) -> np.ndarray:
    """Return (L_B, L_A): linear CKA between the inputs of every block of B and every block of A; forward passes only.

    Args:
        sites: all of A's and all of B's.
        batches: the samples, as often as they are asked for: once a pass.
        memory: see `MEMORY`; how it is split changes nothing.

    Raises:
        PortError: either model has no blocks in this tower, there are no samples, a NaN, or token layouts that do not
            match.
    """
    of_a, of_b = (block_inputs(each, tower) for each in sites)
    if not of_a or not of_b:
        raise PortError(f"there are no blocks to compare{f' in tower {tower!r}' if tower else ''}")
    rows = []
    for some in _chunks(of_a, of_b, memory):
        pairs = [Pair(a, b) for b in some for a in of_a]
        grams = Grams(pairs)
        fill(grams, base, target, pairs, batches())
        if grams[pairs[0], Signal.INPUT].cross is None:
            raise PortError("there are no samples to compare blocks on")
        rows += [[grams.cka(Pair(a, b)) for a in of_a] for b in some]
    return np.array(rows)


def _chunks(of_a: Sequence[Site], of_b: Sequence[Site], memory: int) -> Iterator[list[Site]]:
    """Yield B's blocks, as many at a time as `memory` holds the moments of."""
    chunk: list[Site] = []
    held = 0
    for b in of_b:
        size = sum(4 * b.d_in * a.d_in for a in of_a)
        if chunk and held + size > memory:
            yield chunk
            chunk, held = [], 0
        chunk.append(b)
        held += size
    yield chunk


def monotone_path(matrix: np.ndarray) -> tuple[int, ...]:
    """Return for every row (block of B) a column (of A), never falling, with the largest sum; of equals the smallest.

    best[l, k] = matrix[l, k] + max_{j ≤ k} best[l − 1, j], row by row.
    """
    best = np.array(matrix, dtype=np.float64)
    for l in range(1, len(best)):
        best[l] += np.maximum.accumulate(best[l - 1])
    path, last = [], best.shape[1]
    for row in best[::-1]:
        k = int(row[:last].argmax())
        path.append(k)
        last = k + 1
    return tuple(reversed(path))
