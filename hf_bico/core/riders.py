"""What moves beside the linear maps: tensors that one side of a linear map's change carries along.

A vector of the residual stream (a token's embedding, a position, a bias of a norm) moves by the orthogonal map of the
stream, which a linear map that writes or reads there has anyway: no statistics of its own are collected.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import torch
from torch import Tensor

from hf_bico.core.difference import Compared
from hf_bico.core.gains import through
from hf_bico.core.kernels import Window, fitted, resized
from hf_bico.core.linalg import grid_resample
from hf_bico.core.sides import matrix, whole_side
from hf_bico.core.types import At, Map, Pair, Tensors, Tokens


class Kind(StrEnum):
    """How a tensor lies in the coordinates of a linear map's side."""

    VECTORS = "vectors"
    """Its rows are vectors there: they move by R."""
    KERNEL = "kernel"
    """A convolution's kernel (d, c, h, w): its outputs move by R, its patches are resized."""
    GAIN = "gain"
    """A diagonal matrix: the diagonal of R diag(γ) Rᵀ, (R ∘ R) γ. Exact for a permutation."""
    HEADS = "heads"
    """A number a head: (R ∘ R) pooled to heads."""
    UNITS = "units"
    """A gain of a head's units that all heads share: (R ∘ R) pooled to units."""
    NUMBERS = "numbers"
    """A number a row, which lies in no coordinates: it moves as it is."""
    DEPTHWISE = "depthwise"
    """A convolution of every channel alone, (d, 1, …): a diagonal matrix a tap, which moves as a gain does."""


class Rows(StrEnum):
    """How the rows of two such tensors meet."""

    NUMBER = "number"
    """The n-th meets the n-th."""
    GRID = "grid"
    """By their place in the image: the grid is resampled."""
    TOKENS = "tokens"
    """Tokens that both vocabularies have."""


LEAST = 0.5
"""The least share of the samples' rows that a map must explain to carry anything along; see docs/method.md."""


@dataclass(frozen=True)
class Rider:
    """A tensor outside the linear maps, and the linear map whose change carries it."""

    role: str
    """What it is; partners have the same role in the same tower."""
    group: str
    """What it is called where kinds of tensors are chosen."""
    key: str
    kind: Kind
    on: str
    """Name of the site whose map carries it."""
    side: At = "out"
    """Which side of that map."""
    axis: int = -1
    """The axis of the tensor that lies in the map's coordinates."""
    rows: Rows = Rows.NUMBER
    first: int = 0
    """The number of the first row that counts: RoBERTa's positions begin at 2."""
    tokens: Tokens | None = None
    """The layout of its rows on a grid."""
    width: int = 0
    """How many coordinates that side has; told for tensors that are no vectors."""
    heads: int = 1
    """Number of heads of the map's coordinates, of a tensor that has a number for each of them or of their units."""
    tower: str = ""
    depth: int | None = None
    tied: tuple[str, ...] = ()
    """Other names of the same tensor."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Every name that it has."""
        return self.key, *self.tied


Meet = Callable[[Tensor], Tensor]
"""Rows of A's tensor (n_A, d) → those of B's (n_B, d)."""


@dataclass(frozen=True)
class Picked:
    """Rows that meet one to one; the others of B are zero."""

    count: int
    """n_B"""
    there: Tensor
    """(m,), int64: rows of B."""
    here: Tensor
    """(m,), int64: their partners in A."""

    def __call__(self, rows: Tensor) -> Tensor:
        found = rows.new_zeros(self.count, rows.shape[-1])
        found[self.there.to(rows.device)] = rows[self.here.to(rows.device)]
        return found


@dataclass(frozen=True)
class Resampled:
    """Rows of B that are weighted sums of A's."""

    weights: Tensor
    """(n_B, n_A)"""

    def __call__(self, rows: Tensor) -> Tensor:
        return self.weights.to(rows) @ rows


class Ride(NamedTuple):
    """A tensor of A, the tensor of B that takes over what it learned, and how their rows meet."""

    base: Rider
    target: Rider
    meet: Meet | None = None
    """None where they are the same rows."""


@dataclass(frozen=True)
class Rode:
    """What became of a tensor's change."""

    source: str
    target: str
    role: str
    norm: float
    """‖τ_A‖, Frobenius."""
    taken: float
    """The share of ‖τ_A‖² in rows that the target has."""


