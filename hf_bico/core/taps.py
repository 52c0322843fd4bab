"""Hooks on the linear maps of a running model, whatever module they hide in.

A tap watches a parameter, not a module: the rows that a weight multiplies are X, the gradient at its output is G.
So a fused in-projection, a bare `x @ self.proj` and a plain `nn.Linear` are all seen alike, and nothing is patched.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hf_bico.core.errors import PortError
from hf_bico.core.hooks import hook, hook_whole, whole
from hf_bico.core.kernels import Convolution
from hf_bico.core.routing import CASTS, FOLLOWED, Picked, Routing
from hf_bico.core.types import Signal, Site, Stream

Emit = Callable[[Stream, Tensor], None]
"""(stream, rows) → None: takes a stream's rows (n, T, d) of one batch."""


@contextmanager
def taps(
    model: nn.Module, sites: Iterable[Site], signals: Iterable[Signal], emit: Emit, samples: int | None = None
) -> Iterator[None]:
    """Pass the rows of every site and signal to `emit(stream, rows)` while the block runs one batch.

    Rows are (n, T, d), detached. A stream is emitted once for every run of its weight, however many sites share it.
    Weights need not require a gradient: where nothing does yet, gradients start at the input of the first watched
    weight.

    Args:
        samples: n, for models that flatten samples and tokens into one axis; None: each row of such a matrix is a
            sample.

    Raises:
        PortError: rows that are no whole number a sample; at the end of the block, for streams never emitted, all of
            them listed.
    """
    mode = Taps(model, sites, signals, emit, samples)
    with mode, _checkpointing_off(model), _one_by_one(model):
        yield
    if mode.due:
        missing = ", ".join(sorted(f"{s.name} ({s.signal.value})" for s in mode.due))
        raise PortError(f"the model never ran or never reached with a gradient: {missing}")


@contextmanager
def _checkpointing_off(model: nn.Module) -> Iterator[None]:
    """Turn gradient checkpointing off while the block runs: what it runs again in backward would not be watched.

    transformers does not checkpoint in eval mode; timm and open_clip do.
    """
    on: list[Any] = [module for module in model.modules() if getattr(module, "grad_checkpointing", False) is True]
    for module in on:
        module.grad_checkpointing = False
    try:
        yield
    finally:
        for module in on:
            module.grad_checkpointing = True


@contextmanager
def _one_by_one(model: nn.Module) -> Iterator[None]:
    """Have experts run one after the other while the block runs; transformers else multiplies by all of them at once,
    where no expert's rows can be told from another's.
    """
    configs = {id(config): config for module in model.modules() if (config := getattr(module, "config", None))}
    fast = [config for config in configs.values() if getattr(config, _EXPERTS, None) not in (None, "eager")]
    before = [getattr(config, _EXPERTS) for config in fast]
    for config in fast:
        setattr(config, _EXPERTS, "eager")
    try:
        yield
    finally:
        for config, kind in zip(fast, before, strict=True):
            setattr(config, _EXPERTS, kind)


_EXPERTS = "_experts_implementation"
"""The attribute of transformers' configs that says how experts are run."""


class Run(NamedTuple):
    """Which run of a weight in a pass it is, and which of the batch's rows it sees; None: all."""

    number: int
    rows: Picked | None = None


