"""Roles that are read off a traced forward pass, and trusted where permuting by them changes nothing."""

import re
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from hf_bico.core.errors import PortError
from hf_bico.families.traced.copies import tiny
from hf_bico.families.traced.examples import SAMPLES, WORDS, Example, examples
from hf_bico.families.traced.kin import plain_name
from hf_bico.families.traced.roles import DOWN, Inferred, identity, infer, place_of
from hf_bico.families.traced.watch import Rows, Trace, Watch, tensors

SAME, CHANGED = 1e-3, 1e-2
"""The most that outputs in float32 change, relative to their norm, where nothing is to change; the least where
something is."""


@dataclass(frozen=True)
class Seen:
    """What is known of one linear map of a tiny copy."""

    parts: Mapping[str, Rows | None]
    """Role → its rows; empty without roles."""
    hidden: str
    """The MLP down whose units it writes or reads; "" for others."""
    space: str
    """What it reads, by the name of the first that reads it."""
    everywhere: bool
    """Whether maps of several blocks read that."""
    kind: str
    """What was passed when it ran: text, image or audio."""
    rows: int
    """Rows a sample."""
    shape: tuple[int, int]
    """(d_out, d_in)"""
    transposed: bool
    """Whether it is stored (d_in, d_out)."""
    plain: bool
    """Whether the taps can watch it, and the outputs depend on it."""
    follows: str = ""
    """The one linear map whose bent output it reads; "" where there is more, or less, between them."""


@dataclass(frozen=True)
class Reading:
    """What a traced forward pass of a tiny copy says, by names of its weights."""

    copy: nn.Module
    """The tiny copy, on the meta device."""
    maps: Mapping[str, Seen]
    kept: int
    """MLPs that a permutation confirmed."""
    refuted: Sequence[str] = field(default_factory=tuple)
    """Patterns of names whose role a permutation refuted."""

    @property
    def roles(self) -> frozenset[str]:
        """All roles that are known of any map."""
        return frozenset(role for each in self.maps.values() for role in each.parts)


def read(model: nn.Module) -> Reading:
    """Return what is known of a model from a tiny random copy of it.

    Raises:
        PortError: no copy can be built, or none runs on what is known of its inputs.
    """
    reason = ""
    best: tuple[nn.Module, list[Example]] | None = None
    for copy in tiny(model):
        every = examples(copy)
        shown, error = running(copy, every)
        reason = reason or error
        if shown and _covers(model, copy) and (best is None or _kinds(shown) > _kinds(best[1])):
            best = copy, shown
        if best and _kinds(best[1]) == _kinds(every):
            break
    if best is None:
        raise PortError(f"no small copy of a {type(model).__name__} runs: {reason or 'its inputs are not known'}")
    return _reading(*best)


def _kinds(some: Sequence[Example]) -> frozenset[str]:
    return frozenset(kind for each in some for kind in each.kinds)


def running(copy: nn.Module, every: Sequence[Example]) -> tuple[list[Example], str]:
    """Return examples that a copy takes, each of a kind that those before it are not, and the first error."""
    shown: list[Example] = []
    reason = ""
    for example in every:
        if example.kinds <= _kinds(shown):
            continue
        try:
            with _quietly(), torch.no_grad():
                example.run(copy)
        except Exception as error:  # an architecture that wants other inputs
            reason = reason or " ".join(str(error).split())[:200]
        else:
            shown.append(example)
    return shown, reason


def _covers(model: nn.Module, copy: nn.Module) -> bool:
    """Return whether every weight has its like in the copy, by name and number of axes, whatever its block."""
    theirs = {(plain_name(name), p.ndim) for name, p in copy.named_parameters()}
    return all((plain_name(name), p.ndim) in theirs for name, p in model.named_parameters())


def _reading(copy: nn.Module, shown: Sequence[Example]) -> Reading:
    trace, outputs = Trace(), list[Tensor]()
    with _quietly():
        for example in shown:
            with Watch(copy, trace, example.kinds):
                outputs += tensors(example.run(copy))
    reached = _reached(trace, outputs)
    found = infer(trace, {name: tuple(p.shape) for name, p in copy.named_parameters()})
    kept, refuted = _confirmed(copy, shown, trace, found)
    spaces = _spaces(trace)
    weights = dict(copy.named_parameters())
    maps = {
        name: _seen(trace, name, weights[name], found[name], *spaces[name], reached=name in reached)
        for name in trace.reads
    }
    return Reading(copy.to("meta"), maps, kept, refuted)