Vocabularies = tuple[Mapping[str, int], Mapping[str, int]]
"""Token → row of the embeddings, of A and of B."""


def pair_riders(
    base: Iterable[Rider],
    target: Iterable[Rider],
    pairs: Sequence[Pair],
    shapes: tuple[Mapping[str, Sequence[int]], Mapping[str, Sequence[int]]],
    vocabularies: Vocabularies | None = None,
) -> tuple[Ride, ...]:
    """Return the tensors that move along with the pairs; those without a partner are left out.

    Args:
        shapes: those of A's and of B's tensors, by name.
        vocabularies: None: rows of embeddings meet where both have as many.
    """
    partner = {pair.target.name: pair.base.name for pair in pairs}
    inside = {(each.role, each.tower, each.on): each for each in base if each.depth is not None}
    outside = {(each.role, each.tower): each for each in base if each.depth is None}
    rides = []
    for there in target:
        if there.on not in partner:
            continue
        here = (
            outside.get((there.role, there.tower))
            if there.depth is None
            else inside.get((there.role, there.tower, partner[there.on]))
        )
        sizes = None if here is None else (tuple(shapes[0][here.key]), tuple(shapes[1][there.key]))
        if here is None or sizes is None or here.kind is not there.kind:
            continue
        if here.kind in (Kind.KERNEL, Kind.DEPTHWISE) and (
            len(sizes[0]) != len(sizes[1]) or sizes[0][1] != sizes[1][1]
        ):
            continue  # grey images against coloured ones, films against images
        if here.kind is Kind.HEADS and sizes[0][0] != sizes[1][0]:
            continue  # distances in windows of another size
        met, meet = _meeting(here, there, *sizes, vocabularies)
        if met:
            rides.append(Ride(here, there, meet))
    return tuple(rides)


def _meeting(
    here: Rider, there: Rider, a: tuple[int, ...], b: tuple[int, ...], vocabularies: Vocabularies | None
) -> tuple[bool, Meet | None]:
    """Return whether any rows of two tensors of these shapes meet, and how; None where they are the same rows."""
    if here.kind not in (Kind.VECTORS, Kind.NUMBERS):
        return True, None
    n_a, n_b = _count(a, here), _count(b, there)
    if there.rows is Rows.TOKENS and vocabularies is not None:
        own, theirs = vocabularies
        shared = [(theirs[token], row) for token, row in own.items() if token in theirs]
        shared = sorted((there, here) for there, here in shared if there < n_b and here < n_a)
        if not shared:
            return False, None
        rows_b, rows_a = torch.tensor(shared).unbind(1)
        alike = n_a == n_b and len(shared) == n_a and torch.equal(rows_a, rows_b)
        return True, None if alike else Picked(n_b, rows_b, rows_a)
    if there.rows is Rows.TOKENS:
        return n_a == n_b, None
    if there.rows is Rows.GRID and here.tokens is not None and there.tokens is not None:
        if here.tokens == there.tokens:
            return True, None
        prefixes = here.tokens.prefix, there.tokens.prefix
        return True, Resampled(grid_resample(here.tokens.grid, there.tokens.grid, prefix=prefixes))
    if (n_a, here.first) == (n_b, there.first):
        return True, None
    rows = torch.arange(min(n_a - here.first, n_b - there.first))
    return len(rows) > 0, Picked(n_b, rows + there.first, rows + here.first)


