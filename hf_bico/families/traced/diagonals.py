"""Diagonal maps of a traced pass: gains and biases of norms, LayerScales, depthwise convolutions.

They act on every coordinate alone, so that they lie in the coordinates of the linear maps before and behind them.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from torch import Tensor, nn

from hf_bico.core.riders import Kind

NORMS = {"layer_norm", "batch_norm", "group_norm", "rms_norm", "instance_norm"}
PRODUCTS, SUMS = {"mul", "__mul__", "__rmul__", "mul_", "__imul__"}, {"add", "__add__", "__radd__", "add_", "__iadd__"}
CONVOLUTIONS = {"conv1d", "conv2d"}
"""Names of functions that a diagonal map can be an argument of."""
SAME = {
    *("view", "reshape", "permute", "transpose", "contiguous", "to", "float", "type_as", "movedim", "flatten", "roll"),
    *("unflatten", "dropout", "squeeze", "unsqueeze", "pad", "detach", "expand", "type", "view_as", "clone", "__get__"),
}
"""Names of functions after which every row is what it was, or zero."""


@dataclass
class Diagonal:
    """A diagonal map, as it was called."""

    kind: Kind
    """A gain, a bias as vectors, or a depthwise convolution."""
    width: int
    after: frozenset[str]
    """The linear maps that what it acts on comes from."""
    scales: str = ""
    """The linear map whose outputs it multiplies as they are."""
    gain: str = ""
    """Of a bias, the norm's gain."""
    apart: bool = False
    """Whether a depthwise convolution lies between it and the linear maps before it."""
    offset: float = 0.0
    """What is added to a stored gain."""


@dataclass
class Uses:
    """What is done with what a diagonal or a linear map gives."""

    readers: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Its name → the linear maps that read it, and the gains that multiply it."""
    shared: set[str] = field(default_factory=set)
    """Those that something else reads too."""

    def alone(self, name: str) -> frozenset[str]:
        """Return what reads it, if nothing else does; else nothing."""
        return frozenset() if name in self.shared else frozenset(self.readers.get(name, ()))


class Diagonals:
    """Finds the diagonal maps among the calls of a pass."""

    def __init__(self, model: nn.Module, found: dict[str, Diagonal], uses: Uses) -> None:
        self.found, self.uses = found, uses
        parameters = dict(model.named_parameters())
        self.vectors = {id(p): name for name, p in parameters.items() if p.numel() == max(p.shape, default=0) > 1}
        self.kernels = {id(p): name for name, p in parameters.items() if p.ndim > 2}

    def read(self, name: str, x: Tensor, made: Sequence[Tensor]) -> None:
        """Remember that a linear map read rows; what it gives is its own."""
        if source := source_of(x):
            self.uses.readers[source].add(name)
        for y in made:
            y._source = name  # type: ignore[attr-defined]

    def call(
        self,
        name: str,
        given: Sequence[Tensor],
        made: Sequence[Tensor],
        after: frozenset[str],
        through: frozenset[str],
        call: "Call",
    ) -> frozenset[str]:
        """Remember a call that is no linear map; return the diagonal maps that it is.

        Args:
            given, made: its tensors.
            after: the linear maps that they come from.
            through: the diagonal maps that they went through since.
            call: what else it is called with.
        """
        rows = [x for x in given if not self._is_own(x)]
        own = list(self._own(name, given, rows, call.groups))
        if not rows and len(given) == 1 and self._vector(given[0]) and made:
            added = sum(call.numbers) if name in SUMS else 0.0
            made[0]._vector, made[0]._offset = self._vector(given[0]), offset_of(given[0]) + added  # type: ignore[attr-defined]
        if own:
            apart = any(self.found[each].kind is Kind.DEPTHWISE for each in through)
            self._remember(name, own, rows[0], made, Diagonal(Kind.GAIN, 0, after, apart=apart))
            for x in given:
                if self._vector(x) in self.found:
                    self.found[self._vector(x)].offset = offset_of(x)
            return frozenset(key for key, _, _ in own)
        for x in rows:
            source = source_of(x)
            if source and name in SAME:
                for y in made:
                    y._source = source  # type: ignore[attr-defined]
            elif source and (name == "__setitem__" or any(y.is_floating_point() for y in made)):
                self.uses.shared.add(source)
        return frozenset()

    def _remember(
        self, name: str, own: Sequence[tuple[str, Kind, int]], x: Tensor, made: Sequence[Tensor], like: Diagonal
    ) -> None:
        source, first = source_of(x), own[0]
        gain = next((key for key, kind, _ in own if kind is Kind.GAIN), "")
        scales = source if name in PRODUCTS and gain and source not in self.found else ""
        if source and scales:
            self.uses.readers[source].add(gain)
        elif source and name not in SUMS:
            self.uses.shared.add(source)
        if name in SUMS:  # the bias of a norm that is spelled out
            gain = source if source in self.found and self.found[source].kind is Kind.GAIN else ""
            if source and not gain:
                self.uses.shared.add(source)
        for key, kind, width in own:
            of, scaled = (gain, "") if kind is Kind.VECTORS else ("", scales)
            self.found.setdefault(key, replace(like, kind=kind, width=width, scales=scaled, gain=of))
        for y in made:
            y._source = gain if first[1] is not Kind.DEPTHWISE else ""  # type: ignore[attr-defined]

    def _is_own(self, x: Tensor) -> bool:
        return isinstance(x, nn.Parameter) or bool(self._vector(x))

    def _vector(self, x: Tensor) -> str:
        return self.vectors.get(id(x)) or str(getattr(x, "_vector", ""))

    def _own(
        self, name: str, given: Sequence[Tensor], rows: Sequence[Tensor], groups: int
    ) -> Iterator[tuple[str, Kind, int]]:
        """Yield (name, kind, width) of the diagonal maps that a call is."""
        if not rows:
            return
        vectors = [(self._vector(x), x.numel()) for x in given if self._vector(x)]
        if name in NORMS:
            for key, width in vectors:
                yield key, Kind.VECTORS if key.endswith("bias") else Kind.GAIN, width
        elif name in PRODUCTS | SUMS and len(vectors) == 1 and rows[0].ndim > 1:
            yield vectors[0][0], Kind.GAIN if name in PRODUCTS else Kind.VECTORS, vectors[0][1]
        elif name in CONVOLUTIONS:
            kernel = next((x for x in given if id(x) in self.kernels), None)
            if kernel is None or not groups == len(kernel) == rows[0].shape[1] or kernel.shape[1] != 1:
                return
            yield self.kernels[id(kernel)], Kind.DEPTHWISE, len(kernel)
            for key, width in vectors:
                if key != self.kernels[id(kernel)]:
                    yield key, Kind.VECTORS, width


class Call(NamedTuple):
    """What a function is called with besides tensors."""

    groups: int
    """Of a convolution."""
    numbers: list[float]


def offset_of(x: Tensor) -> float:
    """Return what was added to a parameter to get a tensor."""
    return float(getattr(x, "_offset", 0.0))


def source_of(x: Tensor) -> str:
    """Return which linear map or gain gave a tensor, as it is but for its shape."""
    return str(getattr(x, "_source", ""))


def escaped(uses: Uses, outputs: Collection[Tensor]) -> None:
    """Remember that a model's outputs are read by whoever called it."""
    uses.shared |= {source_of(x) for x in outputs}
