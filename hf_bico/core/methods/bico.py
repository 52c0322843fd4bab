"""BiCo: Son, Jung, Park, Baik, Bilinear Coordinate Alignment for Training-Free Task-Vector Transfer, 2605.28444."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from hf_bico.core.errors import PortError
from hf_bico.core.linalg import RTOL
from hf_bico.core.moments import Evidence
from hf_bico.core.types import BilinearMap, Fit, Map, Pair, Signal, Stream


@dataclass(frozen=True)
class BiCo:
    """A task vector is a sum of bilinear terms Gᵀ X, so it moves by aligning both sides.

    R_in is the Procrustes map of the inputs, R_out that of the output gradients, τ_B = R_out τ_A R_inᵀ.
    """

    name: ClassVar[str] = "bico"
    citation: ClassVar[str] = "arXiv:2605.28444"
    summary: ClassVar[str] = (
        "τ = fine-tuned − base is a sum of bilinear terms (output gradient × input activation). One forward–backward "
        "pass of the same samples through both bases gives two orthogonal maps a layer, and τ_B = R_out τ_A R_inᵀ is "
        "added to the new base.")
    signals: ClassVar[frozenset[Signal]] = frozenset({Signal.INPUT, Signal.OUTPUT_GRADIENT})

    rtol: float = RTOL
    """Singular values of a cross-moment below this share of its largest are undetermined, and cut."""

    def plan(self, pairs: Sequence[Pair], evidence: Evidence) -> Iterator[tuple[Pair, Map]]:
        last: dict[tuple[Stream, Stream], tuple[Tensor, Fit]] = {}
        for pair in pairs:
            streams = pair.streams(Signal.INPUT)
            if streams not in last:  # q, k and v stand side by side and share their input's map
                last = {streams: self._side(pair, evidence, Signal.INPUT)}
            right, right_fit = last[streams]
            left, left_fit = self._side(pair, evidence, Signal.OUTPUT_GRADIENT)
            yield pair, BilinearMap(left, right, left_fit, right_fit)

    def _side(self, pair: Pair, evidence: Evidence, signal: Signal) -> tuple[Tensor, Fit]:
        try:
            return evidence[pair, signal].procrustes(rtol=self.rtol)
        except ValueError as error:
            raise PortError(f"{pair.target.name}, {signal.value}: {error}") from error
