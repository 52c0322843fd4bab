"""Sites of a model's blocks, by what a traced pass of its tiny copy shows, or by names alone."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from hf_bico.core.types import Hidden, Site, Slice, Tokens
from hf_bico.families.experts import known_experts
from hf_bico.families.layout import CUT, JOINED, LABELS, SINGLE, TEXT, is_transposed
from hf_bico.families.traced.confirming import bias_of, stored
from hf_bico.families.traced.examples import ANSWERS, WORDS
from hf_bico.families.traced.kin import kin
from hf_bico.families.traced.reading import Reading, Seen
from hf_bico.families.traced.roles import place_of
from hf_bico.families.traced.watch import Rows

ROWS = Tokens(prefix=0, grid=(1,), sequence="rows")
"""Rows of which nothing is known: they meet one to one."""
KINDS = {"text": TEXT, "image": ROWS, "audio": ROWS}
CELLS = 16
"""The patches of an image that a tiny copy is shown; models that merge some do so two by two."""
PROJECTOR = re.compile(r"(^|\.)(?P<own>(multi_modal_projector|connector|merger)\.)")
"""In the name of what lies between an image's tower and a text's."""
MOST_SPECIAL = 8
"""The most rows that stand before those of an image's patches."""


@dataclass(frozen=True)
class Entry:
    """A weight in a block, or a part of it, that is to be a site."""

    name: str
    """Of the weight."""
    seen: Seen | None
    """What is known of it; None where it never ran."""
    stack: str
    depth: int
    own: str
    """Its name in the block, without "weight"."""
    role: str
    """"" where none is known."""
    rows: Rows | None = None

    @property
    def block(self) -> str:
        """The beginning of the names of all that is in its block."""
        return f"{self.stack}.{self.depth}." if self.stack else f"{self.depth}."


def sites_of(model: nn.Module, reading: Reading | None) -> tuple[Site, ...]:
    """Return the linear maps in numbered blocks, and the convolutions of images between and behind them; of what no
    reading shows, the plain linear layers by their names.

    Experts are found beside their routers (`hf_bico.families.experts`), since a pass may reach few of them.
    """
    return (*(site for _, site in placed(model, reading)), *outside(model, reading), *_between(model, reading))


def placed(model: nn.Module, reading: Reading | None) -> list[tuple[str, Site]]:
    """Return (beginning of the names in its block, site) of the linear maps in numbered blocks."""
    weights: dict[str, Tensor] = dict(model.named_parameters())
    like = kin(model, reading.copy) if reading else {}
    found: list[Entry] = []
    experts = known_experts(model)
    for name, weight in weights.items():
        if name.startswith(experts):
            continue
        seen = reading.maps.get(like.get(name, "")) if reading else None
        found += _entries(model, name, weight, seen, named_alone=reading is None)
    found = _apart(_without_ears(model, found))
    towers = _towers(model, found)
    decodes = any(_tokens(model, each) == LABELS for each in found)
    return [(each.block, _site(model, each, weights, towers, like, decodes)) for each in found]


def _between(model: nn.Module, reading: Reading | None) -> Iterator[Site]:
    """Yield the linear maps that take what an image's tower gives to the text's."""
    weights: dict[str, Tensor] = dict(model.named_parameters())
    like = kin(model, reading.copy) if reading else {}
    for name, weight in weights.items():
        found = PROJECTOR.search(name)
        seen = reading.maps.get(like.get(name, "")) if reading else None
        if found and weight.ndim > 1 and place_of(name) is None and seen is not None and seen.plain:
            role = re.sub(r"[._]?weight$", "", name[found.start("own") :])
            entry = Entry(name, seen, "", 0, role, role)
            site = named_site(model, name, role, transposed=seen.transposed)
            yield replace(site, tokens=_tokens(model, entry))


def _without_ears(model: Any, found: list[Entry]) -> list[Entry]:
    """Return the entries without the convolutions that cut sound into frames, which fine-tunes freeze."""
    linear = _linear_stacks(found)
    return [each for each in found if each.stack in linear or not linear or _kind(model, each) != "audio"]


def _linear_stacks(found: Sequence[Entry]) -> set[str]:
    """Return the stacks that have roles, or maps of single rows: the others only cut and merge patches between them."""
    return {each.stack for each in found if each.role or each.seen is None or each.seen.window is None}


