"""The method's one matrix problem: the orthogonal factor of a cross-moment, as far as the data determine it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from hf_bico.core.finite import is_finite
from hf_bico.core.low_rank import LowRank

RTOL = 1e-5
"""Default cut, relative to a cross-moment's largest singular value; docs/method.md says why."""
SPARE = 8
"""Mixtures beyond the rank, so that none of the smallest directions is nearly missed."""


class PolarFactor(NamedTuple):
    """R = U f(Σ) Vᵀ, its numerical rank, and the nuclear norm Σσ of the matrix it came from."""

    left: Tensor
    """U f(Σ) (d_B, k): directions that are cut off whole are left out."""
    right: Tensor
    """Vᵀ (k, d_A)"""
    rank: int
    nuclear: float
    filling: Tensor | None = None
    """What fills the directions that are cut, (d_B, d_A)."""

    @property
    def factor(self) -> Tensor:
        """R as a matrix (d_B, d_A)."""
        factor = self.left @ self.right
        return factor if self.filling is None else factor + self.filling

    @property
    def small(self) -> "Tensor | LowRank":
        """R in the form that takes less: as a product, where that is no more than half of the matrix."""
        (d_b, k), d_a = self.left.shape, self.right.shape[1]
        product = self.filling is None and 2 * k * (d_b + d_a) <= d_b * d_a
        return LowRank(self.left, self.right.contiguous()) if product else self.factor


def polar_factor(
    cross: Tensor,
    *,
    rtol: float = RTOL,
    free: bool = False,
    fill: Tensor | None = None,
    removed: float = 0.0,
    rows: int | None = None,
    limit: int | None = None,
) -> PolarFactor:
    """Return the R (d_B, d_A) that maximises ⟨R, cross⟩ among partial isometries on what `cross` determines.

    With cross = U Σ Vᵀ the orthogonal Procrustes solution is U Vᵀ (Schönemann 1966), but it fills directions whose σ
    is lost in rounding at random. Here R = U f(Σ) Vᵀ with f = 1 above the cut and 0 below, smooth between, so that R
    is a smooth function of `cross`: threads, batch sizes and noise move it by rounding alone.

    Args:
        cross: (d_B, d_A), Σ over rows of b aᵀ.
        rtol: the cut, as a share of σ₁.
        free: cut nothing: U Vᵀ to the letter, with whatever the SVD put where nothing is determined.
        fill: (d_B, d_A), another cross-moment of the same coordinates, whose map fills the directions that are cut.
        removed: norm of what was subtracted to get `cross`; where it exceeds σ₁ the cut is relative to it, as
            rounding is.
        rows: how many rows `cross` is a sum over, that is its greatest rank; few make it fast.
        limit: how many leading singular directions are solved for; all unless given. The rest is cut, the nuclear norm
            is theirs.

    Raises:
        ValueError: `cross` is zero or not finite, or nothing of it is above the cut.
    """
    if not is_finite(cross):
        raise ValueError("its cross-moment is not finite: a sample or a weight is broken, or the sums overflow")
    u, sigma, vt = thin_svd(cross, None if free else rows, None if free else limit)
    if sigma[0] == 0:
        raise ValueError("the samples do not reach it: its cross-moment is zero")
    ratio = sigma / (rtol * max(float(sigma[0]), removed))
    kept = torch.ones_like(sigma) if free else soft_step(ratio)
    if kept[0] == 0:
        raise ValueError("the samples determine nothing there: they are too few, or all alike")
    filling = None if fill is None else _filling(u * kept, u, vt.T * kept, vt.T, fill, rtol)
    some = kept > 0
    return PolarFactor((u * kept)[:, some], vt[some], int((ratio > 1).sum()), float(sigma.sum()), filling)


def _filling(uf: Tensor, u: Tensor, vf: Tensor, v: Tensor, fill: Tensor, rtol: float) -> Tensor:
    """Return the map of `fill` between the complements of U f Uᵀ and V f Vᵀ, cut relative to the whole of `fill`."""
    rest = fill - uf @ (u.T @ fill)
    rest = rest - (rest @ v) @ vf.T
    p, sigma, qt = torch.linalg.svd(rest, full_matrices=False)
    largest = torch.linalg.matrix_norm(fill, 2)
    return (p * soft_step(sigma / (rtol * largest))) @ qt if largest > 0 else torch.zeros_like(fill)


