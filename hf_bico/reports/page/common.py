"""Sections that all reports have: what they were made of, what that cost, and with which versions."""

import re
from collections.abc import Mapping, Sequence

from hf_bico.reports.page.parts import Bar, Cell, Column, Command, Facts, Folded, Link, Part, Section, Table, Text
from hf_bico.reports.page.pictures import heat, stack
from hf_bico.reports.page.reading import Estimate
from hf_bico.reports.page.words import NONE, figure, seconds, shape, size
from hf_bico.reports.records import Environment, LayerRow, Origin

_REPO = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
MOST, LARGEST = 2000, 200
"""The most rows of a table and items of a list that a page has; the most blocks on a side of a heat map."""


def link(name: str, commit: str | None, endpoint: str, kind: str = "model") -> Cell:
    """Return the name of a repo as a link to it at its commit; a name that is none of a repo stays a text."""
    if not _REPO.fullmatch(name) or not endpoint.startswith(("https://", "http://")):
        return name
    at = f"/tree/{commit}" if commit and _COMMIT.fullmatch(commit) else ""
    return Link(name, f"{endpoint}/{'datasets/' if kind == 'dataset' else ''}{name}{at}")


def lineage(origins: Mapping[str, Origin], endpoint: str) -> Part:
    """Return where everything came from."""
    rows: list[tuple[Cell, ...]] = []
    for role, origin in origins.items():
        kind = "dataset" if role == "dataset" else "model"
        name = f"{origin.name} (local)" if origin.local else link(origin.name, origin.commit, endpoint, kind)
        rows.append((role, name, origin.commit or NONE, origin.sha256 or NONE))
    columns = (Column("what"), Column("repo"), Column("commit", "code"), Column("sha256 of the weights", "code"))
    return Table("Lineage: what it was made from", columns, tuple(rows))


def versions(environment: Environment | None, schema: int, ours: str, created: str) -> list[Part]:
    """Return what it was made with."""
    rows = [("made at", created), ("hf_bico", ours), ("schema of the report", str(schema))]
    if environment:
        device = f"{environment.device}, {environment.threads} threads"
        rows += [("device", device), ("Python", environment.python)]
        rows += [(name, text) for name, text in environment.versions.items() if name != "hf-bico"]
    return [Facts("Versions", tuple(rows))]


def cost(environment: Environment | None, expected: tuple[Estimate, Estimate | None] | None) -> Section | None:
    """Return what it took, stage by stage, and what had been expected."""
    parts: list[Part | None] = []
    if environment:
        whole = sum(environment.seconds.values())
        memory = f"peak memory {size(environment.peak_memory_bytes)}"
        if environment.peak_device_memory_bytes is not None:
            memory += f", of the device {size(environment.peak_device_memory_bytes)}"
        if environment.energy_kwh is not None:
            memory += f"; {figure(environment.energy_kwh, 3)} kWh as CodeCarbon measured it"
        parts += [
            Text(f"{seconds(whole)} in all on {environment.device}; {memory}."),
            stack(environment.seconds, "Seconds of every stage", seconds),
        ]
    parts.append(expected and _expected(*expected))
    return Section.of("cost", "What it cost", parts)


def _expected(expected: Estimate, took: Estimate | None) -> Part:
    """Return what was expected beside what was measured."""
    names = dict.fromkeys([*expected.stages, *(took.stages if took else ())])

    def row(name: str, show: str, measured: str) -> tuple[str, ...]:
        return (name, show, measured) if took else (name, show)

    rows = [row(n, seconds(expected.stages.get(n)), seconds(took.stages.get(n) if took else None)) for n in names]
    rows.append(row("in all", seconds(expected.seconds), seconds(took.seconds if took else None)))
    rows.append(row("memory", size(expected.memory_bytes), size(took.memory_bytes if took else None)))
    of = f" of a port by {expected.method}" * bool(expected.method) + f" with N = {expected.n}" * bool(expected.n)
    titles = (Column("stage"), Column("expected", "number"), *([Column("measured", "number")] if took else []))
    return Table(f"Cost{of} without loading", titles, tuple(rows))


def matched(
    cka: Mapping[str, Sequence[Sequence[float]]],
    paths: Mapping[str, Sequence[int | None] | None],
    names: tuple[str, str],
) -> Section | None:
    """Return how alike the blocks' inputs are, tower by tower, and which blocks were chosen to meet.

    Args:
        names: of the base and the target.
    """
    parts: list[Part] = []
    for tower, matrix in cka.items():
        path = paths.get(tower) or ()
        where = f" of the {tower} tower" if tower else ""
        title = f"Linear CKA of the inputs of every two blocks{where}; the chosen pairs are framed"
        parts.append(
            heat(
                [row[:LARGEST] for row in matrix[:LARGEST]],
                path,
                title,
                (f"block of {names[0]}", f"block of {names[1]}"),
            )
        )
        rows = [
            (str(target), str(source), f"{matrix[target][source]:.3f}")
            for target, source in enumerate(path)
            if source is not None and target < len(matrix) and 0 <= source < len(matrix[target])
        ]
        columns = (Column("target block"), Column("source block", "number"), Column("CKA", "number"))
        if rows:
            parts.append(Folded(f"The chosen pairs{where}", (Table(f"Chosen pairs{where}", columns, tuple(rows)),)))
    return Section.of("matching", "How alike the blocks are", parts)


def pairs(rows: Sequence[LayerRow], place: str = "Layers that meet") -> Part | None:
    """Return which block hands over to which, with shapes."""
    found = [
        (
            f"{row.tower} {'outside the blocks' if row.target is None else row.target}".strip(),
            NONE if row.source is None else str(row.source),
            "; ".join(f"{site.role} {shape(site.source)} → {shape(site.target)}" for site in row.sites[:40]),
        )
        for row in rows[:MOST]
    ]
    columns = (Column("target block"), Column("source block"), Column("linear maps, out × in"))
    return Table(place, columns, tuple(found)) if found else None


def listed(title: str, items: Sequence[object]) -> Part | None:
    """Return a folded list; None of nothing."""
    if not items:
        return None
    more = f" … and {len(items) - MOST:,} more" if len(items) > MOST else ""
    text = ", ".join(map(str, items[:MOST])) + more
    return Folded(f"{title}: {len(items):,}", (Text(text),))


def bars(caption: str, what: str, shares: Mapping[str, float]) -> Part | None:
    """Return shares as bars, the largest as long as there is room; None of nothing."""
    largest = max(shares.values(), default=0.0)
    if largest <= 0:
        return None
    rows = [(name, f"{share:.1%}", Bar(share / largest)) for name, share in list(shares.items())[:MOST]]
    return Table(caption, (Column(what), Column("share", "number"), Column("", "picture")), tuple(rows))


def again(command: str | None, title: str = "To do it again") -> Section | None:
    """Return the command that makes it again, or what comes next."""
    told = "As the report has it: read it before you run it. A click into it selects it all"
    return Section.of("again", title, [Command(told, command)] if command else [])


def notes(lines: Sequence[str] | None) -> list[Part]:
    """Return what was read in another way than its owner may think."""
    return [Text(line) for line in (lines or ())[:MOST]]