def outside(model: nn.Module, reading: Reading | None) -> Iterator[Site]:
    """Yield the convolutions of images outside the blocks, but for those that read the image itself."""
    weights: dict[str, Tensor] = dict(model.named_parameters())
    like = kin(model, reading.copy) if reading else {}
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    for name, weight in weights.items():
        seen = reading.maps.get(like.get(name, "")) if reading and weight.ndim == 4 and not place_of(name) else None
        if seen is None or not seen.plain or not seen.grid or not seen.behind or _is_grouped(model, name):
            continue
        role, bias = re.sub(r"[._]?weight$", "", name.removeprefix(prefix)), bias_of(name)
        where = Slice(bias) if bias != name and bias in weights else None
        width, tokens, given = len(weight), Tokens(0, seen.grid), Tokens(0, seen.grid_out)
        yield Site(
            role,
            role,
            None,
            Slice(name),
            where,
            width,
            weight.shape[1],
            role,
            tokens,
            window=seen.window,
            tokens_out=given,
        )


def _entries(model: nn.Module, name: str, weight: Tensor, seen: Seen | None, *, named_alone: bool) -> Iterator[Entry]:
    place = place_of(name)
    if place is None or weight.ndim < 2:
        return
    stack, depth, rest = place
    own = re.sub(r"[._]?weight$", "", rest) or rest
    if seen is None and named_alone:
        layer = model.get_submodule(name.rpartition(".")[0])
        if type(layer) is nn.Linear or is_transposed(layer):
            yield Entry(name, None, stack, depth, own, "")
    if seen is None or not seen.plain or _is_grouped(model, name):
        return
    d_out = len(stored(weight, seen.transposed))
    parts = {role: _scaled(rows, d_out, seen.shape[0]) for role, rows in seen.parts.items()}
    whole = not parts or any(rows is None for rows in parts.values()) or not _covered(list(parts.values()), d_out)
    if whole:
        yield Entry(
            name, seen, stack, depth, own, next(iter(parts)) if len(parts) == 1 and None in parts.values() else ""
        )
    else:
        yield from (Entry(name, seen, stack, depth, own, role, rows) for role, rows in parts.items())


def _is_grouped(model: nn.Module, name: str) -> bool:
    """Return whether a weight is of a convolution in groups, which that of the narrower copy need not be."""
    return getattr(model.get_submodule(name.rpartition(".")[0]), "groups", 1) != 1


