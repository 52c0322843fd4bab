"""Least squares in closed form: a classifier, and a layer's change."""

from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

PENALTIES = torch.logspace(-4, 4, 17)
"""Ridge penalties to try, as multiples of the mean σ² of the centred features' singular values σ."""


def ridge_classifier(x: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return W (K, d) and b (K,), float32, of the ridge classifier of features x (n, d) with labels (n,).

    Targets are 1 for the class and 0 else, less their mean; the penalty on ‖W‖² is the one with the least squared
    leave-one-out error, all of them from one SVD (Golub, Heath, Wahba 1979). Logits are scaled so that a sample's
    largest is on average log K + 2 above their mean: about as confident as a fine-tuned head.

    Args:
        classes: K.

    Raises:
        ValueError: the features are all alike.
    """
    x = x.double()
    y = torch.nn.functional.one_hot(labels, classes).double()
    mean_x, mean_y = x.mean(0), y.mean(0)
    u, sigma, vt = torch.linalg.svd(x - mean_x, full_matrices=False)
    if not sigma[0] > 0:
        raise ValueError("the features of all samples are alike")
    uy = u.T @ (y - mean_y)
    penalties = PENALTIES.double() * sigma.square().mean()
    shrunk = [sigma.square() / (sigma.square() + penalty) for penalty in penalties]
    errors = [_left_out(u, uy, y - mean_y, shares) for shares in shrunk]
    best = shrunk[int(torch.stack(errors).argmin())]
    weight = ((vt.T * (best / sigma.clamp_min(1e-300))) @ uy).T
    logits = (x - mean_x) @ weight.T
    spread = (logits.amax(-1) - logits.mean(-1)).mean().clamp_min(1e-12)
    scale = (torch.tensor(float(classes)).log() + 2) / spread
    weight = scale * weight
    bias = scale * mean_y - weight @ mean_x
    return weight.float(), bias.float()


def _left_out(u: Tensor, uy: Tensor, y: Tensor, shares: Tensor) -> Tensor:
    """Return the summed squared error of every sample under the classifier fitted to all others.

    The mean counts as one more direction in the leverage.
    """
    fitted = u @ (shares[:, None] * uy)
    leverage = (u.square() * shares).sum(-1) + 1 / len(u)
    return ((y - fitted) / (1 - leverage).clamp_min(1e-6)[:, None]).square().sum()


GRID = (0.01, 0.1, 1.0, 10.0, 100.0)
"""λ that are tried for a layer's change."""
FOLDS = 4
"""Parts of the samples that are held out in turn."""


class Sums(NamedTuple):
    """What a regression of R on X needs, in float64."""

    gram: Tensor
    """XᵀX"""
    cross: Tensor
    """XᵀR"""
    energy: float
    """‖R‖²"""

    def plus(self, other: "Sums") -> "Sums":
        return Sums(self.gram + other.gram, self.cross + other.cross, self.energy + other.energy)

    def less(self, other: "Sums") -> "Sums":
        return Sums(self.gram - other.gram, self.cross - other.cross, self.energy - other.energy)

    def solved(self, ridge: float) -> Tensor:
        """Return (XᵀX + λ m I)⁻¹ XᵀR, with m the mean of the diagonal of XᵀX; zero where X is."""
        mean = self.gram.diagonal().mean()
        if not mean > 0:
            return torch.zeros_like(self.cross)
        penalty = ridge * mean * torch.eye(len(self.gram), dtype=mean.dtype, device=mean.device)
        return torch.cholesky_solve(self.cross, torch.linalg.cholesky(self.gram + penalty))

    def error(self, d: Tensor) -> float:
        """Return ‖X D − R‖²."""
        return self.energy - 2 * float((d * self.cross).sum()) + float((d * (self.gram @ d)).sum())


class HeldOut:
    """The sums of a ridge regression, kept apart by fold, so that λ can be chosen on samples that were held out.

    Args:
        one_more: give the rows a column of ones.
    """

    def __init__(self, *, one_more: bool) -> None:
        self.one_more = one_more
        self.folds: dict[int, Sums] = {}

    def add(self, x: Tensor, residual: Tensor, sample: Tensor) -> None:
        """Add rows x (m, d_in) that are to give residual (m, d_out); sample (m,) numbers the samples they are of."""
        if self.one_more:
            x = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
        for fold in range(FOLDS):
            own = sample % FOLDS == fold
            if own.any():
                z, r = x[own].double(), residual[own].double()
                sums = Sums(z.T @ z, z.T @ r, float(r.square().sum()))
                self.folds[fold] = self.folds[fold].plus(sums) if fold in self.folds else sums

    def solved(self, ridge: float | None) -> tuple[Tensor, float]:
        """Return D (d_out, d_in) = argmin ‖X Dᵀ − R‖² + λ m ‖D‖², m the mean of the diagonal of XᵀX; and λ.

        Args:
            ridge: λ; None for that of `GRID` with the least error on samples that are held out in turn.

        Raises:
            ValueError: nothing was added.
        """
        if not self.folds:
            raise ValueError("there are no calibration samples")
        whole = reduce(Sums.plus, self.folds.values())
        if ridge is None:
            ridge = self._best(whole) if len(self.folds) > 1 else 1.0
        return whole.solved(ridge).T, ridge

    def _best(self, whole: Sums) -> float:
        errors = dict.fromkeys(GRID, 0.0)
        for fold in self.folds.values():
            rest = whole.less(fold)
            for ridge in GRID:
                errors[ridge] += fold.error(rest.solved(ridge))
        return min(errors, key=errors.__getitem__)
