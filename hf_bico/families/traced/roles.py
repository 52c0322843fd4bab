"""Roles of a model's linear maps, read off a traced forward pass."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hf_bico.families.layout import CROSS
from hf_bico.families.traced.watch import ATTENTION, Read, Rows, Trace, trail_of

QKV = ("q", "k", "v")
UP, GATE, DOWN, OUT = "MLP up", "MLP gate", "MLP down", "attention output"
CROSS_OUT = CROSS + OUT


@dataclass
class Inferred:
    """What a trace says of one linear map."""

    parts: dict[str, Rows | None] = field(default_factory=dict)
    """Role → the rows that have it, None for all of them; empty where no role is seen."""
    hidden: str = ""
    """Name of the MLP down whose hidden units it writes or reads; "" for others."""


class Place(tuple[str, int, str]):
    """(stack, block, name in the block) of a weight, by the first number in its name."""

    __slots__ = ()

    @property
    def block(self) -> tuple[str, int]:
        return self[0], self[1]


def place_of(name: str) -> Place | None:
    """Return where a weight lies; None outside numbered blocks, and for the layers of a numbered list of layers."""
    found = re.fullmatch(r"(?:(.*?)\.)??(\d+)\.((?!(?:weight|bias)$).+)", name)
    return Place((found[1] or "", int(found[2]), found[3])) if found else None


def infer(trace: Trace, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Inferred]:
    """Return what is seen of every linear map that ran, by the name of its weight.

    Args:
        shapes: of the weights, as they are stored.
    """
    found = {name: Inferred() for name in trace.reads}
    for q, k, v in trace.attention:
        _mark_attention(trace, found, q, k, v)
    for name, reads in trace.reads.items():
        if found[name].parts or _mark_output(trace, found, name, reads[0]):
            continue
        _mark_mlp(trace, found, name, reads[0], shapes)
    return found


def _mark_attention(trace: Trace, found: dict[str, Inferred], q: Tensor, k: Tensor, v: Tensor) -> None:
    prefix = CROSS if _is_cross(trace, q, k) else ""
    for role, y in zip(QKV, (q, k, v), strict=True):
        for name in trail_of(y).maps:
            if name in found:
                found[name].parts.setdefault(prefix + role, _rows(trace, name, y))


def _is_cross(trace: Trace, q: Tensor, k: Tensor) -> bool:
    """Return whether keys come from what the maps of several blocks read: the encoder's text."""
    keys = [name for name in trail_of(k).maps if name in trace.reads]
    if not keys or trail_of(q).maps <= trail_of(k).maps:
        return False
    return all(len(readers(trace, trace.reads[name][0].x)) > 1 for name in keys)


def readers(trace: Trace, x: Tensor) -> set[tuple[str, int] | None]:
    """Return the blocks whose linear maps read a tensor."""
    blocks = set()
    for name, reads in trace.reads.items():
        if any(identity(read.x) == identity(x) for read in reads):
            place = place_of(name)
            blocks.add(place and place.block)
    return blocks


def identity(x: Tensor) -> tuple[int, int]:
    """Return what tells whether two tensors that are both held are the same numbers, in whatever shape."""
    return x.data_ptr(), x.numel()


def _mark_output(trace: Trace, found: dict[str, Inferred], name: str, read: Read) -> bool:
    """Mark a map that reads what attention gave, gated or not; return whether it is one."""
    marks = {each for each in read.trail.maps if each.startswith(ATTENTION)}
    if not marks or len(_own(name, read)) != len(read.trail.maps) - len(marks):
        return False
    asked = {trail_of(trace.attention[int(each[1:])][0]).maps for each in marks}
    if len(asked) != 1:
        return False
    roles = [role for each in asked.pop() if each in found for role in found[each].parts]
    found[name].parts.setdefault(CROSS_OUT if CROSS + "q" in roles else OUT, None)
    return True


def _own(name: str, read: Read) -> set[str]:
    """Return the maps of the same block that a map reads the outputs of."""
    place = place_of(name)
    return {
        each
        for each in read.trail.maps
        if place and (other := place_of(each)) and other.block == place.block and each != name
    }


def _mark_mlp(
    trace: Trace, found: dict[str, Inferred], name: str, read: Read, shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Mark a map that reads nothing but the bent outputs of one or two maps of its block, which share their input."""
    ups = _own(name, read)
    if not ups or ups != read.trail.maps or not ups & read.trail.bent or len(ups) > 2:
        return
    if any(found[up].parts for up in ups) or len({identity(trace.reads[up][0].x) for up in ups}) > 1:
        return
    units = read.x.shape[read.axis]
    widths = {up: shapes[up][1] if trace.reads[up][0].transposed else shapes[up][0] for up in ups}
    fused = len(ups) == 1 and set(widths.values()) == {2 * units}
    if not fused and set(widths.values()) != {units}:
        return
    found[name] = Inferred({DOWN: None}, name)
    for up in ups:
        found[up].hidden = name
        if fused:
            gate = _rows(trace, up, trace.seen[up])
            if gate is None or 2 * (gate.stop - gate.start) != gate.every:
                found[up], found[name] = Inferred(), Inferred()
                return
            other = Rows(gate.stop, gate.every, gate.every) if gate.start == 0 else Rows(0, gate.start, gate.every)
            found[up].parts = {GATE: gate, UP: other}
        else:
            found[up].parts = {GATE if len(ups) > 1 and up in read.trail.bent else UP: None}


def _rows(trace: Trace, name: str, y: Tensor) -> Rows | None:
    """Return which of a map's outputs a tensor was made of; None for all of them, or where that is no pattern."""
    packed: Rows | None = getattr(y, "_rows", None)
    if packed is not None:
        return packed
    out = next((read.y for read in reversed(trace.reads[name]) if read.y.requires_grad), None)
    if out is None or not y.requires_grad:
        return None
    generator = torch.Generator().manual_seed(0)
    cotangent = torch.randn(y.shape, generator=generator).to(y)
    used = None
    for read in trace.reads[name]:
        gradient = torch.autograd.grad(y, read.y, cotangent, retain_graph=True, allow_unused=True)[0]
        if gradient is not None:
            rows = gradient.movedim(read.axis, -1).flatten(0, -2).ne(0).any(0)
            used = rows if used is None else used | rows
    return None if used is None else pattern(used.tolist())


def pattern(used: list[bool]) -> Rows | None:
    """Return the one range, or the one range in every of several equal parts, in which rows are used.

    None where all of them are, or where they are neither.
    """
    if all(used) or not any(used):
        return None
    runs = list(_runs(used))
    start, stop = runs[0]
    every = len(used) if len(runs) == 1 else runs[1][0] - start
    expected = [start <= number % every < stop for number in range(len(used))]
    return Rows(start, stop, every) if len(used) % every == 0 and expected == used else None


def _runs(used: list[bool]) -> Iterator[tuple[int, int]]:
    start = None
    for number, each in enumerate([*used, False]):
        if each and start is None:
            start = number
        elif not each and start is not None:
            yield start, number
            start = None
