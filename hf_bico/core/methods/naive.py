"""The naive copy: add τ as it is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from hf_bico.core.low_rank import LowRank
from hf_bico.core.method import Method
from hf_bico.core.moments import Statistics
from hf_bico.core.types import Map, Pair, Wanted


@dataclass(frozen=True)
class Padding:
    """The map that pads with zeros where the target is wider, and crops where it is narrower."""

    d_out: int
    d_in: int
    output_fit: None = None
    input_fit: None = None
    scale: float = 1.0

    def weight(self, tau: Tensor) -> Tensor:
        d_out, d_in = tau.shape[-2:]
        return F.pad(tau, (0, self.d_in - d_in, 0, self.d_out - d_out))

    def product(self, tau: LowRank) -> LowRank:
        return LowRank(F.pad(tau.b, (0, 0, 0, self.d_out - tau.shape[0])), F.pad(tau.a, (0, self.d_in - tau.shape[1])))

    def bias(self, tau: Tensor) -> Tensor:
        return F.pad(tau, (0, self.d_out - len(tau)))

    def outputs(self, rows: Tensor) -> Tensor:
        return F.pad(rows, (0, self.d_out - rows.shape[-1]))

    def inputs(self, rows: Tensor) -> Tensor:
        return F.pad(rows, (0, self.d_in - rows.shape[-1]))


@dataclass(frozen=True)
class Naive(Method):
    """Task arithmetic across bases (Ilharco et al. 2023): zero-pad τ where the target is wider, crop where narrower."""

    name: ClassVar[str] = "naive"
    citation: ClassVar[str] = "arXiv:2212.04089"
    summary: ClassVar[str] = (
        "τ = fine-tuned − base is added to the new base as it is, zero-padded where that is "
        "wider and cropped where it is narrower."
    )

    @property
    def wanted(self) -> Wanted:
        return Wanted()

    def plan(self, pairs: Sequence[Pair], seen: Statistics) -> Iterator[tuple[Pair, Map]]:
        for pair in pairs:
            yield pair, Padding(pair.target.d_out, pair.target.d_in)
