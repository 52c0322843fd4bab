"""The nouns of a port: sites, pairs, signals, fits and maps.

Letters follow the paper: A is the base that was fine-tuned, B the target, the new base; a weight is (d_out, d_in);
τ = θ_A,ft − θ_A.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple, Protocol, TypeVar

from torch import Tensor

from hf_bico.core.low_rank import LowRank

Tensors = Mapping[str, Tensor]
"""Named tensors of a model, read one at a time: a state dict, a safetensors file or their difference."""


Part = TypeVar("Part", Tensor, LowRank)


class Signal(Enum):
    """What is watched at a site while a batch passes."""

    INPUT = "input"
    """X, the rows that the weight multiplies."""
    OUTPUT = "output"
    """Y, the rows that it gives."""
    OUTPUT_GRADIENT = "output gradient"
    """G = ∂L/∂Y at the rows that it gives."""
    INPUT_GRADIENT = "input gradient"
    """∂L/∂X at the rows that it multiplies."""
    WEIGHTED_INPUT = "weighted input"
    """w [X, 1] (d_in + 1) with w = √‖∂L/∂X‖ row by row: what of X the loss looks at, and w itself."""
    WEIGHTED_GRADIENT = "weighted output gradient"
    """‖X‖ G / √‖G‖ row by row: as far as its input is long, and tamed, lest few samples outweigh all others."""
    LABEL_FREE_GRADIENT = "label-free output gradient"
    """∂⟨c, s⟩/∂Y for random cotangents c on scores s that know nothing of the task; the same c for A and B."""
    WEIGHT_GRADIENT = "weight gradient"
    """∂L/∂W of B alone."""
    WEIGHT = "weight"
    """W itself, of both."""


INPUTS = frozenset({Signal.INPUT, Signal.INPUT_GRADIENT, Signal.WEIGHTED_INPUT})
"""Signals of what a site reads; sites with one `space` share them."""
ROWS = INPUTS | {Signal.OUTPUT, Signal.OUTPUT_GRADIENT, Signal.WEIGHTED_GRADIENT, Signal.LABEL_FREE_GRADIENT}
"""Signals that are rows of a batch, and meet in a cross-moment."""
GRADIENTS = frozenset(Signal) - {Signal.INPUT, Signal.OUTPUT, Signal.WEIGHT}
"""Signals that take a backward pass."""
OF_LOSS = frozenset(
    {
        Signal.OUTPUT_GRADIENT,
        Signal.INPUT_GRADIENT,
        Signal.WEIGHTED_INPUT,
        Signal.WEIGHTED_GRADIENT,
        Signal.WEIGHT_GRADIENT,
    }
)
"""Signals that are gradients of the task's loss."""


@dataclass(frozen=True)
class Wanted:
    """What is to be collected of the calibration samples."""

    signals: frozenset[Signal] = frozenset()
    draws: int = 0
    """Random cotangents a sample, for `Signal.LABEL_FREE_GRADIENT`."""


class Stream(NamedTuple):
    """One matrix of rows that a model shows while a batch passes; q, k and v share the stream of their input."""

    signal: Signal
    name: str


@dataclass(frozen=True)
class Slice:
    """Where a site's parameter lies in a state dict.

    A fused projection holds several sites in the rows of one tensor; a weight that multiplies from the right
    (`x @ W`, d_in × d_out) is stored transposed.
    """

    key: str
    rows: tuple[int, int] | None = None
    transposed: bool = False

    def of(self, tensor: Part) -> Part:
        """Return the site's own part of `tensor`, as a view: (d_out, d_in) for a weight, (d_out,) for a bias;
        of a product,
        the product that it is.
        """
        matrix = tensor.T if self.transposed else tensor
        return matrix if self.rows is None else matrix[slice(*self.rows)]