class Taps(TorchFunctionMode):
    """Sees every call that multiplies rows by a watched weight."""

    def __init__(
        self, model: nn.Module, sites: Iterable[Site], signals: Iterable[Signal], emit: Emit, samples: int | None
    ) -> None:
        super().__init__()
        self.signals, self.emit, self.samples = frozenset(signals), emit, samples
        parameters = dict(model.named_parameters(remove_duplicate=False))
        self.watched: dict[int, list[Site]] = defaultdict(list)
        self.stacks: dict[int, dict[int, list[Site]]] = defaultdict(lambda: defaultdict(list))
        """Those that hold a matrix for every expert: id → number → the sites there."""
        for site in (every := list(sites)):
            own, at = id(parameters[site.weight.key]), site.weight.at
            (self.watched[own] if at is None else self.stacks[own][at]).append(site)
        self.routing = Routing() if any(site.expert is not None for site in every) else None
        self.turned: dict[int, Tensor] = {}
        """Watched weights the other way round (`W.T`), which lie at the same ids in `watched` while they are held."""
        self.runs: dict[int, int] = defaultdict(int)
        self.starts: dict[int, tuple[Tensor, Tensor]] = {}
        self.due = {s.stream(g) for s in every if s.expert is None for g in self.signals}
        self.whole = frozenset(self.due)
        self.streams = frozenset(s.stream(g) for s in every for g in self.signals)
        self.done = set[Stream]()
        self.packed = {s.stream(g).name for s in every if s.tokens.packed for g in Signal}
        """Names of streams whose rows may lie one sample after the other."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.multi_head_attention_forward and any(id(weight) in self.watched for weight in args[5:12]):
            with self:  # its in- and out-projection are then watched like any other linear map
                return _attention(self._projected, *args, **kwargs)
        if func is torch.addmm and len(args) > 2 and id(args[2]) in self.watched:  # bias, x, W as one call
            bias, *factors = args
            return self._watch(self.watched[id(args[2])], lambda *two: func(bias, *two, **kwargs), *factors)
        if func in _CONVOLUTIONS and len(args) > 1 and id(args[1]) in self.watched:
            return self._convolved(self.watched[id(args[1])], *args, **kwargs)
        if func in _TURNS and args and id(args[0]) in self.watched:
            turned: Tensor = func(*args, **kwargs)
            self.turned[id(turned)] = turned
            self.watched[id(turned)] = self.watched[id(args[0])]
            return turned
        if self.routing is not None and func in CASTS:
            return self.routing.cast(func, *args, **kwargs)
        if self.routing is not None and func in FOLLOWED:
            return self._followed(self.routing, func, *args, **kwargs)
        sites = self.watched.get(id(args[1]), ()) if func in _PRODUCTS and len(args) > 1 else ()
        return self._watch(sites, func, *args, **kwargs) if sites else func(*args, **kwargs)

    def _followed(self, routing: Routing, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Do what a call does, and remember which expert's matrix it took out of a stack, or whose rows of a batch."""
        made = func(*args, **kwargs)
        stack = self.stacks.get(id(args[0]))
        if stack is None:
            routing.follow(func, made, args)
        elif func is Tensor.__getitem__ and (
            isinstance(args[1], int) or (torch.is_tensor(args[1]) and not args[1].ndim)
        ):
            self.turned[id(made)] = made
            self.watched[id(made)] = stack[int(args[1])]
        return made

    def _projected(self, x: Tensor, weight: Tensor, bias: Tensor | None, parts: range) -> Tensor:
        """Return x W_iᵀ + b_i of some of the three parts of a packed q, k and v side by side, (…, parts · d).

        All parts are multiplied, and those that are not wanted dropped: a tap watches a whole parameter.
        """
        d = len(weight) // 3
        own = [s for s in self.watched.get(id(weight), ()) if s.weight.rows and s.weight.rows[0] // d in parts]
        y = self._watch(own, _product, x, weight, bias) if own else _product(x, weight, bias)
        return y[..., parts.start * d : parts.stop * d]

    def _convolved(
        self,
        sites: Sequence[Site],
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | str = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
    ) -> Tensor:
        """Do what a convolution (d_out, d_in, …) does to x (n, d_in, …), with its inputs and outputs as rows.

        Where the kernel is one number, those that are read are its inputs; else all, padding apart.
        """
        if weight.shape[2:].numel() > 1:
            by = Convolution(weight.shape[2:], {"stride": stride, "padding": padding, "dilation": dilation})
            y = self._watch(sites, lambda rows, _: by(rows, weight, bias), x.movedim(1, -1), weight, by=by)
            return y.movedim(-1, 1)
        steps = [stride] * (x.ndim - 2) if isinstance(stride, int) else stride
        picked = x[(slice(None), slice(None), *(slice(None, None, step) for step in steps))]
        y = self._watch(sites, lambda rows, _: F.linear(rows, weight.flatten(1), bias), picked.movedim(1, -1), weight)
        return y.movedim(-1, 1)

    def _watch(
        self,
        sites: Sequence[Site],
        func: Callable[..., Tensor],
        x: Tensor,
        weight: Tensor,
        *args: Any,
        by: Convolution | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Make a call whose rows are watched; `by` is the convolution that it is, if it has more than one tap."""
        key = id(sites[0])
        picked = None if self.routing is None or sites[0].expert is None else self.routing.rows_of(sites, x)
        if self.routing is not None and sites[0].known:
            self.routing.read = sites[0].space, x
        run, self.runs[key] = Run(self.runs[key], picked), self.runs[key] + 1
        if self.signals & _GRADIENTS and not x.requires_grad:
            x = self._start(x)
        self._seen(sites[0].stream(Signal.INPUT), run, x)
        if self.signals & _AT_INPUT:
            told = partial(self._input_gradient, sites[0], run, x.detach())
            hook(x, told) if self.routing is None else hook_whole(self.routing.uncast(x), told)
        y = func(x, weight, *args, **kwargs)
        self._outputs(sites, Signal.OUTPUT, run, y)
        self._outputs(sites, Signal.TRAFFIC, run, y, lambda own: own.softmax(-1))
        if self.signals & _AT_OUTPUT:
            y = y.clone() if whole(y) is None else y  # what changes a part in place takes its hook away
            hook_whole(y, partial(self._output_gradient, sites, run, x.detach(), by))
        return y

    def _start(self, x: Tensor) -> Tensor:
        """Return the leaf at which gradients start: one for each input, however many weights read it."""
        if id(x) not in self.starts:
            self.starts[id(x)] = (x, x.detach().requires_grad_())
        return self.starts[id(x)][1]

    def _seen(self, stream: Stream, run: Run, rows: Tensor) -> None:
        at, rows = stream._replace(run=run.number), rows.detach()
        if stream not in self.streams or at in self.done:
            return
        if run.rows is None:
            self.due.discard(stream)
        elif stream in self.whole:
            return  # all rows of what experts read are their router's to show
        self.done.add(at)
        self.emit(
            at, self.by_sample(rows if run.rows is None else run.rows.spread(rows), packed=stream.name in self.packed)
        )

    def by_sample(self, rows: Tensor, *, packed: bool = False) -> Tensor:
        """Return rows (n, T, d), also of a model that flattens samples and tokens into one axis, and of pixels.

        Args:
            packed: whether samples may have different numbers of rows in one axis; then they are (1, ΣT, d).

        Raises:
            PortError: the samples have no whole number of rows each.
        """
        if rows.ndim > 2:
            return rows if rows.ndim == 3 else rows.flatten(1, -2)
        if packed:
            return rows[None]
        samples = self.samples or len(rows)
        if len(rows) % samples:
            raise PortError(f"{len(rows)} rows of {samples} samples cannot be told apart: give samples of one size")
        return torch.unflatten(rows, 0, (samples, -1))

    def _input_gradient(self, site: Site, run: Run, x: Tensor, gradient: Tensor) -> None:
        self._seen(site.stream(Signal.INPUT_GRADIENT), run, gradient)
        if Signal.WEIGHTED_INPUT in self.signals:
            weight = gradient.norm(dim=-1, keepdim=True).sqrt()
            self._seen(site.stream(Signal.WEIGHTED_INPUT), run, torch.cat([weight * x, weight], dim=-1))

    def _output_gradient(
        self, sites: Sequence[Site], run: Run, x: Tensor, by: Convolution | None, gradient: Tensor
    ) -> None:
        self._outputs(sites, Signal.OUTPUT_GRADIENT, run, gradient)
        if Signal.WEIGHTED_GRADIENT in self.signals:
            length = x.norm(dim=-1, keepdim=True) if by is None else by.lengths(x)
            self._outputs(sites, Signal.WEIGHTED_GRADIENT, run, gradient, lambda own: length * own / _root(own))

    def _outputs(
        self,
        sites: Sequence[Site],
        signal: Signal,
        run: Run,
        y: Tensor,
        shown: Callable[[Tensor], Tensor] = lambda own: own,
    ) -> None:
        """Emit each site's own part of a fused weight's output, or of the gradient there."""
        for site in sites if signal in self.signals else ():
            own = run if site.expert is None else run._replace(number=site.expert)
            self._seen(site.stream(signal), own, shown(site.weight.outputs(y)))


def _root(rows: Tensor) -> Tensor:
    """Return √‖row‖ (…, 1), tiny instead of zero where a row is zero."""
    length: Tensor = rows.norm(dim=-1, keepdim=True)
    return length.clamp_min(torch.finfo(rows.dtype).tiny).sqrt()


_AT_INPUT = frozenset({Signal.INPUT_GRADIENT, Signal.WEIGHTED_INPUT})
_AT_OUTPUT = frozenset({Signal.OUTPUT_GRADIENT, Signal.WEIGHTED_GRADIENT})
_GRADIENTS = _AT_INPUT | _AT_OUTPUT
_PRODUCTS = frozenset({F.linear, torch.matmul, Tensor.matmul, Tensor.__matmul__})
"""Calls that multiply rows (their first argument) by a weight (their second)."""
_CONVOLUTIONS = frozenset({F.conv1d, F.conv2d, torch.conv1d, torch.conv2d})
"""Calls that do so to every pixel, or to what their kernel covers."""
_TURNS: frozenset[Any] = CASTS | {Tensor.t, torch.t, Tensor.T.__get__, Tensor.mT.__get__, Tensor.transpose}  # type: ignore[attr-defined]
"""Calls that turn a weight round, or give it in another dtype."""


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return x Wᵀ + b by a call that is not watched."""
    einsum: Callable[..., Tensor] = torch.einsum  # torch's has no annotations
    y = einsum("...i,oi->...o", x, weight)
    return y if bias is None else y + bias


def _attention(
    projected: Callable[[Tensor, Tensor, Tensor | None, range], Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    average_attn_weights: bool = True,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Do what `F.multi_head_attention_forward` does for plain attention, with its linear maps as separate calls.

    Query and result are (T, n, d), as in `nn.MultiheadAttention`; the linear maps see (n, T, d). Only a query may be
    of other rows than key and value. The attention's weights are not given, even if they are needed.

    Raises:
        PortError: the call asks for more than plain attention in eval mode.
    """
    odd = [bias_k, bias_v, key_padding_mask, *rest.values()]
    if (
        key is not value
        or add_zero_attn
        or use_separate_proj_weight
        or training
        or any(x is not None and x is not False for x in odd)
    ):
        raise PortError("an nn.MultiheadAttention does more than plain attention in eval mode; not supported")
    x, of = query.transpose(0, 1), (in_proj_weight, in_proj_bias)
    if query is key:
        qkv = F.linear(x, *of).chunk(3, dim=-1)
    else:
        qkv = projected(x, *of, range(1)), *projected(key.transpose(0, 1), *of, range(1, 3)).chunk(2, dim=-1)
    q, k, v = (torch.unflatten(y, -1, (num_heads, -1)).transpose(1, 2) for y in qkv)
    o = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
    y = F.linear(o.transpose(1, 2).flatten(2), out_proj_weight, out_proj_bias)
    return y.transpose(0, 1), None