def _count(shape: tuple[int, ...], rider: Rider) -> int:
    return int(torch.Size(shape).numel() // (1 if rider.kind is Kind.NUMBERS else shape[rider.axis]))


def _rows(rider: Rider, tensor: Tensor) -> Tensor:
    """Return a tensor as rows in the map's coordinates, (n, d); of numbers, (n, 1)."""
    if rider.kind is Kind.NUMBERS:
        return tensor.reshape(-1, 1)
    return tensor.movedim(rider.axis, -1).reshape(-1, tensor.shape[rider.axis])


def by_site(rides: Iterable[Ride]) -> dict[str, list[Ride]]:
    """Return the rides by the name of the target's site whose map carries them."""
    found: dict[str, list[Ride]] = defaultdict(list)
    for ride in rides:
        found[ride.target.on].append(ride)
    return found


def along(
    tau: Tensors, rides: Iterable[Ride], map_: Map, shapes: Mapping[str, Tensor]
) -> Iterator[tuple[str, Tensor, Rode]]:
    """Yield (name, change of the target's tensor, what is told of it) of what a map carries along; unchanged tensors
    are left out, and those that the map knows too little of.

    Args:
        shapes: name → anything with the target's tensor's `shape`.
    """
    for ride in rides:
        key, change = change_of(tau, ride, map_)
        name = next((key for key in ride.target.keys if key in shapes), None)
        if name is None or change is None or not change.any() or trust(map_, ride.target.side) < LEAST:
            continue
        norm = float(change.norm())
        told = Rode(key, name, ride.target.role, norm, parted(ride, change)[0])
        yield name, carried(ride, change, map_, tuple(shapes[name].shape)), told


def change_of(tau: Tensors, ride: Ride, map_: Map | None = None) -> tuple[str, Tensor | None]:
    """Return the name of a tensor of A that rides, and its change; None where it has none.

    Args:
        map_: what carries it; None: the change as it is, whatever carries it.
    """
    key = next((key for key in ride.base.keys if key in tau), ride.base.key)
    if key in tau:
        return key, tau[key] if map_ is None else through(tau, key, map_)[key]
    return key, tau.filled(key) if isinstance(tau, Compared) else None


def parted(ride: Ride, tau: Tensor) -> tuple[float, int]:
    """Return the share of ‖τ‖² in rows that have a partner in the target, and how many changed rows have none."""
    if not isinstance(ride.meet, Picked):
        return 1.0, 0
    sizes = _rows(ride.base, tau).square().sum(1)
    kept = sizes[ride.meet.here.to(sizes.device)]
    lost = int((sizes > 0).sum() - (kept > 0).sum())
    return (float(kept.sum() / sizes.sum()), lost) if lost else (1.0, 0)


def carried(ride: Ride, tau: Tensor, map_: Map, shape: tuple[int, ...]) -> Tensor:
    """Return a tensor's change τ_A in the target's coordinates, of the target's shape."""
    kind, axis = ride.base.kind, ride.base.axis
    side = whole_side(map_, ride.target.side)
    if kind in (Kind.VECTORS, Kind.KERNEL, Kind.NUMBERS):
        rows = resized(tau.movedim(axis, -1), shape[2:]) if kind is Kind.KERNEL else _rows(ride.base, tau)
        rows = ride.meet(rows) if ride.meet is not None else rows
        if kind is Kind.NUMBERS:
            return map_.scale * rows.reshape(shape)
        rest = shape[:axis] if axis == -1 else shape[1:]
        return map_.scale * trust(map_, ride.target.side) * side(rows).reshape(*rest, -1).movedim(-1, axis)
    squares = matrix(map_, ride.target.side, ride.base.width).square().to(tau)
    if kind is Kind.HEADS:
        return map_.scale * tau @ _pooled(ride, squares).sum((1, 3)).T * ride.target.heads / len(squares)
    if kind is Kind.DEPTHWISE:
        taps = fitted(tau.flatten(1).T[..., None], Window(tuple(tau.shape[2:])), Window(shape[2:]))
        return map_.scale * (squares @ taps[..., 0].T).reshape(shape)
    if kind is Kind.UNITS:
        squares = _pooled(ride, squares).sum((0, 2)) / ride.target.heads
    return map_.scale * (squares @ tau.flatten()).reshape(shape)


def trust(map_: Map, side: At) -> float:
    """Return the share of the samples' rows that one side of a map explains, (Σσ)² / (‖A‖² ‖B‖²); 1 where nothing was
    fitted, and between twins.
    """
    fit = map_.output_fit if side == "out" else map_.input_fit
    return 1.0 if fit is None else max(0.0, 1.0 - fit.residual)


def _pooled(ride: Ride, squares: Tensor) -> Tensor:
    """Return (d_B, d_A) as (heads of B, their units, heads of A, their units)."""
    heads_b, heads_a = ride.target.heads, ride.base.heads
    return squares.reshape(heads_b, len(squares) // heads_b, heads_a, squares.shape[1] // heads_a)