def _reached(trace: Trace, outputs: Sequence[Tensor]) -> set[str]:
    """Return the names of the linear maps that the outputs depend on."""
    names = [name for name, reads in trace.reads.items() for _ in reads]
    ys = [each.y for reads in trace.reads.values() for each in reads]
    whole = [x.float().square().mean() for x in outputs if x.requires_grad and x.is_floating_point()]
    watched = [(name, y) for name, y in zip(names, ys, strict=True) if y.requires_grad]
    if not whole or not watched:
        return set(names)
    found = torch.autograd.grad(sum(whole[1:], whole[0]), [y for _, y in watched], allow_unused=True, retain_graph=True)
    packed = {name for name, y in zip(names, ys, strict=True) if not y.requires_grad}
    return packed | {name for (name, _), gradient in zip(watched, found, strict=True) if gradient is not None}


def _seen(
    trace: Trace, name: str, weight: Tensor, own: Inferred, space: str, everywhere: bool, *, reached: bool
) -> Seen:
    first, reads = trace.reads[name][0], trace.reads[name]
    plain = reached and all(each.plain for each in reads) and weight.shape[2:].numel() == 1
    d_out, d_in = stored(weight, first.transposed).shape if plain else (0, 0)
    before = first.trail.maps
    rows = first.x.numel() // max(first.x.shape[first.axis], 1) // SAMPLES
    kind = "text" if "text" in first.run and rows == WORDS else next(iter(sorted(first.run)))
    return Seen(
        parts=own.parts,
        hidden=own.hidden,
        space=space,
        everywhere=everywhere,
        kind=kind,
        rows=rows,
        shape=(d_out, d_in),
        transposed=first.transposed,
        plain=plain,
        follows=next(iter(before)) if len(before) == 1 and before <= first.trail.bent else "",
    )


def _spaces(trace: Trace) -> dict[str, tuple[str, bool]]:
    """Return, for every linear map, the first that reads the same, and whether maps of several blocks do."""
    readers = defaultdict(list)
    for name, reads in trace.reads.items():
        readers[tuple(identity(each.x) for each in reads)].append(name)
    found: dict[str, tuple[str, bool]] = {}
    for names in readers.values():
        blocks = {place.block for name in names if (place := place_of(name))}
        found |= dict.fromkeys(names, (names[0], len(blocks) > 1))
    return found


def _confirmed(
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
    with _held(copy, [*mlps, *(up for ups in mlps.values() for up in ups)]) as weights:
        for down, ups in mlps.items():
            _permute(weights, trace, found, down, ups, read_too=read_too)
        return _outputs(copy, shown)


def _permute(
    weights: Mapping[str, Tensor],
    trace: Trace,
    found: Mapping[str, Inferred],
    down: str,
    ups: Sequence[str],
    *,
    read_too: bool,
) -> None:
    """Permute the units that `ups` write; and, with `read_too`, `down`'s columns likewise."""
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


def stored(weight: Tensor, transposed: bool) -> Tensor:
    """Return a weight as it is stored as a matrix (d_out, d_in), a view."""
    flat = weight.flatten(1) if weight.ndim > 2 else weight
    return flat.T if transposed else flat


def bias_of(name: str) -> str:
    """Return the name of the bias that goes with a weight."""
    return re.sub(r"weight$", "bias", name)


@contextmanager
def _held(copy: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Yield weights and their biases, to be changed in place; what they were is restored afterwards."""
    own = dict(copy.named_parameters())
    wanted = {each: own[each].data for name in names for each in (name, bias_of(name)) if each in own}
    before = {name: tensor.clone() for name, tensor in wanted.items()}
    try:
        yield wanted
    finally:
        for name, tensor in before.items():
            wanted[name].copy_(tensor)


def _outputs(copy: nn.Module, shown: Sequence[Example]) -> list[Tensor]:
    with _quietly(), torch.no_grad():
        return [x.detach().float().clone() for each in shown for x in tensors(each.run(copy)) if x.is_floating_point()]


def apart(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Return the largest relative distance of two models' outputs."""
    return max((float((x - y).norm() / x.norm().clamp_min(1e-12)) for x, y in zip(a, b, strict=True)), default=0.0)


@contextmanager
def _quietly() -> Iterator[None]:
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
