"""B's own weight gradients, for the rivals that ask which way the target would go by itself."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class WeightGradient:
    """Sums over samples of one site: of ∂L/∂W = Gᵀ X and ∂L/∂b = Gᵀ 1, and of their signs, sample by sample."""

    weight: Tensor | None = None
    """(d_out, d_in)"""
    weight_votes: Tensor | None = None
    bias: Tensor | None = None
    """(d_out,)"""
    bias_votes: Tensor | None = None

    def add(self, x: Tensor, g: Tensor) -> None:
        """Add a batch's rows: x (n, T, d_in), g (n, T, d_out)."""
        for rows_x, rows_g in zip(x, g, strict=True):
            weight, bias = rows_g.T @ rows_x, rows_g.sum(0)
            self.merge(WeightGradient(weight, weight.sign(), bias, bias.sign()))

    def merge(self, other: "WeightGradient") -> None:
        for name, theirs in vars(other).items():
            mine = getattr(self, name)
            if theirs is not None:
                setattr(self, name, theirs.clone() if mine is None else mine.to(theirs).add_(theirs))


def agreeing(tau: Tensor, gradient: Tensor) -> Tensor:
    """τ where its sign is that of −gradient, zero elsewhere; same shapes."""
    return torch.where(tau.sign() == -gradient.to(tau).sign(), tau, 0)
