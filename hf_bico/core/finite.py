"""NaN and Inf, looked for in one pass."""

from torch import Tensor


def is_finite(tensor: Tensor) -> bool:
    """Return whether a tensor is free of NaN and Inf."""
    return not tensor.numel() or all(bool(end.isfinite()) for end in tensor.aminmax())
