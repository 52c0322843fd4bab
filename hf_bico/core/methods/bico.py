"""BiCo: Son, Jung, Park, Baik, Bilinear Coordinate Alignment for Training-Free Task-Vector Transfer, 2605.28444."""

from dataclasses import dataclass, replace
from typing import ClassVar

from hf_bico.core.errors import PortError
from hf_bico.core.method import Job, Passes, Track, untracked
from hf_bico.core.methods.path import along_path
from hf_bico.core.methods.two_sided import TwoSided
from hf_bico.core.moments import Statistics
from hf_bico.core.transport import Transported
from hf_bico.core.types import Signal, Wanted


@dataclass(frozen=True)
class BiCo(TwoSided):
    """A task vector is a sum of bilinear terms Gᵀ X, so it moves by aligning both sides.

    R_in is the Procrustes map of the inputs, R_out that of the output gradients, τ_B = R_out τ_A R_inᵀ.
    """

    name: ClassVar[str] = "bico"
    citation: ClassVar[str] = "arXiv:2605.28444"
    summary: ClassVar[str] = (
        "τ = fine-tuned − base is a sum of bilinear terms (output gradient × input activation). One forward–backward "
        "pass of the same samples through both bases gives two orthogonal maps a layer, and τ_B = R_out τ_A R_inᵀ is "
        "added to the new base."
    )
    left: ClassVar[Signal] = Signal.OUTPUT_GRADIENT
    right: ClassVar[Signal] = Signal.INPUT

    weighted: bool = False
    """Not in the paper: weight both sides' rows as `Best` says, and subtract the inputs' weighted mean."""
    label_free: int = 0
    """Not in the paper: in place of the loss's gradient, use this many random cotangents per sample on scores that do
    not depend on the task (a bank of general prompts); 0 is the paper's loss."""
    steps: int = 1
    """Not in the paper: carry τ in this many equal steps, with maps estimated anew at each."""

    views: int = 0
    """Not in the paper: how often the samples are seen again, changed a little; the time grows with it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.label_free < 0:
            raise PortError(f"label_free = {self.label_free}: give a number of draws, 0 or more")
        if self.views < 0:
            raise PortError(f"views = {self.views}: give 0 or more")
        if self.steps < 1:
            raise PortError(f"steps = {self.steps}: give 1 or more")
        if self.weighted and self.label_free:
            raise PortError("weighted needs the loss, which label_free does without: give one of the two")

    @property
    def sides(self) -> tuple[Signal, Signal]:
        left, right = (Signal.WEIGHTED_GRADIENT, Signal.WEIGHTED_INPUT) if self.weighted else (self.left, self.right)
        return (Signal.LABEL_FREE_GRADIENT if self.label_free else left), right

    @property
    def wanted(self) -> Wanted:
        return replace(super().wanted, draws=self.label_free, views=self.views)

    @property
    def why_not_storable(self) -> str | None:
        return None if self.steps == 1 else f"with steps = {self.steps} they are estimated anew on the way of every τ"

    @property
    def by_layer(self) -> bool:
        return self.steps == 1

    def passes(self, a: float, b: float) -> Passes:
        return replace(super().passes(a, b), moving=self.steps - 1, solved=self.steps)

    def carry(self, job: Job, seen: Statistics, track: Track = untracked) -> Transported:
        return super().carry(job, seen, track) if self.steps == 1 else along_path(self, job, seen, self.steps, track)
