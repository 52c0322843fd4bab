"""Least squares in closed form: a classifier, and a layer's change."""

from collections.abc import Callable
from functools import cache
from math import inf
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

    def add_(self, gram: Tensor, cross: Tensor) -> "Sums":
        """Add more of both, in place, and return them."""
        self.gram.add_(gram)
        self.cross.add_(cross)
        return self

    def less(self, other: "Sums") -> "Sums":
        return Sums(self.gram - other.gram, self.cross - other.cross)

    def solved(self, ridge: float, anchor: Tensor) -> Tensor:
        """Return (XᵀX + λ m I)⁻¹ (XᵀR + λ m anchor), m the mean of the diagonal of XᵀX; the anchor where X = 0."""
        penalty = ridge * self.gram.diagonal().mean()
        return _solved(self.gram, penalty, self.cross + penalty * anchor) if penalty > 0 else anchor

    def error(self, d: Tensor) -> float:
        """Return ‖X D − R‖² − ‖R‖²."""
        return float((d * (self.gram @ d - 2 * self.cross)).sum())

    def to(self, dtype: torch.dtype) -> "Sums":
        return Sums(self.gram.to(dtype), self.cross.to(dtype))


class Regression:
    """A ridge regression of rows that come in parts; a λ that is to be chosen is tried on samples held out in turn.

    As long as there are fewer rows than columns the rows themselves are held, and XXᵀ is solved for; then sums over
    them, and XᵀX is. Both give the same. Products are in the rows' own precision, sums of them in float64.

    Args:
        ridge: λ; None for that of `GRID` with the least error on held-out samples.
        one_more: give the rows a column of ones.
    """

    def __init__(self, ridge: float | None, *, one_more: bool) -> None:
        self.ridge, self.one_more = ridge, one_more
        self.rows: list[tuple[Tensor, Tensor, Tensor]] = []
        """X, R and samples that are in no sums yet."""
        self.folds: dict[int, Sums] = {}
        """The sums of every part of the samples; the outputs are mixed as `_mixed` says."""
        self.cross: Tensor | float = 0.0
        """XᵀR of all samples in sums."""
        self.dtype = torch.float64

    def add(self, x: Tensor, wanted: Tensor, sample: Tensor) -> None:
        """Add rows x (m, d_in) that are to give wanted (m, d_out); sample (m,) numbers the samples they are of."""
        if self.one_more:
            x = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
        self.dtype = x.dtype
        self.rows.append((x, wanted, sample))
        if self.folds or sum(len(held) for held, *_ in self.rows) >= x.shape[1]:
            for each in self.rows:
                self._sum(*each)
            self.rows.clear()

    def _sum(self, x: Tensor, wanted: Tensor, sample: Tensor) -> None:
        cross = x.T @ wanted
        self.cross = cross.double() if isinstance(self.cross, float) else self.cross.add_(cross)
        if self.ridge is not None:
            self._sum_fold(0, x, wanted[:, :0])
            return
        mixed = _mixed(wanted)
        for fold in range(FOLDS):
            own = sample % FOLDS == fold
            if own.any():
                self._sum_fold(fold, x[own], mixed[own])

    def _sum_fold(self, fold: int, x: Tensor, wanted: Tensor) -> None:
        gram, cross = x.T @ x, x.T @ wanted
        if fold in self.folds:
            self.folds[fold].add_(gram, cross)
        else:
            self.folds[fold] = Sums(gram.double(), cross.double())

    def solved(self, anchor: Tensor) -> tuple[Tensor, float]:
        """Return D (d_out, d_in) = argmin ‖X Dᵀ − R‖² + λ m ‖D − anchor‖², m the mean of the diagonal of XᵀX; and λ.

        Raises:
            ValueError: nothing was added.
        """
        if self.rows:
            x, wanted, sample = (torch.cat(each) for each in zip(*self.rows, strict=True))
            return _from_rows(x, wanted, sample, anchor.to(x), self.ridge)
        if isinstance(self.cross, float):
            raise ValueError("there are no calibration samples")
        anchor, whole = anchor.T.to(self.cross), self._whole()
        ridge = self._best(whole, anchor) if self.ridge is None else self.ridge
        self.ridge, self.folds = ridge, {0: whole}  # the parts are needed no more, and are four times as much
        return Sums(whole.gram, self.cross).solved(ridge, anchor).T, ridge

    def _whole(self) -> Sums:
        """Return the sums of all parts."""
        first, *others = self.folds.values()
        if not others:
            return first
        whole = Sums(first.gram.clone(), first.cross.clone())
        for each in others:
            whole.add_(*each)
        return whole

    def _best(self, whole: Sums, anchor: Tensor) -> float:
        """Return the λ of the least error on samples that are held out in turn, from sums over the rows."""
        if len(self.folds) == 1:
            return 1.0
        anchor = _mixed(anchor).to(self.dtype)

        def error(ridge: float, fold: Sums) -> float:
            found = whole.less(fold).to(self.dtype).solved(ridge, anchor)
            return fold.to(self.dtype).error(found)

        return _downhill(lambda ridge: sum(error(ridge, fold) for fold in self.folds.values()))


