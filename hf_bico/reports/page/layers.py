"""The layers of a port or of maps as grids: a row for every block, a column for every role."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from hf_bico.core.transport import Moved
from hf_bico.core.types import Fit
from hf_bico.reports.page.parts import Column, Folded, Grid, Part, Site, Table, Text
from hf_bico.reports.page.reading import Mapped
from hf_bico.reports.page.words import NONE, figure, fitted, percent, place, shape
from hf_bico.reports.records import LayerRow

MOST_ROLES = 24
"""The most columns of a grid; of more, a layer's experts share a column."""
MOST_CELLS = 3000
"""The most cells and rows that a page has; the JSON has all."""


@dataclass(frozen=True)
class Layer:
    """A linear map of the target that something moved into, or that there is a map of."""

    tower: str
    depth: int | None
    role: str
    target: str
    source: str
    shapes: tuple[tuple[int, int], tuple[int, int]] | None
    output: Fit | None
    input: Fit | None
    kept: float | None = None
    norm: float | None = None
    scale: float | None = None
    ridge: float | None = None

    @property
    def residual(self) -> float | None:
        """The mean of both sides'; None without maps."""
        found = [fit.residual for fit in (self.output, self.input) if fit]
        return fmean(found) if found else None


def layers_of(rows: Sequence[LayerRow], moved: Sequence[Moved]) -> list[Layer]:
    """Return the layers that something moved into, in the order of the blocks; those of no block that is told last."""
    told = {entry.target: entry for entry in moved}
    found, seen = [], set()
    for row in rows:
        block = "" if row.target is None else place(row.tower, row.target)
        for site in row.sites:
            names = (f"{block} {site.role}".strip(), f"{row.tower} {site.role}".strip())
            name = next((name for name in names if name in told), None)
            if name is not None and name not in seen:
                seen.add(name)
                found.append(_layer(told[name], row.tower, row.target, site.role, (site.source, site.target)))
    rest = [_layer(entry, "", None, entry.target, None) for entry in moved if entry.target not in seen]
    return found + rest


def _layer(
    entry: Moved,
    tower: str,
    depth: int | None,
    role: str,
    shapes: tuple[tuple[int, int], tuple[int, int]] | None,
) -> Layer:
    fits = (entry.output, entry.input)
    told = (entry.kept, entry.norm, entry.scale, entry.ridge)
    return Layer(tower, depth, role, entry.target, entry.source, shapes, *fits, *told)


def layers_of_maps(maps: Iterable[Mapped]) -> list[Layer]:
    """Return the layers that there are maps of."""
    found = []
    for each in maps:
        tower, depth = each.tower, each.blocks[1]
        role = each.target if depth is None else each.target.removeprefix(place(tower, depth)).strip()
        fits = (each.output, each.input)
        found.append(Layer(tower, depth, role, each.target, each.source, each.shapes, *fits, scale=each.scale))
    return found


def parts(layers: Sequence[Layer]) -> list[Part]:
    """Return the grids of layers, and the same as a table; nothing of no layers."""
    if not layers:
        return []
    legend = (
        "Every cell is a layer of the target: the number is the residual of its maps, 0 for a perfect match, the mean "
        "of both sides; the fuller the cell, the better they fit. "
    )
    if any(layer.kept is not None for layer in layers):
        legend += "The line below it is the share of τ that is kept. "
    legend += "Point at a cell, tap it or go to it with the Tab key to see more."
    apart: dict[tuple[str, bool], list[Layer]] = {}
    for layer in layers:
        apart.setdefault((layer.tower, layer.depth is None), []).append(layer)
    grids = [_grid(tower, outside, some, number) for number, ((tower, outside), some) in enumerate(apart.items())]
    return [Text(legend), *grids, Folded(f"The same as a table: {len(layers)} layers", tuple(_table(layers)))]


