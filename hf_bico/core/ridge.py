"""Least squares in closed form: a classifier, and a layer's change."""

import torch
from torch import Tensor

PENALTIES = torch.logspace(-4, 4, 17)
"""Ridge penalties that are tried, as shares of the features' mean variance times n."""


def ridge_classifier(x: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return W (K, d) and b (K,) of the least-squares classifier of x (n, d) with labels (n,), penalised as ‖W‖²
    wants it.

    Targets are 1 for the class and 0 else, less their mean; the penalty is the one with the least squared
    leave-one-out error, all of them from one SVD (Golub, Heath, Wahba 1979). Logits are scaled so that the largest of
    a sample is about log K + 2 above their mean: as sure of itself as a fine-tuned head, more or less.

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
    """Return squared error of every sample under the classifier of all others; the mean counts as one more
    direction.
    """
    fitted = u @ (shares[:, None] * uy)
    leverage = (u.square() * shares).sum(-1) + 1 / len(u)
    return ((y - fitted) / (1 - leverage).clamp_min(1e-6)[:, None]).square().sum()


GRID = (0.01, 0.1, 1.0, 10.0, 100.0)
"""λ that are tried for a layer's change."""
FOLDS = 4
"""Parts of the samples that are held out in turn."""


class HeldOut:
    """Sums of a ridge regression, kept apart by fold, so that λ can be chosen on samples that were held out.

    Args:
        one_more: give the rows a column of ones.
    """

    def __init__(self, *, one_more: bool) -> None:
        self.one_more = one_more
        self.folds: dict[int, tuple[Tensor, Tensor, float]] = {}
        """(XᵀX, XᵀR, ‖R‖²), in float64."""

    def add(self, x: Tensor, residual: Tensor, sample: Tensor) -> None:
        """Add rows x (m, d_in) that are to give residual (m, d_out); sample (m,) numbers the samples they are of."""
        if self.one_more:
            x = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
        for fold in range(FOLDS):
            own = sample % FOLDS == fold
            if own.any():
                z, r = x[own].double(), residual[own].double()
                gram, cross, energy = self.folds.get(fold, (0, 0, 0.0))
                self.folds[fold] = gram + z.T @ z, cross + z.T @ r, energy + float(r.square().sum())

    def solved(self, ridge: float | None) -> tuple[Tensor, float]:
        """Return D (d_out, d_in) = argmin ‖X Dᵀ − R‖² + λ m ‖D‖², m the mean of the diagonal of XᵀX; and λ.

        Args:
            ridge: λ; None for that of `GRID` with the least error on the samples held out.

        Raises:
            ValueError: nothing was added.
        """
        if not self.folds:
            raise ValueError("there are no calibration samples")
        gram = sum(part[0] for part in self.folds.values())
        cross = sum(part[1] for part in self.folds.values())
        if ridge is None:
            ridge = self._best(gram, cross) if len(self.folds) > 1 else 1.0
        return _ridge(gram, cross, ridge).T, ridge

    def _best(self, gram: Tensor, cross: Tensor) -> float:
        errors = dict.fromkeys(GRID, 0.0)
        for own, met, energy in self.folds.values():
            for ridge in GRID:
                d = _ridge(gram - own, cross - met, ridge)
                errors[ridge] += energy - 2 * float((d * met).sum()) + float((d * (own @ d)).sum())
        return min(errors, key=errors.__getitem__)


def _ridge(gram: Tensor, cross: Tensor, ridge: float) -> Tensor:
    """Return (G + λ m I)⁻¹ C; zero where G is."""
    mean = gram.diagonal().mean()
    if not mean > 0:
        return torch.zeros_like(cross)
    penalised = gram + ridge * mean * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return torch.cholesky_solve(cross, torch.linalg.cholesky(penalised))
