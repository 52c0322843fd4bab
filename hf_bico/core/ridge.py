"""Least squares in closed form: a classifier, and a layer's change."""

from functools import cache, reduce
from typing import NamedTuple

import torch
from torch import Tensor

PENALTIES = torch.logspace(-4, 4, 17)
"""Ridge penalties to try, as multiples of the mean σ² of the centred features' singular values σ."""


def ridge_classifier(x: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return W (K, d) and b (K,), float32, of the ridge classifier of features x (n, d) with labels (n,).

    Targets are 1 for the class and 0 else. Logits are scaled so that a sample's largest is on average log K + 2 above
    their mean: about as confident as a fine-tuned head.

    Args:
        classes: K.

    Raises:
        ValueError: the features are all alike.
    """
    weight, mean_x, mean_y = _regressed(x, torch.nn.functional.one_hot(labels, classes))
    logits = (x.double() - mean_x) @ weight.T
    spread = (logits.amax(-1) - logits.mean(-1)).mean().clamp_min(1e-12)
    scale = (torch.tensor(float(classes)).log() + 2) / spread
    weight = scale * weight
    bias = scale * mean_y - weight @ mean_x
    return weight.float(), bias.float()


def ridge_labels(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return W (K, d) and b (K,), float32, of K yes-or-no ridge classifiers of features x (n, d) with labels y (n, K).

    Targets are ½ for yes and −½ for no, so that 0 lies between; logits are scaled to be log 2 + 2 on average.

    Raises:
        ValueError: the features are all alike.
    """
    weight, bias = ridge_regression(x, y.double() - 0.5)
    scale = (torch.tensor(2.0).log() + 2) / (x.float() @ weight.T + bias).abs().mean().clamp_min(1e-12)
    return scale * weight, scale * bias


def ridge_regression(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return W (K, d) and b (K,), float32, of the ridge regression of y (n, K) on features x (n, d).

    Raises:
        ValueError: the features are all alike.
    """
    weight, mean_x, mean_y = _regressed(x, y)
    return weight.float(), (mean_y - weight @ mean_x).float()


def _regressed(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return W (K, d) and the means of x (n, d) and y (n, K), float64: y is about W (x − mean) + mean.

    The penalty on ‖W‖² is the one with the least squared leave-one-out error, all of them from one SVD (Golub, Heath,
    Wahba 1979); the means are not penalised.

    Raises:
        ValueError: the features are all alike.
    """
    x, y = x.double(), y.double()
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
    return weight, mean_x, mean_y


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
SKETCH = 32
"""Random mixtures of the outputs that held-out errors are taken on, where there are more outputs than these."""


class Sums(NamedTuple):
    """What a regression of R on X needs, in float64."""

    gram: Tensor
    """XᵀX"""
    cross: Tensor
    """XᵀR"""

    def plus(self, other: "Sums") -> "Sums":
        return Sums(self.gram + other.gram, self.cross + other.cross)

    def less(self, other: "Sums") -> "Sums":
        return Sums(self.gram - other.gram, self.cross - other.cross)

    def solved(self, ridge: float, anchor: Tensor) -> Tensor:
        """Return (XᵀX + λ m I)⁻¹ (XᵀR + λ m anchor), m the mean of the diagonal of XᵀX; the anchor where X = 0."""
        mean = self.gram.diagonal().mean()
        if not mean > 0:
            return anchor
        shifted = self.gram.clone()
        shifted.diagonal().add_(ridge * mean)
        return torch.cholesky_solve(self.cross + ridge * mean * anchor, torch.linalg.cholesky(shifted))

    def error(self, d: Tensor) -> float:
        """Return ‖X D − R‖² − ‖R‖²."""
        return float((d * (self.gram @ d - 2 * self.cross)).sum())

    def to(self, dtype: torch.dtype) -> "Sums":
        return Sums(self.gram.to(dtype), self.cross.to(dtype))


class Regression:
    """The sums of a ridge regression; for a λ that is to be chosen also those of the samples that are held out in turn.

    Products are in the rows' own precision, sums of them in float64.

    Args:
        ridge: λ; None for that of `GRID` with the least error on held-out samples.
        one_more: give the rows a column of ones.
    """

    def __init__(self, ridge: float | None, *, one_more: bool) -> None:
        self.ridge, self.one_more = ridge, one_more
        self.folds: dict[int, Sums] = {}
        """The sums of every part of the samples; the outputs are mixed as `_mixing` says."""
        self.cross: Tensor | float = 0.0
        """XᵀR of all samples."""
        self.dtype = torch.float64

    def add(self, x: Tensor, wanted: Tensor, sample: Tensor) -> None:
        """Add rows x (m, d_in) that are to give wanted (m, d_out); sample (m,) numbers the samples they are of."""
        if self.one_more:
            x = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
        self.cross, self.dtype = self.cross + (x.T @ wanted).double(), x.dtype
        if self.ridge is not None:
            self._add(0, x, wanted[:, :0])
            return
        mixed = wanted if (mixing := _mixing(wanted)) is None else wanted @ mixing
        for fold in range(FOLDS):
            own = sample % FOLDS == fold
            if own.any():
                self._add(fold, x[own], mixed[own])

    def _add(self, fold: int, x: Tensor, wanted: Tensor) -> None:
        sums = Sums((x.T @ x).double(), (x.T @ wanted).double())
        self.folds[fold] = self.folds[fold].plus(sums) if fold in self.folds else sums

    def solved(self, anchor: Tensor) -> tuple[Tensor, float]:
        """Return D (d_out, d_in) = argmin ‖X Dᵀ − R‖² + λ m ‖D − anchor‖², m the mean of the diagonal of XᵀX; and λ.

        Raises:
            ValueError: nothing was added.
        """
        if isinstance(self.cross, float):
            raise ValueError("there are no calibration samples")
        whole, anchor = reduce(Sums.plus, self.folds.values()), anchor.T.to(self.cross)
        ridge = self._best(whole, anchor) if self.ridge is None else self.ridge
        return Sums(whole.gram, self.cross).solved(ridge, anchor).T, ridge

    def _best(self, whole: Sums, anchor: Tensor) -> float:
        """Return the λ of `GRID` that its neighbours do not better on the held-out samples, downhill from 1."""
        if len(self.folds) == 1:
            return 1.0
        anchor = (anchor if (mixing := _mixing(anchor)) is None else anchor @ mixing).to(self.dtype)
        splits = [(whole.less(fold).to(self.dtype), fold.to(self.dtype)) for fold in self.folds.values()]

        @cache
        def error(k: int) -> float:
            if not 0 <= k < len(GRID):
                return float("inf")
            return sum(fold.error(rest.solved(GRID[k], anchor)) for rest, fold in splits)

        best = GRID.index(1.0)
        while (better := min((best, best - 1, best + 1), key=error)) != best:
            best = better
        return GRID[best]


def _mixing(outputs: Tensor) -> Tensor | None:
    """Return a random matrix (d_out, SKETCH) that keeps squared norms of (…, d_out) on average; None if d_out is less.

    The same at every call.
    """
    width = outputs.shape[-1]
    if width <= SKETCH:
        return None
    return torch.randn(width, SKETCH, generator=torch.Generator().manual_seed(0)).to(outputs)
