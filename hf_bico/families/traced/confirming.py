"""Whether what a trace says of MLPs holds: permuting their units must change nothing."""

import re
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from hf_bico.core.riders import Kind
from hf_bico.families.traced.examples import Example
from hf_bico.families.traced.kin import plain_name
from hf_bico.families.traced.roles import DOWN, Inferred
from hf_bico.families.traced.watch import Trace, tensors

SAME, CHANGED = 1e-3, 1e-2
"""The most that outputs in float32 change, relative to their norm, where nothing is to change; the least where
something is."""


@dataclass(frozen=True)
class Beside:
    """What is known of one diagonal map of a tiny copy; linear maps by the names of their weights."""

    kind: Kind
    width: int = 0
    before: frozenset[str] = frozenset()
    """Those that read what a gain gives, if nothing else does."""
    scales: str = ""
    """The one whose output it multiplies, if nothing else reads that."""
    after: Sequence[str] = ()
    """Those that what it acts on comes from, the last to run first."""
    reads: Sequence[str] = ()
    """Those that read what came of it, in the order that they run."""
    gain: str = ""
    """Of a norm's bias, its gain."""
    apart: bool = False
    """Whether a depthwise convolution lies between it and the linear maps before it."""
    offset: float = 0.0
    """What is added to a stored gain."""
    top: bool = False
    """Whether it lies behind the blocks, and at what their last maps read."""
    of_kernel: bool = False
    """Whether it is a convolution of the image itself, or its bias."""


def confirmed(
    copy: nn.Module, shown: Sequence[Example], trace: Trace, found: dict[str, Inferred]
) -> tuple[int, tuple[str, ...]]:
    """Take away the roles of MLPs that a permutation refutes; return how many MLPs are left, and which are not.

    Their units are permuted where they are read and where they are written, which may change nothing; where they are
    written alone, which must change something. What attention takes needs no check: it was called with it.
    """
    kept, refuted = 0, []
    claims: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for name, own in found.items():
        if DOWN in own.parts:
            claims[plain_name(name)][name] = [up for up in found if found[up].hidden == name and up != name]
    before = _outputs(copy, shown)
    for pattern, mlps in claims.items():
        both, alone = (_permuted(copy, shown, trace, found, mlps, read_too=read_too) for read_too in (True, False))
        if apart(before, both) < SAME and apart(before, alone) > CHANGED:
            kept += len(mlps)
            continue
        refuted.append(pattern)
        found |= {each: Inferred() for down, ups in mlps.items() for each in (down, *ups)}
    return kept, tuple(refuted)


def _permuted(
    copy: nn.Module,
    shown: Sequence[Example],
    trace: Trace,
    found: Mapping[str, Inferred],
    mlps: Mapping[str, Sequence[str]],
    *,
    read_too: bool,
) -> list[Tensor]:
    """Return a copy's outputs with the units of MLPs permuted."""
    between = {down: _between(trace, down, ups) for down, ups in mlps.items()}
    names = [*mlps, *(up for ups in mlps.values() for up in ups), *(each for some in between.values() for each in some)]
    with _held(copy, names) as weights:
        for down, ups in mlps.items():
            order = _permute(weights, trace, found, down, ups, read_too=read_too)
            for name in between[down] if read_too else ():
                for each in (name, *_statistics(name, weights)):
                    axis = list(weights[each].shape).index(len(order))
                    weights[each].copy_(weights[each].index_select(axis, order))
        return _outputs(copy, shown)


def _permute(
    weights: Mapping[str, Tensor],
    trace: Trace,
    found: Mapping[str, Inferred],
    down: str,
    ups: Sequence[str],
    *,
    read_too: bool,
) -> Tensor:
    """Permute the units that `ups` write; and, with `read_too`, `down`'s columns likewise; return their order."""
    matrix = stored(weights[down], trace.reads[down][0].transposed)
    order = torch.randperm(matrix.shape[1], generator=torch.Generator().manual_seed(1))
    if read_too:
        matrix.copy_(matrix[:, order].clone())
    for up in ups:
        own = stored(weights[up], trace.reads[up][0].transposed)
        bias = weights.get(bias_of(up))
        for rows in found[up].parts.values():
            at = order if rows is None else order + rows.start
            to = torch.arange(len(order)) + (0 if rows is None else rows.start)
            own[to] = own[at].clone()
            if bias is not None:
                bias[to] = bias[at].clone()
    return order


