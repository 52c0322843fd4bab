"""Task vectors: read, checked, carried to the target's coordinates, accounted for, and added."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite, sqrt
from numbers import Real

import torch
from torch import Tensor, nn

from hf_bico.core.difference import Compared
from hf_bico.core.errors import PortError, listed, setting
from hf_bico.core.finite import is_finite
from hf_bico.core.gains import through
from hf_bico.core.kernels import fitted, on_centre
from hf_bico.core.low_rank import Delta, Factored, LowRank
from hf_bico.core.riders import Ride, Rode, along, by_site
from hf_bico.core.types import Fit, Map, Pair, Site, Slice, Tensors

ABSENT = "absent"
"""In the metadata of a field: reports leave it out where it is None."""
LEAST_COSINE = 0.05
"""The cosine of θ_A,ft and θ_A, over the sites' weights, below which θ_A cannot be what was fine-tuned. Unrelated
models of one architecture have 0.00 (the largest of 18 pairs of ours has 0.008); a fine-tune comes so low where its τ
is twenty times as large as its base. See docs/method.md."""


@dataclass(frozen=True)
class Moved:
    """What became of one site's change."""

    source: str
    target: str
    norm: float
    """‖τ_A‖ of the weight, Frobenius."""
    kept: float
    """The share ‖τ_B‖² / ‖s τ_A‖² that lies in the maps' span; 1 where nothing was cut."""
    scale: float
    """The map's s; 1 for an isometry."""
    output: Fit | None
    input: Fit | None
    ridge: float | None = field(default=None, metadata={ABSENT: True})
    """λ, where the change is a ridge regression; left out of reports elsewhere."""


@dataclass(frozen=True)
class Taught:
    """How a change was trained, or trained further."""

    steps: int
    rate: float
    tried: Sequence[tuple[float, float]]
    """(rate, loss on held-out samples) of all that were tried; empty where the rate was given, or none could be."""
    losses: tuple[float, float]
    """What was minimised, in the first step and in the last, summed over the samples."""
    soft: bool
    """Whether it learnt the fine-tune's own answers; else the labels."""
    views: bool
    """Whether every step was on other views of the samples."""
    seconds: float


@dataclass(frozen=True)
class Transported:
    """The target's change by tensor name, at α = 1, and what became of every site."""

    delta: Delta
    moved: Sequence[Moved]
    rode: Sequence[Rode] = field(default=(), kw_only=True)
    """What moved beside the linear maps."""
    taught: Taught | None = field(default=None, kw_only=True)
    """None where nothing was trained."""


def transport(
    tau: Tensors, maps: Iterable[tuple[Pair, Map]], target: Tensors, rides: Iterable[Ride] = ()
) -> Transported:
    """Carry τ over, pair by pair (BiCo: τ_B = L τ_A Rᵀ), and write it where the target keeps its weights.

    A change in factors stays in factors where the map allows it: no (d_out, d_in) matrix of it is made.

    Args:
        tau: the source's task vector.
        maps: a method's plan; taken one at a time, so that only one map is held.
        target: the new base's tensors; only their shapes are read.
        rides: what moves along with the pairs.

    Raises:
        PortError: NaN or Inf in the result.
    """
    delta, moved, rode, riding = Delta(target), [], list[Rode](), by_site(rides)
    for pair, map_ in maps:
        weight, bias, told = move(tau, pair, map_)
        delta.write(pair.target.weight, weight)
        if bias is not None and pair.target.bias is not None:
            delta.write(pair.target.bias, bias)
        moved.append(told)
        for key, change, told_of_it in along(tau, riding[pair.target.name], map_, target):
            delta.put(key, change)
            rode.append(told_of_it)
    require_finite(delta)
    return Transported(delta, moved, rode=rode)


def move(tau: Tensors, pair: Pair, map_: Map) -> tuple[Tensor | LowRank, Tensor | None, Moved]:
    """Return one layer's change in the target's coordinates: of its weight, of its bias where both sides have
    one; and what is told of it.
    """
    a, b = pair
    tau = through(tau, a.weight.key, map_)
    change = part_of(tau, a.weight)
    given = change if isinstance(change, LowRank) else fitted(change, a.window, b.window)
    there = map_.product(given) if isinstance(given, LowRank) else map_.weight(given)
    bias = map_.bias(a.bias.of(tau[a.bias.key])) if a.bias is not None and b.bias is not None else None
    norm = float(change.norm())
    whole = norm if on_centre(a.window, b.window) else float(given.norm())  # a patch's kernel changes its size
    kept = (float(there.norm()) / (map_.scale * whole)) ** 2 if whole else 1.0
    return there, bias, Moved(a.name, b.name, norm, kept, map_.scale, map_.output_fit, map_.input_fit)


def require_finite(delta: Delta) -> None:
    """Refuse a change with NaN or Inf in it.

    Raises:
        PortError: there is some; all of the tensors are listed.
    """
    broken = [key for key in delta if not delta.is_finite(key)]
    if broken:
        raise PortError(f"NaN or Inf in the ported {listed(broken)}")


def part_of(tau: Tensors, where: Slice) -> Tensor | LowRank:
    """Return the part of τ in a slice: in factors where τ has them, else dense."""
    factors = tau.factors(where.key) if isinstance(tau, Factored) else None
    return where.of(tau[where.key]) if factors is None else where.of(factors)


