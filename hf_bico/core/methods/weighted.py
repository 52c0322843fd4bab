"""BiCo with weighted tokens; not from a paper."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from hf_bico.core.methods.bico import BiCo
from hf_bico.core.moments import Statistics
from hf_bico.core.types import BilinearMap, Pair


@dataclass(frozen=True)
class Weighted(BiCo):
    """BiCo with every token weighted by how much it contributes.

    A task vector is a sum of terms g xᵀ. In Σ g_B g_Aᵀ a token counts by its squared gradient, so that a few samples
    that the base gets wrong decide the map, and the length of the input that the gradient meets does not matter. In
    Σ x_B x_Aᵀ all tokens count alike, even those that the loss never looks at, and what all inputs have in common
    counts most. Here, with ĝ = g/‖g‖ and μ the weighted mean of x:

        R_out = polar(Σ w_B w_A ĝ_B ĝ_Aᵀ)                        w = √‖g‖ ‖x‖
        R_in  = polar(Σ w_B w_A (x_B − μ_B)(x_A − μ_A)ᵀ)         w = √‖∂L/∂x‖

    Where B is deeper, so that a layer of A hands over to m layers of B, each gets 1/√m of its change, which keeps ‖τ‖
    over all of B what it was.

    The cost is BiCo's: one forward–backward pass, the same maps to solve. docs/results_methods.md has the gains and
    what else was tried.
    """

    name: ClassVar[str] = "weighted"
    citation: ClassVar[str] = "after arXiv:2605.28444"
    summary: ClassVar[str] = (
        "τ = fine-tuned − base is a sum of bilinear terms (output gradient × input activation). One forward–backward "
        "pass of the same samples through both bases gives two orthogonal maps a layer, R_out from the gradients and "
        "R_in from the activations about their mean. Other than in the paper, tokens are weighted, by √‖g‖ ‖x‖ for "
        "R_out and √‖∂L/∂x‖ for R_in, and a layer that hands over to m layers gives each 1/√m; τ_B = R_out τ_A R_inᵀ "
        "is added to the new base."
    )

    centred: bool = True
    weighted: bool = True

    def plan(self, pairs: Sequence[Pair], seen: Statistics) -> Iterator[tuple[Pair, BilinearMap]]:
        return self.share(pairs, seen, slice(None))

    def share(self, pairs: Sequence[Pair], seen: Statistics, which: slice) -> Iterator[tuple[Pair, BilinearMap]]:
        heirs = Counter(base.name for base, _ in pairs)
        for pair, map_ in super().plan(pairs[which], seen):
            yield pair, replace(map_, scale=heirs[pair.base.name] ** -0.5)
