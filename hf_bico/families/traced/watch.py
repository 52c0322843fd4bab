"""One forward pass, watched: which linear map reads whose output, through what, and what attention takes.

Every tensor is followed back to the last linear maps that it came from. So two maps with nothing between them but an
activation are seen as an MLP whatever its layers are called, and what `scaled_dot_product_attention` is called with,
or what a softmax of products stands for, as queries, keys and values.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hf_bico.core.kernels import Window
from hf_bico.families.traced.diagonals import CONVOLUTIONS, Call, Diagonal, Diagonals, Uses

PRODUCTS = {"linear", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "baddbmm", "einsum"}
BENDS = {
    *("silu", "gelu", "relu", "relu_", "relu6", "leaky_relu", "elu", "mish", "tanh", "sigmoid", "softplus"),
    *("hardtanh", "hardswish", "quick_gelu", "erf", "elu_", "silu_", "hardsigmoid"),
}
"""Names of functions that act on every number alone and are not linear."""
FLIPS = {"t", "transpose", "permute", "__get__", "adjoint"}
"""Names of functions that give a matrix of weights the other way round; `W.T` is a `__get__`."""
CUTS = {"view", "reshape", "__getitem__", "chunk", "split", "unbind", "narrow", "select"}
"""Names of functions that give a part of a weight, or another shape of it."""
ATTENTION = "@"
"""In front of the number of an attention, which is a source of tensors like a linear map is."""


@dataclass(frozen=True)
class Rows:
    """Rows of a weight: those in [start, stop), and again after every `every` rows."""

    start: int
    stop: int
    every: int
    """The weight's d_out where they are one range."""


@dataclass(frozen=True)
class Trail:
    """Where a tensor comes from, back to the last linear maps."""

    maps: frozenset[str] = frozenset()
    """Names of their weights, and "@0", "@1" … for what attention gave."""
    bent: frozenset[str] = frozenset()
    """Those of them that went through something that is not linear."""
    scores: "tuple[Tensor, Tensor] | None" = None
    """The queries and keys whose products it holds."""
    weights: "tuple[Tensor, Tensor] | None" = None
    """The queries and keys whose softmax it holds."""
    through: frozenset[str] = frozenset()
    """Names of the diagonal maps that it went through since."""


@dataclass(frozen=True)
class Weight:
    """A weight, or a part of it, that a tensor is."""

    name: str
    flipped: bool = False
    """Whether it is the other way round than it is stored."""
    whole: bool = True


@dataclass(frozen=True)
class Read:
    """One run of a linear map."""

    x: Tensor
    y: Tensor
    trail: Trail
    """Of x."""
    transposed: bool
    """Whether the weight is stored (d_in, d_out)."""
    plain: bool
    """Whether it is a product of rows with the whole of a matrix."""
    run: frozenset[str]
    """The kinds of what was passed: text, image, audio."""
    axis: int = -1
    """The axis of x and y that the map acts along: 1 of a convolution."""
    window: Window | None = None
    """Of a convolution with more than one tap."""


@dataclass
class Trace:
    """What a model did."""

    reads: dict[str, list[Read]] = field(default_factory=dict)
    """Name of a weight → its runs, in order."""
    attention: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    """The queries, keys and values of every attention, in order."""
    seen: dict[str, Tensor] = field(default_factory=dict)
    """Name of a weight → what the first activation after it saw, by which the gate of a fused MLP is known."""
    diagonals: dict[str, Diagonal] = field(default_factory=dict)
    """Name of a gain, a bias or a depthwise kernel → how it was called."""
    uses: Uses = field(default_factory=Uses)


def trail_of(x: Tensor) -> Trail:
    """Return where a tensor that the watch has seen comes from."""
    found: Trail = getattr(x, "_trail", Trail())
    return found