def told(copy: nn.Module, shown: Sequence[Example], trace: Trace, beside: Mapping[str, Beside]) -> dict[str, Beside]:
    """Return diagonal maps without the linear maps that cannot tell their gain: multiplied there and divided in those,
    it must change nothing.
    """
    weights, claims = dict(copy.named_parameters()), defaultdict[str, dict[str, Beside]](dict)
    for name, own in beside.items():
        if own.before or own.scales:
            claims[plain_name(name)][name] = own
    odd = {kind for kind, each in claims.items() if not all(_fits(own, weights, trace) for own in each.values())}
    refuted = {name for kind in odd for name in claims.pop(kind)}
    before = _outputs(copy, shown)

    def hold(some: Mapping[str, Beside]) -> bool:
        return apart(before, _folded(copy, shown, trace, beside, some)) < SAME

    if not hold({name: own for each in claims.values() for name, own in each.items()}):
        refuted |= {name for each in claims.values() if not hold(each) for name in each}
    return {
        name: replace(own, before=frozenset(), scales="") if name in refuted else own for name, own in beside.items()
    }


def _fits(own: Beside, weights: Mapping[str, Tensor], trace: Trace) -> bool:
    """Return whether the linear maps that a gain may fold into are as wide as it is: not if they come first in their
    product (Mamba's steps in Jamba).
    """
    matrices = [stored(weights[name], trace.reads[name][0].transposed) for name in own.before or (own.scales,)]
    return all(matrix.shape[1 if own.before else 0] == own.width for matrix in matrices)


def _folded(
    copy: nn.Module, shown: Sequence[Example], trace: Trace, beside: Mapping[str, Beside], some: Mapping[str, Beside]
) -> list[Tensor]:
    """Return a copy's outputs with gains multiplied, and their linear maps divided, by the same."""
    biases = {own.gain: name for name, own in beside.items() if own.gain}
    names = {each for name, own in some.items() for each in (name, biases.get(name, name), own.scales, *own.before)}
    with _held(copy, sorted(names - {""})) as weights:
        for name, own in some.items():
            gain = weights[name]
            ratio = torch.rand(own.width, generator=torch.Generator().manual_seed(1)) + 0.5
            gain.copy_((gain + own.offset) * ratio.reshape(gain.shape) - own.offset)
            for other in own.before or (own.scales,):
                matrix = stored(weights[other], trace.reads[other][0].transposed)
                axis = 1 if own.before else 0
                matrix.div_(ratio.reshape([-1 if number == axis else 1 for number in range(matrix.ndim)]))
            if own.before and name in biases:
                weights[biases[name]].mul_(ratio.reshape(weights[biases[name]].shape))
            if own.scales and bias_of(own.scales) in weights:
                weights[bias_of(own.scales)].div_(ratio)
        return _outputs(copy, shown)


def _between(trace: Trace, down: str, ups: Sequence[str]) -> list[str]:
    """Return the diagonal maps of an MLP's units."""
    units = trace.reads[down][0].x.shape[trace.reads[down][0].axis]
    return [name for name, own in trace.diagonals.items() if own.after and own.after <= {*ups} and own.width == units]


def _statistics(name: str, weights: Mapping[str, Tensor]) -> list[str]:
    """Return the names of a batch norm's running statistics, by its gain's."""
    owner = name.rpartition(".")[0] if name.endswith(".weight") else ""
    return [each for what in ("mean", "var") if (each := f"{owner}.running_{what}") in weights]


@contextmanager
def _held(copy: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Yield weights, their biases and running statistics, to be changed in place; what they were is restored
    afterwards.
    """
    own: dict[str, Tensor] = {**dict(copy.named_parameters()), **dict(copy.named_buffers())}
    wanted = {
        each: own[each].data for name in names for each in (name, bias_of(name), *_statistics(name, own)) if each in own
    }
    before = {name: tensor.clone() for name, tensor in wanted.items()}
    try:
        yield wanted
    finally:
        for name, tensor in before.items():
            wanted[name].copy_(tensor)


def _outputs(copy: nn.Module, shown: Sequence[Example]) -> list[Tensor]:
    with quietly(), torch.no_grad():
        return [x.detach().float().clone() for each in shown for x in tensors(each.run(copy)) if x.is_floating_point()]


def apart(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Return the largest relative distance of two models' outputs."""
    return max((float((x - y).norm() / x.norm().clamp_min(1e-12)) for x, y in zip(a, b, strict=True)), default=0.0)


def stored(weight: Tensor, transposed: bool) -> Tensor:
    """Return a weight as it is stored as a matrix (d_out, d_in), or a kernel as (d_out, d_in, taps), a view."""
    flat = weight.flatten(2) if weight.ndim > 2 else weight
    return flat.T if transposed else flat


def bias_of(name: str) -> str:
    """Return the name of the bias that goes with a weight."""
    return re.sub(r"weight$", "bias", name)


@contextmanager
def quietly() -> Iterator[None]:
    """Silence what a tiny copy makes libraries say."""
    import logging

    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
