"""B's own weight gradients, for methods that ask which way the target would go by itself."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor


def merge_sums(mine: Any, theirs: Any) -> None:
    """Add the `SUMS` of `theirs` to those of `mine`, in place; a tensor that nothing was added to yet is None."""
    for name in mine.SUMS:
        old, new = getattr(mine, name), getattr(theirs, name)
        if isinstance(new, Tensor):
            setattr(mine, name, new.clone() if old is None else old.to(new).add_(new))
        elif new is not None:
            setattr(mine, name, old + new)


@dataclass
class WeightGradient:
    """Sums over the samples, for one site: ∂L/∂W = Gᵀ X and ∂L/∂b = Gᵀ 1, and each sample's signs of them."""

    SUMS: ClassVar = ("weight", "weight_votes", "bias", "bias_votes")

    weight: Tensor | None = None
    """(d_out, d_in)"""
    weight_votes: Tensor | None = None
    """(d_out, d_in): samples with a positive sign less those with a negative one."""
    bias: Tensor | None = None
    """(d_out,)"""
    bias_votes: Tensor | None = None
    """(d_out,)"""

    def add(self, x: Tensor, g: Tensor) -> None:
        """Add a batch's rows: x (n, T, d_in), g (n, T, d_out)."""
        for rows_x, rows_g in zip(x, g, strict=True):
            weight, bias = rows_g.T @ rows_x, rows_g.sum(0)
            self.merge(WeightGradient(weight, weight.sign(), bias, bias.sign()))

    def merge(self, other: "WeightGradient") -> None:
        """Add other samples' sums."""
        merge_sums(self, other)


def agreeing(tau: Tensor, gradient: Tensor) -> Tensor:
    """Return τ where its sign is that of −gradient, zero elsewhere; all of one shape."""
    return torch.where(tau.sign() == -gradient.to(tau).sign(), tau, 0)
