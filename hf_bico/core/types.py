"""The objects of a port: sites, pairs, signals, fits and maps.

Letters follow the paper: A is the base that was fine-tuned, B the target (the new base), a weight is (d_out, d_in),
τ = θ_A,ft − θ_A.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Literal, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from hf_bico.core.kernels import Window
from hf_bico.core.low_rank import Factor, LowRank, in_form_of

Tensors = Mapping[str, Tensor]
"""Named tensors of a model, read one at a time: a state dict, a safetensors file or their difference."""


Part = TypeVar("Part", Tensor, LowRank)


class Signal(Enum):
    """What is watched at a site while a batch passes."""

    INPUT = "input"
    """X, the rows that the weight multiplies."""
    OUTPUT = "output"
    """Y, the rows that come out."""
    OUTPUT_GRADIENT = "output gradient"
    """G = ∂L/∂Y, the loss's gradient at the rows that come out."""
    INPUT_GRADIENT = "input gradient"
    """∂L/∂X, the loss's gradient at the rows that the weight multiplies."""
    WEIGHTED_INPUT = "weighted input"
    """w [X, 1] (d_in + 1) with w = √‖∂L/∂X‖ row by row: X as far as the loss looks at it, and w itself."""
    WEIGHTED_GRADIENT = "weighted output gradient"
    """‖X‖ G / √‖G‖ row by row: longer with the row's input, and damped, lest a few samples outweigh all others."""
    LABEL_FREE_GRADIENT = "label-free output gradient"
    """∂⟨c, s⟩/∂Y for random cotangents c on scores s that do not depend on the task; the same c for A and B. Of a layer
    behind what the scores are taken of (`Site.on_top`), Y itself."""
    WEIGHT_GRADIENT = "weight gradient"
    """∂L/∂W of B alone."""
    WEIGHT = "weight"
    """W itself, of A and B."""
    TRAFFIC = "traffic"
    """softmax(Y) of a router: how it shares a row among its experts."""


INPUTS = frozenset({Signal.INPUT, Signal.INPUT_GRADIENT, Signal.WEIGHTED_INPUT})
"""Signals at a site's input; sites of the same `space` share them."""
ROWS = frozenset(Signal) - {Signal.WEIGHT, Signal.WEIGHT_GRADIENT}
"""Signals that are rows of a batch, and meet in a cross-moment."""
GRADIENTS = frozenset(Signal) - {Signal.INPUT, Signal.OUTPUT, Signal.WEIGHT, Signal.TRAFFIC}
"""Signals that need a backward pass."""
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
LABEL_FREE = ROWS - OF_LOSS
"""Signals that samples without labels have too."""


@dataclass(frozen=True)
class Wanted:
    """What is to be collected from the calibration samples."""

    signals: frozenset[Signal] = frozenset()
    draws: int = 0
    """Random cotangents per sample, for `Signal.LABEL_FREE_GRADIENT`."""
    views: int = 0
    """How many other views of every sample are collected beside it."""
    mlp: Literal["auto", "whole", "merged"] = "whole"
    """Which rows inside MLPs are merged; see `hf_bico.core.merging`."""


class Stream(NamedTuple):
    """The rows of one signal at one place of a model; q, k and v share the stream of their input."""

    signal: Signal
    name: str
    run: int = 0
    """Which run of the weight in a pass they are of, from 0: blocks that share their weights run it several times."""