def relative_norm(tau: Tensors, base: Tensors, sites: Iterable[Site]) -> float:
    """Return ‖τ‖/‖θ_A‖ over the sites' weights."""
    keys = {site.weight.key for site in sites}
    change = sum(float(part_of(tau, Slice(key)).norm()) ** 2 for key in keys)
    return sqrt(change / sum(float(base[key].float().norm()) ** 2 for key in keys))


def cosine(tau: Tensors, base: Tensors, sites: Iterable[Site]) -> float:
    """Return ⟨θ_A + τ, θ_A⟩ / (‖θ_A + τ‖ ‖θ_A‖) over the sites' weights; NaN if either is zero."""
    inner = tuned = size = 0.0
    for key in {site.weight.key for site in sites}:
        before = base[key].float()
        after = before + tau[key].to(before)
        inner += float((after * before).sum())
        tuned, size = tuned + float(after.square().sum()), size + float(before.square().sum())
    return inner / sqrt(tuned * size) if tuned * size else float("nan")


def check_fine_tune(
    tau: Tensors, base: Tensors, sites: Sequence[Site], *, trusted: bool = False, head: Sequence[str] = ()
) -> float:
    """Return ‖τ‖/‖θ_A‖; refuse two models that cannot be a fine-tune and its base.

    Args:
        trusted: whether nobody doubts the base; an adapter's fine-tune holds its base whatever the adapter is.
        head: names of the fine-tune's tensors beside τ that are new or trained.

    Raises:
        PortError: τ is zero there (what else differs is listed), or the two models' weights have nothing in common.
    """
    ratio = relative_norm(tau, base, sites)
    if ratio == 0 and not any(bool(tau[key].any()) for key in tau):
        raise PortError(_why_nothing(tau, head))
    if trusted or ratio == 0:
        return ratio
    alike = cosine(tau, base, sites)
    if not alike >= LEAST_COSINE:
        raise PortError(
            f"this is not the base of that fine-tune: the cosine of their weights is {alike:.3f}, as of unrelated "
            f"models; name the right one with {setting('base')}, or say {setting('trust_base')} if it is the base"
        )
    return ratio


def _why_nothing(tau: Tensors, head: Sequence[str]) -> str:
    """Return why there is nothing to port where nothing that moves has a τ: what differs instead, if anything does."""
    changed = [key for key in tau if float(part_of(tau, Slice(key)).norm()) > 0]
    changed += sorted(tau.apart) if isinstance(tau, Compared) else []
    if changed or head:
        names = list(dict.fromkeys(re.sub(r"\.\d+\.", ".*.", key) for key in (*changed, *head)))
        mend = "fit a head to the new base itself" if not changed else "train these on the new base itself"
        return (
            "of what moves nothing in the fine-tuned model differs from its base; trained, or new, are "
            f"{listed(names, 8)} alone, which cannot be ported on their own: {mend}"
        )
    if isinstance(tau, Compared) and tau.rounded:
        return (
            "the fine-tuned model is its base in another dtype: they differ by no more than rounding (at most "
            f"{max(tau.rounded.values()):.2g}), so there is nothing to port"
        )
    if isinstance(tau, Factored):
        return "the adapter changes nothing, as before training: there is nothing to port"
    return "the fine-tuned model and its base are the same: there is nothing to port"


def check_scale(alpha: float) -> None:
    """Refuse an α that is NaN, Inf or not a number.

    Raises:
        PortError: it is.
    """
    if not isinstance(alpha, Real) or not isfinite(alpha):
        raise PortError(f"α = {alpha!r} is not a scale: give a finite number")


def added(
    base: Tensors, delta: Tensors, alpha: float = 1.0, *, like: Tensors | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, θ_B + α τ_B) for every tensor of the delta: summed in float32 or wider, rounded once.

    Args:
        like: tensors whose dtypes the sums get; None: the base's.

    Raises:
        PortError: α or a sum is NaN or Inf.
    """
    check_scale(alpha)
    for key, change in delta.items():
        weight = base[key]
        wide = torch.promote_types(weight.dtype, torch.float32)
        dtype = weight.dtype if like is None else like[key].dtype
        summed = (weight.to(wide) + alpha * change.to(weight.device, wide)).to(dtype)
        if not is_finite(summed):
            raise PortError(f"NaN or Inf in {key} of the sum ({dtype}, α = {alpha:g})")
        yield key, summed


@contextmanager
def holding(model: nn.Module, tensors: Iterable[tuple[str, Tensor]]) -> Iterator[nn.Module]:
    """Yield the model with some of its tensors replaced, and restore them afterwards; only those are copied.

    Of tied tensors, the first that is given counts.
    """
    state = model.state_dict()
    kept: dict[str, Tensor] = {}
    held: set[int] = set()
    try:
        with torch.no_grad():
            for key, tensor in tensors:
                if state[key].data_ptr() not in held:
                    held.add(state[key].data_ptr())
                    kept[key] = state[key].clone()
                    state[key].copy_(tensor)
        yield model
    finally:
        with torch.no_grad():
            for key, tensor in kept.items():
                state[key].copy_(tensor)
