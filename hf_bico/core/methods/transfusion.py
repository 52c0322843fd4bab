"""TransFusion: Rinaldi et al., Update Your Transformer to the Latest Release: Re-Basin of Task Vectors, 2505.22697."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from hf_bico.core.errors import PortError, listed
from hf_bico.core.finite import is_finite
from hf_bico.core.low_rank import LowRank
from hf_bico.core.method import Method, require_same_shapes
from hf_bico.core.moments import Statistics
from hf_bico.core.types import Hidden, Map, Pair, Signal, Site, Tensors, Wanted

Weights = tuple[Tensors, Tensors]  # A's and B's tensors


@dataclass(frozen=True)
class Permutation:
    """The map τ_B[i, j] = τ_A[rows[i], columns[j]]; a side that is None stays as it is."""

    rows: Tensor | None
    """(d_out,), int64"""
    columns: Tensor | None
    """(d_in,), int64"""
    output_fit: None = None
    input_fit: None = None
    scale: float = 1.0

    def weight(self, tau: Tensor) -> Tensor:
        moved = self.bias(tau)
        return moved if self.columns is None else moved[:, self.columns.to(tau.device)]

    def product(self, tau: LowRank) -> LowRank:
        return LowRank(self.bias(tau.b), tau.a if self.columns is None else tau.a[:, self.columns.to(tau.a.device)])

    def bias(self, tau: Tensor) -> Tensor:
        return tau if self.rows is None else tau[self.rows.to(tau.device)]

    def outputs(self, rows: Tensor) -> Tensor:
        return rows if self.rows is None else rows[..., self.rows.to(rows.device)]

    def inputs(self, rows: Tensor) -> Tensor:
        return rows if self.columns is None else rows[..., self.columns.to(rows.device)]


@dataclass(frozen=True)
class TransFusion(Method):
    """τ_B = P_out τ_A P_inᵀ with the permutations that bring A's weights closest to B's; no samples are used.

    Heads are matched by the singular values of their weights, which no permutation of units changes; then units inside
    matched heads, and units of the MLP, by inner products. The residual stream stays as it is, so no two permutations
    meet in one weight, and one round reaches the fixed point.
    """

    name: ClassVar[str] = "transfusion"
    citation: ClassVar[str] = "arXiv:2505.22697"
    summary: ClassVar[str] = (
        "The bases' own weights say which attention heads and hidden units are partners, and τ = fine-tuned − base is "
        "added to the new base with its heads and units in that order. No samples."
    )

    @property
    def wanted(self) -> Wanted:
        return Wanted(frozenset({Signal.WEIGHT}))

    def check(self, pairs: Sequence[Pair]) -> None:
        require_same_shapes(self.name, pairs)
        unequal = [
            f"{b.name} has {_heads(y)}, its partner {_heads(x)}"
            for a, b in pairs
            for x, y in ((a.hidden_out, b.hidden_out), (a.hidden_in, b.hidden_in))
            if _heads(x) != _heads(y)
        ]
        if unequal:
            raise PortError(f"{self.name} needs equal numbers of heads: {listed(unequal)}")
        tied = [b.name for _, b in pairs if b.hidden_out and b.hidden_in]
        if tied:
            raise PortError(f"{self.name} permutes a layer's outputs or its inputs, not both: {listed(tied)}")
        if not any(b.hidden_out or b.hidden_in for _, b in pairs):
            raise PortError(f"{self.name} permutes heads and hidden units, and these layers name none")

    def plan(self, pairs: Sequence[Pair], seen: Statistics) -> Iterator[tuple[Pair, Map]]:
        weights = seen.weights
        assert weights is not None  # they are `wanted`
        places, groups = _places(pairs)
        heads: dict[str, Tensor] = {}
        units: dict[str, Tensor] = {}

        def order(hidden: Hidden | None) -> Tensor | None:
            if hidden is None:
                return None
            group = hidden.group or hidden.name
            if group not in heads:
                heads[group] = match_heads(groups[group], weights, hidden.heads)
            if hidden.name not in units:
                units[hidden.name] = match_units(places[hidden.name], weights, heads[group])
            return units[hidden.name]

        for pair in pairs:
            yield pair, Permutation(order(pair.target.hidden_out), order(pair.target.hidden_in))


class Place(NamedTuple):
    """A pair of weights with hidden coordinates in their rows (`out`) or their columns (not `out`)."""

    pair: Pair
    out: bool

    def read(self, weights: Weights) -> tuple[Tensor, Tensor]:
        """Return A's and B's matrix (units, ·), float32 or wider: a unit's row, with its bias if both have one, or its
        column.

        Raises:
            PortError: NaN or Inf in a weight.
        """
        biased = all(site.bias is not None for site in self.pair)
        a, b = (
            _rows(site, tensors, biased) if self.out else site.weight.of(tensors[site.weight.key]).T
            for site, tensors in zip(self.pair, weights, strict=True)
        )
        if not (is_finite(a) and is_finite(b)):
            raise PortError(f"NaN or Inf in {self.pair.base.name} (base) or {self.pair.target.name} (target)")
        dtype = torch.promote_types(b.dtype, torch.float32)
        return a.to(b.device, dtype), b.to(dtype)


def match_heads(places: Sequence[Place], weights: Weights, heads: int) -> Tensor:
    """Return (heads,), int64: for every head of B its head of A, by least Σ ‖σ_B − σ_A‖ over the places.

    σ are the singular values of a head's rows or columns.
    """
    if heads == 1:
        return torch.zeros(1, dtype=torch.long)
    spectra = (
        [torch.linalg.svdvals(torch.unflatten(rows, 0, (heads, -1))) for rows in place.read(weights)]
        for place in places
    )
    return _assigned(sum(((b[:, None] - a[None]).norm(dim=-1) for a, b in spectra), torch.zeros(())))


def match_units(places: Sequence[Place], weights: Weights, heads: Tensor) -> Tensor:
    """Return (units,), int64: for every unit of B its unit of A in the matched head, by the largest sum of inner
    products over the places.

    Args:
        heads: for every head of B its head of A.
    """
    alike = torch.zeros(())
    for place in places:
        a, b = (torch.unflatten(rows, 0, (len(heads), -1)) for rows in place.read(weights))
        alike = alike + b @ a[heads.to(a.device)].mT
    width = alike.shape[1]
    return torch.cat([head * width + _assigned(-block) for head, block in zip(heads, alike, strict=True)])


def _assigned(cost: Tensor) -> Tensor:
    """Return for every row its column in the one-to-one assignment of least cost."""
    return torch.from_numpy(linear_sum_assignment(cost.cpu().numpy())[1])


def _places(pairs: Sequence[Pair]) -> tuple[dict[str, list[Place]], dict[str, list[Place]]]:
    """Return the places of B's hidden coordinates, by their name and by their group."""
    places: dict[str, list[Place]] = defaultdict(list)
    groups: dict[str, list[Place]] = defaultdict(list)
    for pair in pairs:
        for out, hidden in ((True, pair.target.hidden_out), (False, pair.target.hidden_in)):
            if hidden is not None:
                places[hidden.name].append(Place(pair, out))
                groups[hidden.group or hidden.name].append(Place(pair, out))
    return places, groups


def _rows(site: Site, tensors: Tensors, biased: bool) -> Tensor:
    """Return a site's weight, with its bias as one more column if `biased`."""
    weight = site.weight.of(tensors[site.weight.key])
    if site.bias is None or not biased:
        return weight
    return torch.cat([weight, site.bias.of(tensors[site.bias.key])[:, None]], dim=1)


def _heads(hidden: Hidden | None) -> str:
    return "no hidden units" if hidden is None else f"{hidden.heads} head{'s' * (hidden.heads > 1)}"
