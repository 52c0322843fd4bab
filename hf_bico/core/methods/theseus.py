"""THESEUS (2602.12952): activations align both sides."""

from dataclasses import dataclass
from typing import ClassVar

from hf_bico.core.methods.two_sided import TwoSided
from hf_bico.core.types import Signal


@dataclass(frozen=True)
class Theseus(TwoSided):
    """τ_B = T_out τ_A T_inᵀ with Procrustes maps of a layer's outputs and of its inputs; no labels, no gradients.

    The paper writes T of d_A × d_B, which does not multiply; this is the form that does.
    """

    name: ClassVar[str] = "theseus"
    citation: ClassVar[str] = "arXiv:2602.12952"
    summary: ClassVar[str] = (
        "The same samples through both bases give two orthogonal maps a layer, one from what it puts out and one from "
        "what it takes in, and τ_B = T_out τ_A T_inᵀ is added to the new base. No labels, no gradients."
    )
    left: ClassVar[Signal] = Signal.OUTPUT
    right: ClassVar[Signal] = Signal.INPUT
