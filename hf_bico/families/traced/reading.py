"""Roles that are read off a traced forward pass, and trusted where permuting by them changes nothing."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from hf_bico.core.errors import PortError
from hf_bico.core.kernels import Window
from hf_bico.core.riders import Kind
from hf_bico.families.traced.confirming import Beside, confirmed, quietly, stored, told
from hf_bico.families.traced.copies import tiny
from hf_bico.families.traced.diagonals import escaped
from hf_bico.families.traced.examples import SAMPLES, WORDS, Example, examples
from hf_bico.families.traced.kin import plain_name
from hf_bico.families.traced.roles import Inferred, identity, infer, place_of
from hf_bico.families.traced.watch import Read, Rows, Trace, Watch, tensors


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
    rows_out: int
    """Rows a sample of what it gives."""
    shape: tuple[int, int]
    """(d_out, d_in)"""
    transposed: bool
    """Whether it is stored (d_in, d_out)."""
    plain: bool
    """Whether the taps can watch it, and the outputs depend on it."""
    follows: str = ""
    """The one linear map whose bent output it reads; "" where there is more, or less, between them."""
    behind: frozenset[str] = frozenset()
    """The linear maps that what it reads comes from."""
    window: Window | None = None
    """Of a convolution with more than one tap."""
    grid: tuple[int, ...] = ()
    """Rows and columns of what a convolution, or a map between them, reads; empty for others."""
    grid_out: tuple[int, ...] = ()
    """Those of what it gives."""


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
    beside: Mapping[str, Beside] = field(default_factory=dict)
    """What is known of diagonal maps."""

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
            with quietly(), torch.no_grad():
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
    with quietly():
        for example in shown:
            with Watch(copy, trace, example.kinds):
                outputs += tensors(example.run(copy))
    escaped(trace.uses, outputs)
    reached = _reached(trace, outputs)
    found = infer(trace, {name: tuple(p.shape) for name, p in copy.named_parameters()})
    kept, refuted = confirmed(copy, shown, trace, found)
    spaces = _spaces(trace)
    weights = dict(copy.named_parameters())
    grids = {tuple(x.shape[2:]) for each in trace.reads.values() for read in each for x in _planes(read)}
    maps = {
        name: _seen(trace, name, weights[name], found[name], *spaces[name], reached=name in reached, grids=grids)
        for name in trace.reads
    }
    beside = told(copy, shown, trace, _beside(trace))
    return Reading(copy.to("meta"), maps, kept, refuted, beside)


def _planes(read: Read) -> tuple[Tensor, ...]:
    """Return what a convolution of images reads and gives, (n, d, h, w) each; of other maps nothing."""
    return (read.x, read.y) if read.axis == 1 and read.x.ndim == 4 else ()


def _beside(trace: Trace) -> dict[str, Beside]:
    """Return what is known of the diagonal maps."""
    order, found = list(trace.reads), {}
    readers = defaultdict(list)
    for name, reads in trace.reads.items():
        for each in reads[0].trail.through:
            readers[each].append(name)
    for name, own in trace.diagonals.items():
        found[name] = Beside(
            own.kind,
            own.width,
            trace.uses.alone(name) if own.kind is Kind.GAIN else frozenset(),
            own.scales if trace.uses.alone(own.scales) == {name} else "",
            sorted(own.after & trace.reads.keys(), key=order.index, reverse=True),
            readers[name],
            own.gain,
            own.apart,
            own.offset,
        )
    return found


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
    trace: Trace,
    name: str,
    weight: Tensor,
    own: Inferred,
    space: str,
    everywhere: bool,
    *,
    reached: bool,
    grids: Collection[tuple[int, ...]],
) -> Seen:
    first, reads = trace.reads[name][0], trace.reads[name]
    plain = reached and all(each.plain for each in reads) and (weight.ndim == 2 or first.axis == 1)
    plain = (
        plain and first.x.numel() // first.x.shape[first.axis] % SAMPLES == 0
    )  # else rows of no sample, but of a table
    d_out, d_in = stored(weight, first.transposed).shape[:2] if plain else (0, 0)
    before = first.trail.maps
    rows, rows_out = (
        x.numel() // max(x.shape[first.axis], 1) // SAMPLES if x.ndim > 1 else 0 for x in (first.x, first.y)
    )
    kind = "text" if "text" in first.run and rows == WORDS else next(iter(sorted(first.run)))
    return Seen(
        parts=own.parts,
        hidden=own.hidden,
        space=space,
        everywhere=everywhere,
        kind=kind,
        rows=rows,
        rows_out=rows_out,
        shape=(d_out, d_in),
        transposed=first.transposed,
        plain=plain,
        follows=next(iter(before)) if len(before) == 1 and before <= first.trail.bent else "",
        behind=before,
        window=first.window,
        grid=_grid(first.x, first.axis, grids),
        grid_out=_grid(first.y, first.axis, grids),
    )


def _grid(x: Tensor, axis: int, grids: Collection[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the rows and columns that the rows of a tensor lie on; nothing where they lie on none that convolutions
    have.
    """
    grid = tuple(x.movedim(axis, -1).shape[1:-1]) if x.ndim == 4 and len(x) == SAMPLES else ()
    return grid if grid in grids else ()


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