def _scaled(rows: Rows | None, d_out: int, tiny: int) -> Rows | None:
    """Return the rows of a weight that has `d_out` of them, where the tiny copy's has `tiny`."""
    if rows is None:
        return None
    numbers = [each * d_out for each in (rows.start, rows.stop, rows.every)]
    return None if any(each % tiny for each in numbers) else Rows(*(each // tiny for each in numbers))


def _covered(parts: Sequence[Rows | None], d_out: int) -> bool:
    """Return whether every row is in one part, so that nothing of the weight is left behind."""
    counts = [0] * d_out
    for rows in parts:
        for block in range(0, d_out, rows.every) if rows else ():
            for row in range(block + rows.start, block + rows.stop) if rows else ():
                counts[row] += 1
    return all(count == 1 for count in counts)


def _apart(found: Sequence[Entry]) -> list[Entry]:
    """Return the entries with no role twice in a block: by the next number in their names, or else without roles."""
    for _ in range(2):
        twice = _twice(found)
        found = [_deeper(each) if each.stack in twice and "expert" not in each.own else each for each in found]
    counts = Counter((each.stack, each.depth, each.role) for each in found)
    return [replace(each, role="") if counts[each.stack, each.depth, each.role] > 1 else each for each in found]


def _twice(found: Sequence[Entry]) -> set[str]:
    """Return the stacks in whose blocks a role comes twice."""
    counts = Counter((each.stack, each.depth, each.role) for each in found if each.role)
    return {stack for (stack, _, _), count in counts.items() if count > 1}


def _deeper(entry: Entry) -> Entry:
    """Return an entry placed by the next number in its name; as it is if there is none."""
    place = place_of(entry.own)
    if place is None:
        return entry
    return replace(entry, stack=f"{entry.stack}.{entry.depth}.{place[0]}", depth=place[1], own=place[2])


def _towers(model: Any, found: Sequence[Entry]) -> dict[str, str]:
    """Return {stack: its name}: "" for the only one, else by what it reads, or as it is called where that is no name
    of one alone.
    """
    stacks = list(dict.fromkeys(each.stack for each in found))
    linear = _linear_stacks(found)
    stacks, merging = [each for each in stacks if each in linear or not linear], stacks
    if len(stacks) == 1:
        return {each: each for each in merging} | {stacks[0]: ""}
    read = {}
    for stack in stacks:
        kinds = Counter(_kind(model, each) for each in found if each.stack == stack)
        read[stack] = kinds.most_common(1)[0][0]
    encoders = {kind for kind in read.values() if kind != "decoder"}
    main = "image" if "image" in encoders else next(iter(sorted(encoders)), "")
    if len(encoders) == 1 or main == "image":
        read = {stack: "" if kind == main else kind for stack, kind in read.items()}
    counts = Counter(read.values())
    return {each: each for each in merging} | {
        stack: name if counts[name] == 1 else stack for stack, name in read.items()
    }


def _kind(model: Any, entry: Entry) -> str:
    """Return what a stack's entry reads: text, image or audio, or what a decoder answers."""
    if entry.seen is None:
        return entry.stack
    decodes = getattr(model.config, "is_encoder_decoder", False) and "decoder" in entry.stack.split(".")
    return "decoder" if decodes else entry.seen.kind


def _tokens(model: Any, entry: Entry) -> Tokens:
    """Return the layout of what an entry reads."""
    if entry.seen is None:
        return ROWS
    kind, rows = entry.seen.kind, entry.seen.rows
    if entry.seen.grid:
        return Tokens(0, entry.seen.grid)
    if rows == 1:
        return SINGLE
    if kind == "image":
        return _patches(model, rows)
    known = {WORDS: TEXT} if kind == "text" else {}
    return {**known, ANSWERS: LABELS}.get(rows, ROWS)


def _patches(model: Any, rows: int) -> Tokens:
    """Return an image's layout, if so many rows of a tiny copy are its 4 × 4 patches and a few before them."""
    config = getattr(model.config, "vision_config", model.config)
    size, patch = (getattr(config, name, None) for name in ("image_size", "patch_size"))
    sides = size if isinstance(size, list | tuple) else (size, size)
    if isinstance(patch, int) and hasattr(config, "spatial_merge_size") and rows in (CELLS, CELLS // 4):
        return CUT if rows == CELLS else JOINED
    if not isinstance(patch, int) or not all(isinstance(each, int) for each in sides) or hasattr(config, "depths"):
        return ROWS
    before = rows - CELLS
    return Tokens(before, tuple(each // patch for each in sides)) if 0 <= before <= MOST_SPECIAL else ROWS


def _site(
    model: nn.Module,
    entry: Entry,
    weights: dict[str, Tensor],
    towers: dict[str, str],
    like: dict[str, str],
    decodes: bool,
) -> Site:
    seen, tower = entry.seen, towers[entry.stack]
    block = f"{tower} block {entry.depth}".strip()
    role = entry.role or entry.own
    transposed = seen.transposed if seen else is_transposed(model.get_submodule(entry.name.rpartition(".")[0]))
    rows = (entry.rows.start, entry.rows.stop) if entry.rows else None
    every = entry.rows.every if entry.rows else None
    d_out, d_in = stored(weights[entry.name], transposed).shape[:2]
    every = None if every == d_out else every
    weight, bias = Slice(entry.name, rows, transposed, every), bias_of(entry.name)
    has_bias = bias != entry.name and bias in weights and weights[bias].shape == (d_out,)
    width = d_out if entry.rows is None else (entry.rows.stop - entry.rows.start) * (d_out // entry.rows.every)
    return Site(
        f"{block} {role}",
        role,
        entry.depth,
        weight,
        Slice(bias, rows, every=every) if has_bias else None,
        width,
        d_in,
        _space(block, entry, like),
        _tokens(model, entry),
        Hidden(f"{block} {_below(entry, seen.hidden)}")
        if seen and seen.hidden and entry.role in ("MLP up", "MLP gate")
        else None,
        Hidden(f"{block} {_below(entry, seen.hidden)}") if seen and seen.hidden and entry.role == "MLP down" else None,
        tower,
        window=seen.window if seen else None,
        tokens_out=_tokens_out(entry),
    )


def _tokens_out(entry: Entry) -> Tokens | None:
    """Return the layout of what an entry gives; None where it is that of what it reads."""
    seen = entry.seen
    if seen is None or seen.window is None:
        return None
    return Tokens(0, seen.grid_out) if seen.grid_out else None if seen.rows == seen.rows_out else ROWS


def _space(block: str, entry: Entry, like: dict[str, str]) -> str:
    """Return the name of what an entry reads: that of the first in its block that reads it."""
    if entry.seen is None:
        return f"{block} {entry.own}"
    if entry.seen.everywhere:
        return f"what {re.sub(r'[0-9]+', '#', entry.seen.space)} reads"
    return f"{block} {_below(entry, entry.seen.space)}"


def _below(entry: Entry, name: str) -> str:
    """Return a name of the tiny copy as it is below the entry's block."""
    place = place_of(name)
    return place[2] if place else name


def named_site(model: nn.Module, name: str, role: str, *, transposed: bool = False) -> Site:
    """Return a linear layer outside the blocks as a site, by the name of its weight."""
    weights = dict(model.named_parameters())
    d_out, d_in = stored(weights[name], transposed).shape
    bias = bias_of(name)
    where = Slice(bias) if bias in weights and bias != name else None
    return Site(role, role, None, Slice(name, transposed=transposed), where, d_out, d_in, role, SINGLE)