class Watch(TorchFunctionMode):
    """Follows every tensor while the model runs.

    Args:
        model: whose matrices are watched, embeddings apart.
        trace: what is added to.
        run: what is passed.
    """

    def __init__(self, model: nn.Module, trace: Trace, run: frozenset[str]) -> None:
        super().__init__()
        self.trace, self.run = trace, run
        self.diagonals = Diagonals(model, trace.diagonals, trace.uses)
        tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
        self.names = {id(p): n for n, p in model.named_parameters() if p.ndim > 1 and id(p) not in tables}

    def weight(self, x: Tensor) -> Weight | None:
        """Return which weight, or part of one, a tensor is; None for others."""
        part: Weight | None = getattr(x, "_weight", None)
        return part or (Weight(self.names[id(x)]) if id(x) in self.names else None)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if func is F.multi_head_attention_forward:
            return self._packed(func, args, kwargs)
        given = list(tensors([args, list(kwargs.values())]))
        weights = [x for x in given if self.weight(x)]
        rows = [x for x in given if not self.weight(x) and not isinstance(x, nn.Parameter)]
        made = func(*args, **kwargs)
        if weights and not rows:
            self._part(name, weights[0], list(tensors([made])))
        elif weights and rows and (name in PRODUCTS or (name in CONVOLUTIONS and _groups(args, kwargs) == 1)):
            second = args[_SECOND.get(name, 1)] is weights[0] if len(args) > _SECOND.get(name, 1) else False
            window = _window(weights[0], args, kwargs) if name in CONVOLUTIONS else None
            self._read(name, rows, weights[0], made, plain=second, window=window)
        elif name == "scaled_dot_product_attention":
            q, k, v = (*args, *(kwargs.get(n) for n in ("query", "key", "value")[len(args) :]))[:3]
            self._attend(q, k, v, made)
        else:
            self._follow(name, given, args, made, kwargs)
        return made

    def _part(self, name: str, weight: Tensor, made: list[Tensor]) -> None:
        """Remember that what was made of a weight is the weight, the other way round or in part."""
        own = self.weight(weight)
        assert own is not None
        if name in FLIPS and weight.ndim == 2:
            own = replace(own, flipped=not own.flipped)
        elif name in CUTS:
            own = replace(own, whole=False)
        elif name not in {"to", "float", "type_as", "contiguous", "detach"}:
            return
        for each in made:
            _mark(each, "_weight", own)

    def _read(
        self, name: str, rows: list[Tensor], weight: Tensor, y: Tensor, *, plain: bool, window: Window | None
    ) -> None:
        """Remember a run of a linear map; `plain`: that the call's factors are rows, then the weight."""
        own = self.weight(weight)
        assert own is not None
        x = next((each for each in rows if trail_of(each).maps), rows[-1])
        stored = name.startswith("linear") or name.startswith("conv")
        axis = 1 if name.startswith("conv") else -1
        # y = x Wᵀ for `linear`, y = x W for the others
        plain = plain and own.whole and name in PLAIN
        read = Read(x, y, trail_of(x), stored == own.flipped, plain, self.run, axis, window)
        self.trace.reads.setdefault(own.name, []).append(read)
        self.diagonals.read(own.name, x, [y])
        _mark(y, "_trail", Trail(frozenset({own.name})))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, made: Any) -> None:
        self.trace.attention.append((q, k, v))
        mark = Trail(frozenset({f"{ATTENTION}{len(self.trace.attention) - 1}"}))
        for each in tensors([made]):
            _mark(each, "_trail", mark)

    def _follow(self, name: str, given: list[Tensor], args: tuple[Any, ...], made: Any, kwargs: dict[str, Any]) -> None:
        """Carry trails over to what a function gives."""
        trails = [trail_of(x) for x in given]
        weighed = next(((x, asked) for x in given if (asked := trail_of(x).weights)), None)
        moving = [x for x in given if trail_of(x).maps]
        if name in PRODUCTS and weighed is not None:
            values = [x for x in given if x is not weighed[0]]
            return self._attend(*weighed[1], values[-1], made)
        maps = frozenset[str]().union(*(trail.maps for trail in trails))
        bent = frozenset[str]().union(*(trail.bent for trail in trails))
        scores = next((trail.scores for trail in trails if trail.scores), None)
        weights = next((trail.weights for trail in trails if trail.weights), None)
        if name in PRODUCTS and len(moving) > 1:
            scores = moving[-2], moving[-1]
        if "softmax" in name:
            scores, weights = None, scores
        if name in BENDS and given:
            bent |= maps
            for source in maps:
                self.trace.seen.setdefault(source, given[0])
        through = frozenset[str]().union(*(trail.through for trail in trails))
        call = Call(_groups(args, kwargs), [x for x in args if isinstance(x, int | float)])
        through |= self.diagonals.call(name, given, list(tensors([made])), maps, through, call)
        trail = Trail(maps, bent, scores, weights, through)
        for each in tensors([made]):
            _mark(each, "_trail", trail)
        if name == "__setitem__":
            before = trail_of(args[0])
            both = replace(trail, maps=before.maps | maps, bent=before.bent | bent)
            _mark(args[0], "_trail", replace(both, through=before.through | through))

    def _packed(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Watch `F.multi_head_attention_forward`, which has its linear maps and its attention inside."""
        made, (q, k, v), fused, out = func(*args, **kwargs), args[:3], args[5], args[11]
        parts = (
            [fused] * 3
            if fused is not None and fused.numel()
            else [kwargs[f"{n}_proj_weight"] for n in ("q", "k", "v")]
        )
        plain = parts[0] is fused  # apart, the taps cannot watch them
        inside: list[Tensor] = []
        for number, (weight, x) in enumerate(zip(parts, (q, k, v), strict=True)):
            own = self.weight(weight)
            y = torch.empty(0)
            if weight is fused:
                width = weight.shape[0] // 3
                _mark(y, "_rows", Rows(number * width, (number + 1) * width, 3 * width))
            if own is not None:
                if weight is not fused or not inside:
                    read = Read(x, y, trail_of(x), False, plain, self.run)
                    self.trace.reads.setdefault(own.name, []).append(read)
                self.diagonals.read(own.name, x, [y])
                _mark(y, "_trail", Trail(frozenset({own.name})))
            inside.append(y)
        mixed = torch.empty(0)
        self._attend(inside[0], inside[1], inside[2], mixed)
        own = self.weight(out)
        if own is not None:
            self.trace.reads.setdefault(own.name, []).append(Read(q, made[0], trail_of(mixed), False, plain, self.run))
            self.diagonals.read(own.name, mixed, [made[0]])
            _mark(made[0], "_trail", Trail(frozenset({own.name})))
        return made


_SECOND = {"addmm": 2}
"""Where a product's second factor is among its arguments, if not at 1."""
PLAIN = {"linear", "matmul", "__matmul__", "addmm", "conv1d", "conv2d"}
"""Products that the taps of the method can watch."""


def tensors(x: Any) -> Iterator[Tensor]:
    """Yield the tensors in a nest of lists, tuples and dicts, in order."""
    if isinstance(x, Tensor):
        yield x
    elif isinstance(x, dict):
        yield from tensors(list(x.values()))
    elif isinstance(x, list | tuple):
        for each in x:
            yield from tensors(each)


def _groups(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Return in how many groups of channels a convolution goes."""
    return int(kwargs.get("groups", args[6] if len(args) > 6 and isinstance(args[6], int) else 1))


def _window(weight: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Window | None:
    """Return what a convolution reads for a row; None where that is one row."""
    size, step = tuple(weight.shape[2:]), kwargs.get("stride", args[3] if len(args) > 3 else 1)
    steps = (step,) * len(size) if isinstance(step, int) else tuple(step)
    return Window(size, cuts=steps == size) if weight.shape[2:].numel() > 1 else None


def _mark(x: Tensor, what: str, value: Any) -> None:
    setattr(x, what, value)