@dataclass(frozen=True)
class Slice:
    """Where a site's parameter lies in a state dict.

    A fused projection holds several sites in the rows of one tensor; a weight that multiplies from the right
    (`x @ W`, d_in × d_out) is stored transposed; one of a convolution is (d_out, d_in, …), and its part is a matrix a
    tap, (taps, d_out, d_in), or one matrix if the kernel is one number; those of a layer's experts can lie on one
    another in a stack (experts, d_out, d_in), their biases in (experts, d_out).
    """

    key: str
    rows: tuple[int, int] | None = None
    """[start, stop)"""
    transposed: bool = False
    every: int | None = None
    """The number of rows after which the site's come again, head by head (GPT-NeoX, BLOOM); None: they come once."""
    at: int | None = None
    """The number of the matrix or vector in a stack; None where there is no stack."""
    order: tuple[int, ...] | None = None
    """The stored row that each of the site's rows is (a router's, whose experts were matched); None: as stored."""

    def of(self, tensor: Part) -> Part:
        """Return the site's own part of `tensor`: (d_out, d_in) of a weight, (taps, d_out, d_in) of a kernel, (d_out,)
        of a bias; a view, if its rows come once.

        A part of a `LowRank` is a `LowRank`.
        """
        if isinstance(tensor, LowRank):
            matrix = tensor.T if self.transposed else tensor
            return LowRank(self._own(matrix.b, 0), matrix.a)
        matrix = self._matrix(tensor)
        return self._own(matrix, _rows_of(matrix))

    def put(self, tensor: Tensor, part: Tensor) -> None:
        """Write the site's own part of `tensor`, in place; `part` is as `of` gives it."""
        matrix = self._matrix(tensor)
        axis = _rows_of(matrix)
        if self.order is not None:
            matrix.index_copy_(axis, self._places(matrix), part.to(matrix))
        elif self.rows is None or self.every is None:
            self._own(matrix, axis).copy_(part)
        else:
            length = self.rows[1] - self.rows[0]
            again = torch.unflatten(matrix, axis, (-1, self.every)).narrow(axis + 1, self.rows[0], length)
            again.copy_(torch.unflatten(part, axis, (-1, length)))

    def put_rows(self, rows: Tensor, part: Tensor) -> None:
        """Write the site's own rows (d_out, r) of a factor (rows of the weight, r), in place."""
        replace(self, transposed=False).put(rows, part)

    def outputs(self, y: Tensor) -> Tensor:
        """Return the site's own part of what a fused weight gives, (…, d_out) of (…, rows of the weight)."""
        return self._own(y, y.ndim - 1)

    def _matrix(self, tensor: Tensor) -> Tensor:
        own = tensor if self.at is None else tensor[self.at]
        if own.ndim > 2:
            taps = own.flatten(2).movedim(-1, 0)
            return taps[0] if len(taps) == 1 else taps
        return own.T if self.transposed else own

    def _own(self, tensor: Tensor, axis: int) -> Tensor:
        if self.order is not None:
            return tensor.index_select(axis, self._places(tensor))
        if self.rows is None:
            return tensor
        start, length = self.rows[0], self.rows[1] - self.rows[0]
        if self.every is None:
            return tensor.narrow(axis, start, length)
        return torch.unflatten(tensor, axis, (-1, self.every)).narrow(axis + 1, start, length).flatten(axis, axis + 1)

    def _places(self, tensor: Tensor) -> Tensor:
        return torch.tensor(self.order, device=tensor.device)


def _rows_of(matrix: Tensor) -> int:
    """Return the axis of a weight's rows: of a kernel's taps (taps, d_out, d_in) the second."""
    return 1 if matrix.ndim == 3 else 0