@dataclass(frozen=True)
class Tokens:
    """How a sample's rows lie: `prefix` tokens kept apart (the class token), then a grid of patches.

    An empty grid means that the site sees the prefix alone. Text has no layout of its own: its rows meet as the batch
    says, under the name of their `sequence`.
    """

    prefix: int
    grid: tuple[int, ...] = ()
    sequence: str = ""
    """Which of a batch's texts the rows are of ("text", "labels"); "" where their layout is fixed."""

    @property
    def count(self) -> int:
        n = 1 if self.grid else 0
        for side in self.grid:
            n *= side
        return self.prefix + n

    def seen_as(self, rows: int) -> "Tokens":
        """Return the layout of so many rows a sample: of images that are not of the config's size, in its
        proportions.
        """
        if len(self.grid) != 2 or rows == self.count:
            return self
        patches, (tall, wide) = rows - self.prefix, self.grid
        height = max(1, round((max(patches, 0) * tall / wide) ** 0.5))
        return replace(self, grid=(height, patches // height)) if patches % height == 0 else self


@dataclass(frozen=True)
class Hidden:
    """Coordinates inside a block that no residual stream ties: they can be permuted without changing the function."""

    name: str
    """Shared by the sites that give these coordinates (q and k, v, MLP up) and that read them."""
    heads: int = 1
    """In how many heads of equal width they fall; heads with one `group` move together."""
    group: str | None = None
    """The attention whose heads they are."""


@dataclass(frozen=True)
class Site:
    """A linear map inside a model: Y = X Wᵀ + b."""

    name: str
    role: str
    """What it does in its block; partners share it."""
    depth: int | None
    """Its block, 0-based; None outside the blocks."""
    weight: Slice
    bias: Slice | None
    d_out: int
    d_in: int
    space: str
    """Name of its input; sites that read the same rows share it, and with it their input map."""
    tokens: Tokens
    hidden_out: Hidden | None = None
    """What its outputs are coordinates of; None for the residual stream and the like."""
    hidden_in: Hidden | None = None
    """What its inputs are coordinates of."""
    tower: str = ""
    """Which of the model's stacks of blocks it is in; depths count within one."""

    def stream(self, signal: Signal) -> Stream:
        return Stream(signal, self.space if signal in INPUTS else self.name)

    @property
    def slices(self) -> tuple[Slice, ...]:
        return (self.weight,) if self.bias is None else (self.weight, self.bias)


class Pair(NamedTuple):
    """A site of A and the site of B that takes over what it learned."""

    base: Site
    target: Site

    @property
    def moving(self) -> tuple[Slice, ...]:
        """What of the base's parameters has a place in the target: a bias may have none."""
        return self.base.slices if self.target.bias is not None else (self.base.weight,)

    def streams(self, signal: Signal) -> tuple[Stream, Stream]:
        return self.base.stream(signal), self.target.stream(signal)


@dataclass(frozen=True)
class Fit:
    """How well one side of a map is determined and how well it matches."""

    rank: int
    """Directions that the data determine: singular values above the cut."""
    full: int
    """The most there could be, min(d_B, d_A)."""
    residual: float
    """Procrustes disparity 1 − (Σσ)² / (‖A‖² ‖B‖²), in [0, 1]: 0 is a perfect match up to scale."""


class Map(Protocol):
    """Carries a site's change from A to B."""

    @property
    def output_fit(self) -> Fit | None: ...

    @property
    def input_fit(self) -> Fit | None: ...

    @property
    def scale(self) -> float:
        """How much longer or shorter it makes what lies in its span."""
        ...

    def weight(self, tau: Tensor) -> Tensor:
        """Return (d_out,A, d_in,A) → (d_out,B, d_in,B)"""
        ...

    def product(self, tau: LowRank) -> Tensor | LowRank:
        """Return the same of a change in factors, which stays so if the map is linear on either side."""
        ...

    def bias(self, tau: Tensor) -> Tensor:
        """Return (d_out,A,) → (d_out,B,)"""
        ...


@dataclass(frozen=True)
class BilinearMap:
    """τ_B = s L τ_A Rᵀ (BiCo: s = 1, L = R_out, R = R_in), on the factors' device and in their precision.

    A side without a factor stays as it is.
    """

    left: Tensor | None
    """(d_out,B × d_out,A)"""
    right: Tensor | None
    """(d_in,B × d_in,A)"""
    output_fit: Fit | None = None
    input_fit: Fit | None = None
    scale: float = 1.0

    def weight(self, tau: Tensor) -> Tensor:
        moved = self.bias(tau)
        return moved if self.right is None else moved.to(self.right) @ self.right.T

    def product(self, tau: LowRank) -> LowRank:
        """Return L (B A) Rᵀ = (L B)(A Rᵀ)"""
        b, a = self.bias(tau.b), tau.a if self.right is None else tau.a.to(self.right) @ self.right.T
        side = b if self.right is None else a
        return LowRank(b.to(side.device), a.to(side.device))

    def bias(self, tau: Tensor) -> Tensor:
        """Return a bias lives on the output side alone."""
        return self.scale * (tau if self.left is None else self.left @ tau.to(self.left))
