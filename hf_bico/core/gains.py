"""Diagonal gains of norms and LayerScales: what a fine-tune changed of them, told by the linear maps beside them.

A gain is diagonal, and no diagonal matrix in other coordinates unless they are permuted. But W diag(γ) x̂ is a linear
map of x̂ whatever the coordinates: a fine-tune with gains γ_ft is the same function with its base's γ and
W diag(γ_ft / γ) in place of W, and so its τ moves as any other (R_out (W_ft diag γ_ft − W diag γ) diag(γ)⁻¹ R_inᵀ).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_bico.core.difference import Compared
from hf_bico.core.sides import permutes
from hf_bico.core.types import At, Map, Slice, Tensors

MOST = 8.0
"""The largest γ_ft / γ, and the inverse of the least, that is folded; a gain near zero can change by any factor."""


@dataclass(frozen=True)
class Gain:
    """A diagonal gain, and the linear maps that can tell its change."""

    key: str
    side: At
    """"in": the maps read what the gain gives, and nothing else does; "out": the gain reads what one map gives."""
    weights: tuple[Slice, ...]
    biases: tuple[Slice, ...] = ()
    """Of a gain on outputs, the biases of its maps."""
    bias: str | None = None
    """A norm's bias β, added after the gain."""
    offset: float = 0.0
    """What is added to the stored gain: Gemma's norms multiply by 1 + w."""


class Folded(Mapping[str, Tensor]):
    """A fine-tune's tensors, as the same function with its base's gains; read one at a time, as they are where nothing
    folds. Entries whose gain changed by more than `MOST`, or by its sign, keep it.
    """

    def __init__(self, tuned: Tensors, base: Tensors, gains: Iterable[Gain]) -> None:
        self.tuned, self.base = tuned, base
        self.gains: dict[str, Gain] = {}
        self.weights: dict[str, list[tuple[Slice, Gain]]] = defaultdict(list)
        self.biases: dict[str, list[tuple[Slice | None, Gain]]] = defaultdict(list)
        for gain in gains:
            needed = {gain.key, *(part.key for part in (*gain.weights, *gain.biases))}
            if not needed <= tuned.keys() or not needed <= base.keys() or not self._changed(gain):
                continue
            self.gains[gain.key] = gain
            for part in gain.weights:
                self.weights[part.key].append((part, gain))
            for part in gain.biases:
                self.biases[part.key].append((part, gain))
            if gain.bias is not None and gain.bias in tuned:
                self.biases[gain.bias].append((None, gain))

    def _changed(self, gain: Gain) -> bool:
        return bool((self.ratio(gain) != 1).any())

    def ratio(self, gain: Gain) -> Tensor:
        """Return γ_ft / γ of those entries that fold, else 1."""
        return ratio_of(self.tuned, self.base, gain)

    def __getitem__(self, key: str) -> Tensor:
        tensor = self.tuned[key]
        if key in self.gains:
            gain = self.gains[key]
            folds = (self.ratio(gain) != 1).to(tensor.device)
            return torch.where(folds, self.base[key].to(tensor), tensor)
        if key in self.weights:
            tensor = _wide(tensor)
            for part, gain in self.weights[key]:
                own, ratio = part.of(tensor), self.ratio(gain).to(tensor)
                part.put(tensor, own * (ratio if gain.side == "in" else ratio[:, None]))
        for where, gain in self.biases.get(key, ()):
            tensor, ratio = _wide(tensor), self.ratio(gain)
            if where is None:
                tensor.div_(ratio.to(tensor))  # of what W diag(ratio) reads, so that it gives W β_ft
            else:
                where.put(tensor, where.of(tensor) * ratio.to(tensor))
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.tuned)

    def __len__(self) -> int:
        return len(self.tuned)


def ratio_of(tuned: Tensors, base: Tensors, gain: Gain) -> Tensor:
    """Return γ_ft / γ of those entries of a gain that fold, else 1; float32 or wider."""
    wide = torch.promote_types(base[gain.key].dtype, torch.float32)
    after, before = (side[gain.key].to(wide) + gain.offset for side in (tuned, base))
    ratio = after.to(before.device) / before
    folds = ratio.isfinite() & (ratio <= MOST) & (ratio >= 1 / MOST)
    return torch.where(folds, ratio, torch.ones_like(ratio))


