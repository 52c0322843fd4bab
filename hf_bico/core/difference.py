"""The task vector of a whole fine-tune: its tensors less its base's, as far as the two can be compared."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from hf_bico.core.errors import PortError, listed, setting
from hf_bico.core.finite import is_finite
from hf_bico.core.rounding import is_rounding
from hf_bico.core.types import Tensors

ALIKE = 0.5
"""The largest ‖τ‖/‖θ_A‖ of rows that are the same rows."""


def apart(tuned: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, str]:
    """Return name → how the two sides differ there, for tensors that one side lacks or has in another shape.

    Args:
        tuned, base: name → anything with the tensor's shape.
    """
    found = dict.fromkeys(tuned.keys() - base.keys(), "only in the fine-tuned model")
    found |= dict.fromkeys(base.keys() - tuned.keys(), "only in the base")
    for key in tuned.keys() & base.keys():
        mine, theirs = tuple(tuned[key].shape), tuple(base[key].shape)
        if mine != theirs:
            found[key] = f"{mine} in the fine-tuned model, {theirs} in the base"
    return found


class Compared(Mapping[str, Tensor]):
    """A task vector that is read from two models, which may not be comparable everywhere."""

    tuned: Any
    base: Any
    """The two models' tensors, by name."""
    apart: Mapping[str, str]
    """Name of a tensor without a τ → how the two sides differ there."""
    rounded: dict[str, float]
    """Name → the largest difference, of tensors that differ by rounding alone; filled as they are read."""

    def shared(self, key: str) -> Tensor | None:
        """Return τ of the rows that both sides have of a tensor that is `apart`; None where there are none."""
        raise NotImplementedError

    def filled(self, key: str) -> Tensor | None:
        """Return τ of a tensor that is `apart`, of the base's shape: zero in rows that the fine-tune lacks; None where
        no rows are shared.
        """
        rows = self.shared(key)
        if rows is None:
            return None
        found = rows.new_zeros(tuple(self.base[key].shape))
        found[: len(rows)] = rows
        return found


class Difference(Compared):
    """The task vector τ = tuned − base, read one tensor at a time, in float32 or wider; no side is ever held whole.

    A tensor that only one side has, or that both have in other shapes, is in `apart`, not in τ. One that differs by
    no more than the rounding between two dtypes is zero in τ, and in `rounded` once it was read.

    Args:
        must: names of the tensors that both must have, in one shape; None: all.
        stored: whether the fine-tune's numbers are as they were stored; else they were computed, and none is rounding.

    Raises:
        PortError: on construction, for such tensors that differ, all of them listed; on reading, for NaN or Inf.
    """

    def __init__(
        self, tuned: Tensors, base: Tensors, must: Iterable[str] | None = None, *, stored: bool = True
    ) -> None:
        self.tuned, self.base, self.stored = tuned, base, stored
        self.apart, self.rounded = apart(tuned, base), dict[str, float]()
        self._last: tuple[str, Tensor] | None = None
        """The stack of a layer's experts that was read last: they are read one after the other."""
        wanted = set(self.apart if must is None else must)
        odd = [f"{key} is {how}" for key, how in sorted(self.apart.items()) if key in wanted]
        if odd:
            raise PortError(f"not a fine-tune of this base; name the right one with {setting('base')}: {listed(odd)}")

    def __getitem__(self, key: str) -> Tensor:
        if self._last is not None and self._last[0] == key:
            return self._last[1]
        if key in self.apart:
            raise KeyError(key)
        tuned, base = self.tuned[key], self.base[key]
        if not tuned.is_floating_point():
            counted: Tensor = (tuned.long() - base.long()).float()
            return counted
        dtype = torch.promote_types(tuned.dtype, torch.float32)
        tau: Tensor = tuned.to(base.device, dtype) - base.to(dtype)
        if not is_finite(tau):
            raise PortError(f"NaN or Inf in {key} of the fine-tuned model or its base")
        if self.stored and tau.any() and is_rounding(tuned, base):
            self.rounded[key] = float(tau.abs().max())
            tau = torch.zeros_like(tau)
        if tau.ndim == 3:
            self._last = key, tau
        return tau

    def shared(self, key: str) -> Tensor | None:
        """Return τ of the rows that both sides have, (min rows, …), where they differ in the number of rows alone.

        A vocabulary that was extended, cut or padded keeps the rows that were there, so the first rows meet. Rows that
        are not alike, as of positions in two grids, do not.
        """
        if key not in self.tuned or key not in self.base:
            return None
        tuned, base = self.tuned[key], self.base[key]
        if tuned.ndim == 0 or tuned.shape[1:] != base.shape[1:]:
            return None
        rows = min(len(tuned), len(base))
        tau: Tensor = Difference({key: tuned[:rows]}, {key: base[:rows]})[key]
        return tau if float(tau.norm()) <= ALIKE * float(base[:rows].float().norm()) else None

    def __iter__(self) -> Iterator[str]:
        return (key for key in self.tuned if key not in self.apart)

    def __contains__(self, key: object) -> bool:
        return key in self.tuned and key not in self.apart

    def __len__(self) -> int:
        return sum(1 for _ in self)
