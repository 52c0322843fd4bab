"""GradFix (2510.09658): keep the entries of τ that the target's own gradient asks for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from hf_bico.core.errors import PortError
from hf_bico.core.gradients import agreeing
from hf_bico.core.low_rank import LowRank
from hf_bico.core.method import Method, require_same_shapes
from hf_bico.core.moments import Statistics
from hf_bico.core.types import Map, Pair, Signal, Wanted


@dataclass(frozen=True)
class Mask:
    """The map that keeps τ where its sign is that of the descent direction of the target's loss, and zeros the rest."""

    weight_gradient: Tensor
    """(d_out, d_in); only its signs are read."""
    bias_gradient: Tensor
    """(d_out,); only its signs are read."""
    output_fit: None = None
    input_fit: None = None
    scale: float = 1.0

    def weight(self, tau: Tensor) -> Tensor:
        return agreeing(tau, self.weight_gradient)

    def product(self, tau: LowRank) -> Tensor:
        """Return the masked change, dense: a mask does not preserve factors."""
        return self.weight(tau.dense())

    def bias(self, tau: Tensor) -> Tensor:
        return agreeing(tau, self.bias_gradient)

    def outputs(self, rows: Tensor) -> Tensor:
        return rows

    def inputs(self, rows: Tensor) -> Tensor:
        return rows


@dataclass(frozen=True)
class GradFix(Method):
    """τ_B = τ_A where sign τ_A = sign(−∇L_B), else 0. To first order, no entry that is kept raises the loss."""

    name: ClassVar[str] = "gradfix"
    citation: ClassVar[str] = "arXiv:2510.09658"
    summary: ClassVar[str] = (
        "τ = fine-tuned − base is added to the new base where its sign is that of the new base's "
        "own descent direction on the samples, and dropped elsewhere."
    )

    sign: Literal["mean", "vote"] = "mean"
    """Which sign counts: that of the gradient summed over the samples, or the majority of each sample's own."""

    @property
    def wanted(self) -> Wanted:
        return Wanted(frozenset({Signal.WEIGHT_GRADIENT}))

    @property
    def takes_along(self) -> bool:
        return False  # a mask is no map of coordinates

    def check(self, pairs: Sequence[Pair]) -> None:
        require_same_shapes(self.name, pairs)

    def plan(self, pairs: Sequence[Pair], seen: Statistics) -> Iterator[tuple[Pair, Map]]:
        for pair in pairs:
            own, vote = seen.gradients[pair.target.name], self.sign == "vote"
            weight, bias = (own.weight_votes, own.bias_votes) if vote else (own.weight, own.bias)
            if weight is None or bias is None:
                raise PortError(f"{pair.target.name}: there are no calibration samples")
            yield pair, Mask(weight, bias)