def into_head(tuned: Tensors, base: Tensors, gain: Gain) -> dict[str, Tensor]:
    """Return the tensors in which a fine-tune changes to the same function with its base's final norm, where a head
    that is carried whole is all that reads it: W diag(γ_ft / γ), and b + W β_ft − W diag(γ_ft / γ) β.

    A head may read several such rows next to one another. Without a bias b, the norm's β is what gives W β_ft.

    Args:
        gain: the norm's, with the head's first layer.
    """
    ratio, (part,) = ratio_of(tuned, base, gain), gain.weights
    before = part.of(tuned[part.key]).to(ratio)
    after = before * ratio.repeat(before.shape[1] // len(ratio))
    made = {part.key: _wide(tuned[part.key]).to(ratio)}
    part.put(made[part.key], after)
    made[gain.key] = torch.where(ratio != 1, base[gain.key], tuned[gain.key].to(ratio.device))
    if gain.bias is None:
        return made
    shift, own = (side[gain.bias].to(ratio) for side in (tuned, base))
    if not gain.biases:
        return made | {gain.bias: shift / ratio}
    (where,) = gain.biases
    reads = before.shape[1] // len(ratio)
    made[where.key] = _wide(tuned[where.key]).to(ratio)
    where.put(made[where.key], where.of(made[where.key]) + before @ shift.repeat(reads) - after @ own.repeat(reads))
    return made | {gain.bias: base[gain.bias]}


class Told(Compared):
    """A task vector, and what it is where its gains are told by the linear maps (`Folded`)."""

    def __init__(self, tau: Compared, folded: Tensors, gains: Sequence[Gain]) -> None:
        self.tau, self.folded = tau, folded
        self.tuned, self.base, self.apart, self.rounded = tau.tuned, tau.base, tau.apart, tau.rounded
        self.gains = frozenset(gain.key for gain in gains)
        """Names of those that are told so, where they do not move as they are."""
        self.sides = {
            key: (gain.side, gain.key)
            for gain in gains
            for key in (gain.key, gain.bias, *(part.key for part in (*gain.weights, *gain.biases)))
            if key is not None
        }

    def through(self, key: str, map_: Map) -> Tensors:
        """Return the task vector as a map of a tensor's layer is to carry it: as it is, if the map permutes the gain's
        coordinates, so that the gain moves as it is.
        """
        if key not in self.sides:
            return self.tau
        side, gain = self.sides[key]
        return self.tau if permutes(map_, side, len(self.tau[gain])) else self.folded

    def shared(self, key: str) -> Tensor | None:
        return self.tau.shared(key)

    def filled(self, key: str) -> Tensor | None:
        return self.tau.filled(key)

    def __getitem__(self, key: str) -> Tensor:
        return self.tau[key]

    def __contains__(self, key: object) -> bool:
        return key in self.tau

    def __iter__(self) -> Iterator[str]:
        return iter(self.tau)

    def __len__(self) -> int:
        return len(self.tau)


def told(tau: Compared, folded: Callable[[], Tensors], gains: Sequence[Gain]) -> Compared:
    """Return a task vector whose gains are told by the linear maps where they must be; as it is if none changed."""
    changed = [gain for gain in gains if gain.key in tau and tau[gain.key].any()]
    return Told(tau, folded(), changed) if changed else tau


def through(tau: Tensors, key: str, map_: Map) -> Tensors:
    """Return a task vector as a map of the layer of `key` is to carry it; see `Told`."""
    return tau.through(key, map_) if isinstance(tau, Told) else tau


def _wide(tensor: Tensor) -> Tensor:
    """Return a copy in float32 or wider."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32), copy=True)


def folding(gains: Sequence[Gain], moving: Iterable[Slice]) -> tuple[Gain, ...]:
    """Return the gains all of whose linear maps move: the others could not be told by them."""
    slices = set(moving)
    return tuple(gain for gain in gains if slices.issuperset((*gain.weights, *gain.biases)))