def thin_svd(matrix: Tensor, rank: int | None = None, limit: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return U, σ, Vᵀ of a matrix of at most so high a rank; singular values past it may be left out.

    Where that is low the range is found by as many random mixtures of the columns, which miss nothing then; else, where
    only the `limit` leading directions are wanted, by a few more mixtures than these and one step of subspace iteration
    (Halko, Martinsson, Tropp 2011). The same at every call.
    """
    whole = min(matrix.shape)
    if rank is not None and 2 * rank < whole and (limit is None or limit >= rank):
        return _within(matrix, torch.linalg.qr(matrix @ _mixing(matrix, rank + SPARE))[0])
    if limit is None or 2 * limit >= whole:
        u, sigma, vt = torch.linalg.svd(matrix, full_matrices=False)
        return u[:, :limit], sigma[:limit], vt[:limit]
    q, _ = torch.linalg.qr(matrix @ _mixing(matrix, limit + SPARE))
    q, _ = torch.linalg.qr(matrix.T @ q)
    q, _ = torch.linalg.qr(matrix @ q)
    u, sigma, vt = _within(matrix, q)
    return u[:, :limit], sigma[:limit], vt[:limit]


def _within(matrix: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return U, σ, Vᵀ of a matrix whose range is that of the orthonormal columns q (d, k), by QR and a (k, k) SVD."""
    wide, corner = torch.linalg.qr(matrix.T @ q)
    u, sigma, vt = torch.linalg.svd(corner.T, full_matrices=False)
    return q @ u, sigma, vt @ wide.T


def _mixing(matrix: Tensor, count: int) -> Tensor:
    """Return random mixtures (columns, count), the same at every call."""
    return torch.randn(matrix.shape[1], count, generator=torch.Generator().manual_seed(0)).to(matrix)


def soft_step(ratio: Tensor) -> Tensor:
    """Return 0 for ratio ≤ 1/2, 1 for ratio ≥ 2, smooth in log(ratio) between: a cut without a jump."""
    t = ((ratio.clamp_min(1e-30).log2() + 1) / 2).clamp(0, 1)
    return t * t * (3 - 2 * t)


@dataclass(frozen=True)
class GridResize:
    """P (T_B, T_A) = diag(E, H ⊗ W) between two grids: as good as a matrix, and multiplied by along one axis at a time,
    which takes a seventh of the work at 14 × 14 patches.
    """

    prefix: Tensor
    """E (p_B, p_A)"""
    down: Tensor
    """H (height_B, height_A)"""
    across: Tensor
    """W (width_B, width_A)"""

    def __matmul__(self, rows: Tensor) -> Tensor:
        """Return P · rows of rows (n, T_A, d)."""
        apart, grid = rows[:, : self.prefix.shape[1]], rows[:, self.prefix.shape[1] :]
        wide = self.across @ torch.unflatten(grid, 1, (self.down.shape[1], -1))
        patches = torch.unflatten(self.down @ wide.flatten(2), 2, (-1, rows.shape[2])).flatten(1, 2)
        return torch.cat([self.prefix @ apart, patches], 1)

    @property
    def shape(self) -> torch.Size:
        """(T_B, T_A)"""
        return self.dense().shape

    @property
    def ndim(self) -> int:
        return 2

    @property
    def mT(self) -> "GridResize":  # named as a tensor's
        return GridResize(self.prefix.T, self.down.T, self.across.T)

    def to(self, like: Tensor) -> "GridResize":
        """Return P on the device and in the dtype of a tensor."""
        return GridResize(self.prefix.to(like), self.down.to(like), self.across.to(like))

    def any(self, axis: int) -> Tensor:
        """Return which rows, or columns, are not zero."""
        return self.dense().any(axis)

    def dense(self) -> Tensor:
        """Return P as a matrix."""
        block_diag: Callable[..., Tensor] = torch.block_diag  # torch's has no annotations
        return block_diag(self.prefix, torch.kron(self.down, self.across))


def grid_resize(source: tuple[int, ...], target: tuple[int, ...], *, prefix: tuple[int, int]) -> GridResize:
    """Return the P (T_B, T_A) that resizes A's tokens to B's: bilinear over the patch grid, prefix tokens kept apart.

    Half-pixel centres, no antialiasing, as `torch.nn.functional.interpolate(mode="bilinear")`, which is linear along
    either axis.

    Args:
        source, target: (height, width) of A's and of B's grid.
        prefix: numbers of A's and of B's prefix tokens.
    """
    down, across = (_linear(a, b) for a, b in zip(source, target, strict=True))
    return GridResize(torch.eye(prefix[1], prefix[0]), down, across)


def _linear(source: int, target: int) -> Tensor:
    """Return the (target, source) that resizes an axis."""
    return torch.nn.functional.interpolate(torch.eye(source)[:, None], size=target, mode="linear")[:, 0].T


def grid_resample(source: tuple[int, ...], target: tuple[int, ...], *, prefix: tuple[int, int]) -> Tensor:
    """Return `grid_resize` as a matrix; for an empty grid it covers the prefix alone.

    Args:
        source, target: (height, width) of A's and of B's grid, or ().
        prefix: numbers of A's and of B's prefix tokens.
    """
    return grid_resize(source, target, prefix=prefix).dense() if source else torch.eye(prefix[1], prefix[0])
