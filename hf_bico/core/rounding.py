"""Rounding told from change: a base and its fine-tune that are stored in two dtypes differ without any training."""

import torch
from torch import Tensor

SLACK = 1 + 1e-5
"""For the rounding of the comparison itself."""
SOME = 256
"""Elements that are looked at before all are."""


def is_rounding(tuned: Tensor, base: Tensor) -> bool:
    """Return whether two tensors of two dtypes can be one tensor that was rounded to either.

    Each is then within half a unit in its last place of that one tensor, element by element. A tensor that was trained
    has elements that are further away; of one that has none, nothing of the training is left.

    Args:
        tuned, base: of one shape, floating-point; of one dtype, nothing was rounded. A fine-tune in a wider dtype than
            its numbers need counts as of the one that they were rounded to before.
    """
    if not (tuned.is_floating_point() and base.is_floating_point()):
        return False
    kind = narrowest(tuned)
    if kind == base.dtype:
        return False
    wide = torch.promote_types(torch.promote_types(tuned.dtype, base.dtype), torch.float32)
    a, b = tuned.to(wide), base.to(tuned.device, wide)
    size = torch.maximum(a.abs(), b.abs())
    most = _half_units(size, kind) + _half_units(size, base.dtype)
    return bool(((a - b).abs() <= SLACK * most).all())


def narrowest(tensor: Tensor) -> torch.dtype:
    """Return the narrowest of the usual dtypes that holds a tensor's numbers as they are."""
    some = tensor.reshape(-1)[:SOME]
    for kind in (torch.bfloat16, torch.float16):
        if tensor.element_size() > 2 and _holds(kind, some) and _holds(kind, tensor):
            return kind
    return tensor.dtype


def _holds(kind: torch.dtype, tensor: Tensor) -> bool:
    return torch.equal(tensor.to(kind).to(tensor.dtype), tensor)


def _half_units(size: Tensor, dtype: torch.dtype) -> Tensor:
    """Return half a unit in the last place of a dtype at numbers of this size (≥ 0), of subnormal ones too."""
    kind = torch.finfo(dtype)
    _, exponent = torch.frexp(size)  # size = m · 2^exponent with 1/2 ≤ m < 1
    unit = torch.ldexp(torch.full_like(size, kind.eps), exponent - 1)
    return unit.clamp_min(kind.smallest_normal * kind.eps) / 2