def _from_rows(x: Tensor, wanted: Tensor, sample: Tensor, anchor: Tensor, ridge: float | None) -> tuple[Tensor, float]:
    """Return what `Regression.solved` does, from X (n, d_in), R (n, d_out) and samples (n,), by XXᵀ + λ m I.

    D = anchor + (R − X anchorᵀ)ᵀ (XXᵀ + λ m I)⁻¹ X.
    """
    gram, left = x @ x.T, wanted - x @ anchor.T
    if ridge is None:
        ridge = _best_of_rows(gram, _mixed(left), sample % FOLDS, x.shape[1])
    gram = gram.double()
    found = _solved(gram, ridge * gram.trace() / x.shape[1], left.double())
    return anchor.double() + found.T @ x.double(), ridge


def _best_of_rows(gram: Tensor, left: Tensor, fold: Tensor, width: int) -> float:
    """Return the same λ from XXᵀ (n, n), R − X anchorᵀ (n, K), the part that a row is of (n,), and d_in."""
    splits = [(fold != number, fold == number) for number in sorted(set(fold.tolist()))]
    if len(splits) == 1:
        return 1.0

    def error(ridge: float) -> float:
        total = 0.0
        for rest, own in splits:
            inner = gram[rest][:, rest]
            found = _solved(inner, ridge * inner.trace() / width, left[rest])
            total += float((left[own] - gram[own][:, rest] @ found).square().sum())
        return total

    return _downhill(error)


def _solved(gram: Tensor, penalty: Tensor, right: Tensor) -> Tensor:
    """Return (gram + penalty · I)⁻¹ right; 0 where the penalty is, which comes of a gram that is."""
    if not penalty > 0:
        return torch.zeros_like(right)
    shifted = gram.clone()
    shifted.diagonal().add_(penalty)
    return torch.cholesky_solve(right, torch.linalg.cholesky(shifted))


def _downhill(error: Callable[[float], float]) -> float:
    """Return the λ of `GRID` that its neighbours do not better, downhill from 1."""

    @cache
    def at(k: int) -> float:
        return error(GRID[k]) if 0 <= k < len(GRID) else inf

    best = GRID.index(1.0)
    while (better := min((best, best - 1, best + 1), key=at)) != best:
        best = better
    return GRID[best]


def _mixed(outputs: Tensor) -> Tensor:
    """Return `SKETCH` random mixtures of outputs (…, d_out), the same at every call, which keep squared norms on
    average; the outputs where there are no more.
    """
    width = outputs.shape[-1]
    if width <= SKETCH:
        return outputs
    return outputs @ torch.randn(width, SKETCH, generator=torch.Generator().manual_seed(0)).to(outputs)
