"""Layer matching: which site of A hands over to which site of B, by the paper's rule, a given path, or a file."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from hf_bico.core.errors import PortError, listed, setting
from hf_bico.core.types import Pair, Site

Blocks = Sequence[int | None]
"""For every block of B the block of A that it takes over from; None where nothing is moved."""
ROUTER = "router"
"""Role of the linear map whose outputs are a layer's experts."""


def expert_role(number: int | None, part: str) -> str:
    """Return the role of one of an expert's maps; experts are paired by their numbers until they are matched."""
    return f"expert {number} {part}"


class Matching(Protocol):
    """A rule that matches the blocks of one tower."""

    def __call__(self, tower: str, depths_source: int, depths_target: int, /) -> Blocks:
        """Return for every block of B its block of A.

        Args:
            tower: name of a stack of blocks; "" where the model has only one.
            depths_source, depths_target: L_A and L_B, neither of them 0.

        Raises:
            PortError: the rule does not cover these blocks, or names some that do not exist.
        """
        ...


def source_depth(depth: int, depths_source: int, depths_target: int) -> int:
    """Return A's block for B's block l = `depth` by the paper's rule: round(l (L_A − 1)/(L_B − 1)), halves upwards.

    Where B has one block, A's last.
    """
    if depths_target == 1:
        return depths_source - 1
    return (2 * depth * (depths_source - 1) + depths_target - 1) // (2 * (depths_target - 1))


def by_index(tower: str, depths_source: int, depths_target: int, /) -> Blocks:
    """Return A's blocks by the paper's rule: both stacks from end to end, in even steps."""
    return tuple(source_depth(depth, depths_source, depths_target) for depth in range(depths_target))


def by_path(paths: Mapping[str, Blocks | None], told: str = "the matching") -> Matching:
    """Return a matching with the blocks as given, tower by tower; a tower whose path is None is left alone.

    Args:
        told: what to call the matching in errors.
    """

    def matching(tower: str, depths_source: int, depths_target: int, /) -> Blocks:
        where = f" of tower {tower!r}" if tower else ""
        if tower not in paths:
            raise PortError(
                f"{told} says nothing about the blocks{where or ' of the one tower'}; it names "
                f"{', '.join(repr(name) for name in paths) or 'nothing'}"
            )
        path = paths[tower]
        if path is None:
            return (None,) * depths_target
        if len(path) != depths_target:
            raise PortError(f"{told} is for {len(path)} target blocks{where}, and the target has {depths_target}")
        odd = sorted({str(block) for block in path if block is not None and not 0 <= block < depths_source})
        if odd:
            raise PortError(
                f"{told} names source blocks{where} that do not exist: {listed(odd)}; there are 0 to "
                f"{depths_source - 1}"
            )
        return tuple(path)

    return matching


def read_matching(path: Path) -> Matching:
    """Return the matching in a YAML file: `{target: source}` or a list of `[target, source]`, or one of these by tower.

    A null source leaves its target block as it is; every target block must be named.

    Raises:
        PortError: the file cannot be read or has another form; the blocks are checked when the matching is used.
    """
    import yaml

    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PortError(f"cannot read the matching {path}: {' '.join(str(error).split())}") from error
    by_tower = isinstance(said, dict) and said and all(isinstance(key, str) for key in said)
    towers = said if by_tower else {"": said or ()}
    tables = {tower: _table(path, given) for tower, given in towers.items()}

    def matching(tower: str, depths_source: int, depths_target: int, /) -> Blocks:
        told: dict[str, Blocks | None] = dict.fromkeys(tables)
        if table := tables.get(tower):
            told[tower] = _filled(path, table, depths_target)
        return by_path(told, f"the matching {path}")(tower, depths_source, depths_target)

    return matching


def _table(path: Path, said: Any) -> dict[int, int | None] | None:
    """Return {target block: source block} for one tower; None where the file says null."""
    if said is None:
        return None
    rows = list(said.items()) if isinstance(said, dict) else said
    if not (isinstance(rows, list) and rows and all(_is_pair(row) for row in rows)):
        raise PortError(
            f"the matching {path} is not a table of blocks: write target: source, one a line, or "
            "a list of [target, source]"
        )
    table = dict(rows)
    if len(table) < len(rows):
        raise PortError(f"the matching {path} names a target block twice")
    return table


def _is_pair(row: Any) -> bool:
    if not (isinstance(row, list | tuple) and len(row) == 2):
        return False
    target, source = row
    return type(target) is int and (source is None or type(source) is int)


def _filled(path: Path, table: Mapping[int, int | None], depths: int) -> Blocks:
    """Return a table's source blocks in the order of the target's; refuse a table that does not cover them exactly."""
    odd = sorted(set(table) - set(range(depths)))
    if odd:
        raise PortError(
            f"the matching {path} names target blocks that do not exist: {listed(list(map(str, odd)))}; "
            f"there are 0 to {depths - 1}"
        )
    untold = sorted(set(range(depths)) - set(table))
    if untold:
        raise PortError(
            f"the matching {path} says nothing about target blocks {listed(list(map(str, untold)))}: give "
            "each a source block, or null to leave it as it is"
        )
    return tuple(table[depth] for depth in range(depths))


