"""How similar the blocks of two models are (linear CKA from streamed sums), and the layer matching that follows."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from hf_bico.core.chain import fill
from hf_bico.core.collect import Batch, Side
from hf_bico.core.errors import PortError
from hf_bico.core.moments import CrossMoment, Held, Statistics
from hf_bico.core.types import Pair, Signal, Site, Stream, Wanted

MEMORY = 2 * 2**30
"""Bytes of cross-moments held at once. All of them take 4 L_A L_B d_A d_B; where that is more, they are collected in
several passes over the samples, some blocks of B at a time (at least one: 4 L_A d_A d_B bytes)."""
NOTHING = 1e-6
"""Where centring leaves less of a moment than this share of what it subtracted, the rest is rounding."""


class Grams(Statistics):
    """Sums over the inputs of A's and B's blocks: Σ b aᵀ for every pair, Σ a aᵀ and Σ b bᵀ for every block.

    All are over the same rows: A's are resized to B's where the token counts differ, so that no CKA leaves [0, 1].
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        super().__init__(pairs, Wanted(frozenset({Signal.INPUT})))
        # A block's own Gram matrix is added to once a batch: when the block meets the first of its partners.
        self._first_b = dict(reversed(self._moments))
        self._first_a = {b: a for a, b in reversed(self._moments)}
        self._own_a: dict[Stream, CrossMoment] = defaultdict(CrossMoment)
        self._own_b: dict[Stream, CrossMoment] = defaultdict(CrossMoment)

    def add(self, a: Stream, b: Stream, held: Held, rows_b: Tensor, meeting: Mapping[str, Tensor]) -> None:
        super().add(a, b, held, rows_b, meeting)
        rows_a, resample = held.rows, self.meets(a, b, held.tokens, rows_b.shape[1], meeting)
        if resample is not None:
            resample = resample.to(rows_a)
            rows_a, rows_b = resample @ rows_a, rows_b * resample.any(-1).expand(rows_b.shape[:2])[..., None]
        if self._first_b[a] == b:
            self._own_a[a].add(rows_a, rows_a)
        if self._first_a[b] == a:
            self._own_b[b].add(rows_b, rows_b)

    def cka(self, pair: Pair) -> float:
        """Return the linear CKA ‖X_BᵀX_A‖² / (‖X_AᵀX_A‖ ‖X_BᵀX_B‖) of a pair's centred inputs.

        It is 0 where either side does not vary over the rows. Kornblith et al. 2019, 1905.00414, eq. 3.
        """
        a, b = pair.streams(Signal.INPUT)
        cross = self[pair, Signal.INPUT]
        norms = []
        for moment in (cross, self._own_a[a], self._own_b[b]):
            left = replace(moment, rows=cross.rows).centred()  # an own moment's `rows` counts padding too
            assert left.cross is not None  # a centred moment has one
            norm = float(left.cross.norm())
            norms.append(norm if norm > NOTHING * left.removed else 0.0)
        return norms[0] ** 2 / (norms[1] * norms[2]) if norms[1] and norms[2] else 0.0


def block_inputs(sites: Iterable[Site], tower: str) -> list[Site]:
    """Return the first site of every block of a tower, in order of depth: what it reads is the block's input."""
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
    """Return the linear CKA between the inputs of every block of B and of A, (L_B, L_A); forward passes only.

    Args:
        sites: all of A's and all of B's.
        batches: () → the samples; called once a pass.
        memory: bytes, see `MEMORY`; the number of passes follows from it, the result does not.

    Raises:
        PortError: either model has no blocks in this tower, there are no samples, a NaN came up, or token layouts do
            not match.
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
    """Yield B's blocks, as many at a time as `memory` has room for their moments, at least one."""
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
    """Return for every row (block of B) a column (block of A), never decreasing, with the largest sum; of equals the
    smallest.

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