@dataclass(frozen=True)
class Tokens:
    """The layout of a sample's rows: `prefix` tokens kept apart (the class token), then a grid of patches.

    An empty grid means that the site sees the prefix alone. Text has no fixed layout: its rows meet as the batch says,
    under the name of their `sequence`.
    """

    prefix: int
    grid: tuple[int, ...] = ()
    sequence: str = ""
    """Which of a batch's texts the rows belong to ("text", "labels"), or which rows of its images where these have no
    common size ("patches", "merged patches"); "" where their layout is fixed."""
    packed: bool = False
    """Whether a model may lay the rows of all samples one after the other, as many a sample as its images have. They
    meet as those of one sample."""

    @property
    def count(self) -> int:
        """The number of rows a sample."""
        n = 1 if self.grid else 0
        for side in self.grid:
            n *= side
        return self.prefix + n

    def seen_as(self, rows: int) -> "Tokens":
        """Return the layout of `rows` rows a sample, where images are not of the config's size: a grid in its
        proportions.
        """
        if len(self.grid) != 2 or rows == self.count:
            return self
        patches, (tall, wide) = rows - self.prefix, self.grid
        height = max(1, round((max(patches, 0) * tall / wide) ** 0.5))
        return replace(self, grid=(height, patches // height)) if patches % height == 0 else self


@dataclass(frozen=True)
class Hidden:
    """Coordinates inside a block, not tied to the residual stream: permuting them does not change the function."""

    name: str
    """Shared by the sites that write these coordinates (q and k, v, MLP up) and those that read them."""
    heads: int = 1
    """Number of heads of equal width that they are split into; heads of one `group` move together."""
    group: str | None = None
    """The attention that the heads belong to."""


@dataclass(frozen=True)
class Site:
    """A linear map inside a model: Y = X Wᵀ + b."""

    name: str
    role: str
    """What it does in its block; partners have the same role."""
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
    """The hidden coordinates that its outputs are; None for the residual stream and the like."""
    hidden_in: Hidden | None = None
    """The hidden coordinates that its inputs are; None as above."""
    tower: str = ""
    """Which of the model's stacks of blocks it is in; depths count within one."""
    on_top: bool = False
    """Whether it lies behind a model's features, which scores without labels are taken of, so that no gradient of
    theirs reaches it."""
    gives: str = ""
    """Name of its output, where several sites give parts of one sum (a layer's experts): they share an output map."""
    expert: int | None = None
    """The number of the expert that it is a map of: such a map sees only the rows that are sent to the expert. Of a
    pair both sites have A's number."""
    known: bool = False
    """Whether its n-th output is the same thing in both models (a router's, of experts that are matched), so that the
    output map is the identity."""
    window: Window | None = None
    """Of a convolution with more than one tap, which is a linear map (d_out, d_in) at every tap."""
    tokens_out: Tokens | None = None
    """The layout of its outputs, where they have another than its inputs."""

    @property
    def taps(self) -> int:
        """The number of its matrices (d_out, d_in): 1 but for convolutions."""
        return 1 if self.window is None else self.window.taps

    def layout(self, signal: Signal) -> Tokens:
        """Return the layout of a signal's rows."""
        return self.tokens if signal in INPUTS or self.tokens_out is None else self.tokens_out

    def stream(self, signal: Signal) -> Stream:
        """Return the stream of a signal at this site."""
        return Stream(signal, self.space if signal in INPUTS else self.gives or self.name)

    @property
    def slices(self) -> tuple[Slice, ...]:
        """Its parameters: the weight, and the bias if it has one."""
        return (self.weight,) if self.bias is None else (self.weight, self.bias)


class Pair(NamedTuple):
    """A site of A and the site of B that takes over what it learned."""

    base: Site
    target: Site

    @property
    def moving(self) -> tuple[Slice, ...]:
        """The base's parameters that have a place in the target; a bias may have none."""
        return self.base.slices if self.target.bias is not None else (self.base.weight,)

    def streams(self, signal: Signal) -> tuple[Stream, Stream]:
        """Return A's and B's stream of a signal."""
        return self.base.stream(signal), self.target.stream(signal)


@dataclass(frozen=True)
class Fit:
    """How well one side of a map is determined, and how well it matches."""

    rank: int
    """Number of directions that the data determine: singular values above the cut."""
    full: int
    """The largest rank possible, min(d_B, d_A)."""
    residual: float
    """Procrustes disparity 1 − (Σσ)² / (‖A‖² ‖B‖²), in [0, 1]: 0 is a perfect match up to scale."""


class Map(Protocol):
    """Carries a site's change from A's coordinates to B's."""

    @property
    def output_fit(self) -> Fit | None:
        """The fit of the output side; None where it has no map that was fitted."""
        ...

    @property
    def input_fit(self) -> Fit | None:
        """The fit of the input side; None as above."""
        ...

    @property
    def scale(self) -> float:
        """The factor by which it lengthens what lies in its span."""
        ...

    def weight(self, tau: Tensor) -> Tensor:
        """Return a weight's change (d_out,A, d_in,A) carried to (d_out,B, d_in,B)."""
        ...

    def product(self, tau: LowRank) -> Tensor | LowRank:
        """Return a weight's change in factors carried over, in factors if the map acts on either side linearly."""
        ...

    def bias(self, tau: Tensor) -> Tensor:
        """Return a bias's change (d_out,A,) carried to (d_out,B,)."""
        ...

    def outputs(self, rows: Tensor) -> Tensor:
        """Return rows (…, d_out,A) of outputs in the target's coordinates, (…, d_out,B); not scaled."""
        ...

    def inputs(self, rows: Tensor) -> Tensor:
        """Return rows (…, d_in,A) of inputs in the target's coordinates, (…, d_in,B); not scaled."""
        ...


At = Literal["out", "in"]
"""A linear map's outputs, or its inputs."""


@dataclass(frozen=True)
class BilinearMap:
    """The map τ_B = s L τ_A Rᵀ (BiCo: s = 1, L = R_out, R = R_in), on the factors' device and in their precision.

    A side without a factor stays as it is.
    """

    left: Factor | None
    """L (d_out,B, d_out,A)"""
    right: Factor | None
    """R (d_in,B, d_in,A)"""
    output_fit: Fit | None = None
    input_fit: Fit | None = None
    scale: float = 1.0

    def weight(self, tau: Tensor) -> Tensor:
        moved = self.bias(tau)
        return moved if self.right is None else in_form_of(moved, self.right) @ self.right.T

    def product(self, tau: LowRank) -> LowRank:
        """Return s L (B A) Rᵀ = (s L B)(A Rᵀ), in factors."""
        b, a = self.bias(tau.b), tau.a if self.right is None else in_form_of(tau.a, self.right) @ self.right.T
        side = b if self.right is None else a
        return LowRank(b.to(side.device), a.to(side.device))

    def outputs(self, rows: Tensor) -> Tensor:
        """Return rows (…, d_out,A) of outputs in the target's coordinates, (…, d_out,B)."""
        return rows if self.left is None else rows @ self.left.T.to(rows)

    def inputs(self, rows: Tensor) -> Tensor:
        """Return rows (…, d_in,A) of inputs in the target's coordinates, (…, d_in,B)."""
        return rows if self.right is None else rows @ self.right.T.to(rows)

    def bias(self, tau: Tensor) -> Tensor:
        """Return s L τ_A: a bias lives on the output side alone."""
        return self.scale * (tau if self.left is None else self.left @ in_form_of(tau, self.left))