def _grid(tower: str, outside: bool, layers: Sequence[Layer], number: int) -> Grid:
    together = len({layer.role for layer in layers}) > MOST_ROLES or len(layers) > MOST_CELLS
    cells: dict[int | None, dict[str, list[Layer]]] = {}
    roles: dict[str, None] = {}
    for layer in layers:
        role = re.sub(r"^expert \d+ ", "experts' ", layer.role) if together else layer.role
        roles[role] = None
        cells.setdefault(layer.depth, {}).setdefault(role, []).append(layer)
    most = max(1, MOST_CELLS // len(roles))
    rows = [
        (
            "outside" if depth is None else str(depth),
            tuple(_site(found[role]) if role in found else None for role in roles),
        )
        for depth, found in list(cells.items())[:most]
    ]
    name = f"{tower}: " if tower else ""
    caption = f"{name}layers outside the blocks" if outside else f"{name}blocks of the target, from the first"
    return Grid(caption[:1].upper() + caption[1:], tuple(roles), tuple(rows), number)


def _site(layers: Sequence[Layer]) -> Site:
    """Return a cell; of several layers, what they have on average."""
    residual = _mean([layer.residual for layer in layers])
    kept = _mean([layer.kept for layer in layers])
    label = layers[0].target if len(layers) == 1 else f"{layers[0].target} … {layers[-1].target}"
    return Site(
        label,
        NONE if residual is None else _short(residual),
        None if residual is None else _tenth(1 - residual),
        None if kept is None else _tenth(kept),
        tuple(_told(layers[0]) if len(layers) == 1 else _told_together(layers, residual, kept)),
    )


def _short(residual: float) -> str:
    """Return a number from 0 to 1 in three characters."""
    text = f"{residual:.2f}"
    return {"0.00": "0", "1.00": "1"}.get(text, text.removeprefix("0"))


def _tenth(share: float) -> int:
    return round(10 * min(max(share, 0.0), 1.0))


def _mean(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return fmean(found) if found else None


def _told(layer: Layer) -> Iterable[str]:
    """Yield what is said of a layer, a line each."""
    yield f"from {layer.source}"
    if layer.shapes:
        yield f"shape {shape(layer.shapes[0])} → {shape(layer.shapes[1])}"
    yield f"output side: {fitted(layer.output)}"
    yield f"input side: {fitted(layer.input)}"
    if layer.kept is not None:
        yield f"τ kept: {percent(layer.kept)}"
    if layer.norm is not None:
        yield f"‖τ‖ {figure(layer.norm)}"
    if layer.scale not in (None, 1.0):
        yield f"scale {figure(layer.scale)}"
    if layer.ridge is not None:
        yield f"λ {figure(layer.ridge)}"


def _told_together(layers: Sequence[Layer], residual: float | None, kept: float | None) -> Iterable[str]:
    yield f"{len(layers)} layers, on average:"
    yield f"residual {figure(residual, 3)}"
    if kept is not None:
        yield f"τ kept: {percent(kept)}"


def _table(layers: Sequence[Layer]) -> list[Part]:
    head = (
        "target",
        "source",
        "shape",
        "output side: rank",
        "residual",
        "input side: rank",
        "residual",
        "τ kept",
        "‖τ‖",
    )
    columns = tuple(Column(title, "text" if number < 2 else "number") for number, title in enumerate(head))
    rows = [
        (
            layer.target,
            layer.source,
            f"{shape(layer.shapes[0])} → {shape(layer.shapes[1])}" if layer.shapes else NONE,
            *(text for fit in (layer.output, layer.input) for text in _side(fit)),
            percent(layer.kept),
            figure(layer.norm),
        )
        for layer in layers[:MOST_CELLS]
    ]
    caption = "Rank is how many directions the samples determine; the residual is the Procrustes disparity"
    more = len(layers) - len(rows)
    rest = [Text(f"And {more:,} more, which the JSON below has.")] if more else []
    return [Table(caption, columns, tuple(rows)), *rest]


def _side(fit: Fit | None) -> tuple[str, str]:
    return (f"{fit.rank} of {fit.full}", f"{fit.residual:.3f}") if fit else ("as it is", NONE)
