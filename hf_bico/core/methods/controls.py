"""BiCo's ablations (the paper's table 5): one side alone, or gradients on both."""

from dataclasses import dataclass
from typing import ClassVar

from hf_bico.core.methods.two_sided import TwoSided
from hf_bico.core.types import Signal


@dataclass(frozen=True)
class InputOnly(TwoSided):
    """τ_B = τ_A R_inᵀ; outputs stay as they are."""

    name: ClassVar[str] = "input-only"
    citation: ClassVar[str] = "arXiv:2605.28444"
    summary: ClassVar[str] = "BiCo's input side alone: τ_B = τ_A R_inᵀ with the orthogonal map of the activations."
    left: ClassVar[None] = None
    right: ClassVar[Signal] = Signal.INPUT


@dataclass(frozen=True)
class OutputOnly(TwoSided):
    """τ_B = R_out τ_A; inputs stay as they are."""

    name: ClassVar[str] = "output-only"
    citation: ClassVar[str] = "arXiv:2605.28444"
    summary: ClassVar[str] = "BiCo's output side alone: τ_B = R_out τ_A with the orthogonal map of the gradients."
    left: ClassVar[Signal] = Signal.OUTPUT_GRADIENT
    right: ClassVar[None] = None


@dataclass(frozen=True)
class GradientOnly(TwoSided):
    """Gradients on both sides: R_out from ∂L/∂Y, R_in from ∂L/∂X."""

    name: ClassVar[str] = "gradient-only"
    citation: ClassVar[str] = "arXiv:2605.28444"
    summary: ClassVar[str] = (
        "BiCo with gradients on both sides: τ_B = R_out τ_A R_inᵀ, R_in from the loss's gradient "
        "at the layer's input in place of the input."
    )
    left: ClassVar[Signal] = Signal.OUTPUT_GRADIENT
    right: ClassVar[Signal] = Signal.INPUT_GRADIENT
