"""Convolutions as linear maps of their patches: what they read, and kernels of other sizes.

A kernel (d_out, d_in, h, w) is a matrix (d_out, d_in) a tap, side by side as (taps, d_out, d_in): a change τ moves tap
by tap, by the maps of the channels, R_out τ_i R_inᵀ.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_bico.core.errors import PortError
from hf_bico.core.linalg import grid_resample

_CONVOLVE: Mapping[int, Callable[..., Tensor]] = {3: F.conv1d, 4: F.conv2d}
"""Number of axes of a kernel → what convolves with it."""


@dataclass(frozen=True)
class Window:
    """What a convolution reads for a row of its output: a kernel of more than one tap."""

    size: tuple[int, ...]
    """Taps along every axis."""
    cuts: bool = False
    """Whether it cuts its input into patches: the next begins where one ends."""

    @property
    def taps(self) -> int:
        return torch.Size(self.size).numel()


@dataclass(frozen=True)
class Convolution:
    """A convolution of rows (n, …, d_in) that lie on a grid, with its stride, padding and dilation."""

    size: tuple[int, ...]
    """Of the kernel."""
    options: Mapping[str, Any]
    """Stride, padding and dilation, as torch's function takes them."""

    def __call__(self, rows: Tensor, weight: Tensor, bias: Tensor | None = None, groups: int = 1) -> Tensor:
        """Return the rows (n, …, d_out) that a kernel gives."""
        convolve = _CONVOLVE[weight.ndim]
        return convolve(rows.movedim(-1, 1), weight, bias, **self.options, groups=groups).movedim(1, -1)

    def patches(self, rows: Tensor) -> Tensor:
        """Return what every row of the output is a linear map of, (n, …, d_in · taps), as `as_matrix` has them."""
        taps = torch.Size(self.size).numel()
        one = torch.eye(taps, dtype=rows.dtype, device=rows.device).reshape(taps, 1, *self.size)
        return self(rows, one.repeat(rows.shape[-1], *(1 for _ in one.shape[1:])), groups=rows.shape[-1])

    def lengths(self, rows: Tensor) -> Tensor:
        """Return the norm (n, …, 1) of every patch."""
        squares = rows.square().sum(-1, keepdim=True)
        return self(squares, squares.new_ones(1, 1, *self.size)).clamp_min(0).sqrt()


def as_matrix(taps: Tensor) -> Tensor:
    """Return a kernel (taps, d_out, d_in) as patches are multiplied by it, (d_out, d_in · taps); a matrix as it is."""
    return taps.permute(1, 2, 0).flatten(1) if taps.ndim == 3 else taps


def as_taps(matrix: Tensor, window: Window) -> Tensor:
    """Return what `as_matrix` gave of a kernel as the kernel again."""
    return torch.unflatten(matrix, 1, (-1, window.taps)).movedim(-1, 0)


def fitted(taps: Tensor, here: Window | None, there: Window | None) -> Tensor:
    """Return a kernel (taps, d_out, d_in) of one window for a convolution of another; a linear map (d_out, d_in) is a
    kernel of one tap.

    One that grows or shrinks alike on all sides stays where it is, with zeros around it, or is cut off: the same
    function of the same grid. One of patches, or of another parity, is `resized`.

    Raises:
        PortError: the two do not go along as many axes.
    """
    if here == there or (here and there and here.size == there.size):
        return taps
    before, after = (each.size if each else () for each in (here, there))
    before, after = before or (1,) * len(after), after or (1,) * len(before)
    if len(before) != len(after):
        raise PortError(f"a kernel of {before} cannot become one of {after}: the two convolve along other axes")
    grid = taps.reshape(*before, *taps.shape[-2:])
    if on_centre(here, there):
        sides = [(b - a) // 2 for a, b in zip(before, after, strict=True)]
        made = F.pad(grid, (0, 0, 0, 0, *(side for each in reversed(sides) for side in (each, each)))).flatten(0, -3)
    else:
        one = (1,) * (2 - len(before))
        made = resized(grid.reshape(1, *one, *before, -1), (*one, *after)).reshape(-1, *taps.shape[-2:])
    return made if there else made[0]


def on_centre(here: Window | None, there: Window | None) -> bool:
    """Return whether one kernel lies on the centre of the other, with as many taps on either side."""
    if any(each is not None and each.cuts for each in (here, there)):
        return False
    before, after = (each.size if each else () for each in (here, there))
    before, after = before or (1,) * len(after), after or (1,) * len(before)
    return all((a - b) % 2 == 0 for a, b in zip(before, after, strict=True))


def resized(kernel: Tensor, size: Sequence[int]) -> Tensor:
    """Return a kernel (c, h, w, d) for patches of another size (h′, w′), as rows (c h′ w′, d).

    Of a patch that is resized bilinearly, x′ = B x, the kernel (Bᵀ)⁺ w gives what w gives of x (FlexiViT,
    arXiv:2212.08013, eq. 4).
    """
    c, *before, d = kernel.shape
    if tuple(before) == tuple(size):
        return kernel.reshape(-1, d)
    grow = grid_resample((before[0], before[1]), (size[0], size[1]), prefix=(0, 0)).to(kernel)
    shrunk: Tensor = torch.linalg.pinv(grow.T) @ kernel.reshape(c, -1, d)
    return shrunk.reshape(-1, d)
