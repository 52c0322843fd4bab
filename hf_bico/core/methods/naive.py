"""The naive copy: add τ as it is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from hf_bico.core.moments import Evidence
from hf_bico.core.types import Map, Pair, Signal


@dataclass(frozen=True)
class Naive:
    """Task arithmetic across bases (Ilharco et al. 2023): zero-pad τ where the target is wider, crop where narrower."""

    name: ClassVar[str] = "naive"
    citation: ClassVar[str] = "arXiv:2212.04089"
    signals: ClassVar[frozenset[Signal]] = frozenset()

    def plan(self, pairs: Sequence[Pair], evidence: Evidence) -> Iterator[tuple[Pair, Map]]:
        for pair in pairs:
            a, b = pair
            yield pair, Map(torch.eye(b.d_out, a.d_out), torch.eye(b.d_in, a.d_in))