def subset(matching: Matching, layers: str | None, skip: str | None) -> Matching:
    """Return the matching restricted to the target blocks in `layers` ("0-5,8"; None is all) that are not in `skip`.

    Where there are several towers, `text:0-5` means blocks of that one; bare numbers mean every tower's.

    Raises:
        PortError: either is not a list of blocks; when the matching is used, for a block that does not exist.
    """
    wanted, unwanted = _ranges("layers", layers), _ranges("skip", skip)
    if layers is None and skip is None:
        return matching

    def some(tower: str, depths_source: int, depths_target: int, /) -> Blocks:
        kept = set(range(depths_target)) if layers is None else _blocks("layers", wanted, tower, depths_target)
        kept -= _blocks("skip", unwanted, tower, depths_target)
        path = matching(tower, depths_source, depths_target)
        return tuple(source if depth in kept else None for depth, source in enumerate(path))

    return some


Ranges = Sequence[tuple[str | None, int, int]]
"""(tower, or None for all of them; first block; last block) each"""


def _ranges(option: str, text: str | None) -> Ranges:
    ranges = []
    for word in text.split(",") if text is not None else ():
        found = re.fullmatch(r"(?:(\w+):)?(\d+)(?:-(\d+))?", word.strip())
        if not found or int(found[3] or found[2]) < int(found[2]):
            raise PortError(f"{setting(option)} is a list of target blocks like 0-5,8, not {text!r}")
        ranges.append((found[1], int(found[2]), int(found[3] or found[2])))
    return ranges


def _blocks(option: str, ranges: Ranges, tower: str, depths: int) -> set[int]:
    last = max((last for name, _, last in ranges if name in (None, tower)), default=-1)
    if last >= depths:
        of = f" of tower {tower!r}" if tower else ""
        raise PortError(f"{setting(option)} names block {last}{of}, and the target's are 0 to {depths - 1}")
    return {depth for name, first, last in ranges if name in (None, tower) for depth in range(first, last + 1)}


def depths_of(sites: Iterable[Site]) -> dict[str, int]:
    """Return {tower: number of blocks}; 0 for a tower without blocks."""
    depths: dict[str, int] = {}
    for site in sites:
        depths[site.tower] = max(depths.get(site.tower, 0), 0 if site.depth is None else site.depth + 1)
    return depths


def matched(source: Iterable[Site], target: Iterable[Site], matching: Matching = by_index) -> dict[str, Blocks]:
    """Return {tower: blocks} as a matching gives them, for every tower that has blocks on both sides.

    Raises:
        PortError: as for the matching.
    """
    theirs = depths_of(source)
    return {
        tower: matching(tower, theirs[tower], depths)
        for tower, depths in depths_of(target).items()
        if depths and theirs.get(tower)
    }


def pair_sites(source: Iterable[Site], target: Iterable[Site], matching: Matching = by_index) -> tuple[Pair, ...]:
    """Pair every site of B that something moves to with its partner in A, by tower, role and depth, in B's order.

    Left out are roles outside the blocks that only one side has, and blocks that the matching gives no partner.

    Raises:
        PortError: sites in B's blocks without a partner, or roles in A's blocks that nothing takes over, all of them
            listed; nothing to pair; as for the matching.
    """
    source, target = list(source), list(target)
    blocks = matched(source, target, matching)
    require_like_experts(source, target, blocks)
    by_place = {(s.tower, s.role, s.depth): s for s in source}
    taken = {(s.tower, s.role) for s in target}
    pairs, misses = [], []
    for site in target:
        depth = site.depth
        if depth is not None and site.tower in blocks:
            depth = blocks[site.tower][depth]
            if depth is None:
                continue
        partner = by_place.get((site.tower, site.role, depth))
        if partner is not None:
            pairs.append(Pair(partner, site))
        elif site.depth is not None:
            misses.append(f"{site.name} (target) has no {site.role} in the source")
    misses += [
        f"{s.name} (source) has no {s.role} in the target"
        for s in source
        if s.depth is not None and (s.tower, s.role) not in taken
    ]
    if misses:
        raise PortError("layers without a partner: " + "; ".join(misses))
    if not pairs:
        raise PortError("nothing is left to move: no block of the target takes one of the source")
    return tuple(pairs)


def require_like_experts(source: Iterable[Site], target: Iterable[Site], blocks: Mapping[str, Blocks]) -> None:
    """Refuse layers with other numbers of experts than their partners', which cannot be matched one to one.

    Raises:
        PortError: there are some, all of them listed.
    """
    own, theirs = (
        {(site.tower, site.depth): site.d_out for site in sites if site.role == ROUTER} for sites in (source, target)
    )
    odd = [
        f"{f'{tower} block {depth}'.strip()} of the target has {_experts(there)}, its partner {_experts(here)}"
        for tower, path in blocks.items()
        for depth, block in enumerate(path)
        if block is not None and (there := theirs.get((tower, depth), 0)) != (here := own.get((tower, block), 0))
    ]
    if odd:
        raise PortError(f"experts are matched one to one, and an MLP is none of them: {listed(odd)}")


def _experts(count: int) -> str:
    return f"{count} experts" if count else "one MLP"
