"""Gradient hooks on tensors that may be views of others."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

hook: Callable[[Tensor, Callable[[Tensor], None]], Any] = Tensor.register_hook
"""Torch's own, typed here."""


def hook_whole(y: Tensor, told: Callable[[Tensor], None]) -> None:
    """Register a hook at all that is made of a tensor, if it is one of several views of it.

    What a product gives of rows (n, T, d) is a view of (n · T, d), and no gradient passes a view that is written to
    later, as where models of sound set padding to zero. What a router reads may be a view that no expert reads.
    """
    base, shape = whole(y), y.shape
    if base is None or base is y:
        hook(y, told)
    else:
        hook(base, lambda gradient: told(gradient.reshape(shape)))


def whole(y: Tensor) -> Tensor | None:
    """Return what a tensor shows all of in another shape: itself, if it is no view; None if it shows a part of it, or
    turned round.
    """
    base = y._base
    if base is None:
        return y
    return base if base.numel() == y.numel() and base.is_contiguous() and y.is_contiguous() else None
