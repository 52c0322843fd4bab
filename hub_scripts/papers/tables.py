"""Finished cells as tables: the papers' gap recovered beside the papers' figures, and the accuracies below it."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean, stdev
from typing import Any

from hub_scripts.papers.ledger import REFERENCE, SOURCE, ZERO, Ledger, name_of
from hub_scripts.papers.plan import Cell, Unit, key_of, units_of
from hub_scripts.papers.spec import Spec, Table

FIXED = (ZERO, SOURCE, REFERENCE)


def results(spec: Spec, tables: Iterable[Table], ledger: Ledger) -> dict[str, Any]:
    """All that is known so far, by table."""
    return {
        table.name: {
            "title": table.title,
            "note": table.note,
            "rows": _rows(spec, table, ledger),
            "accuracies": _accuracies(spec, table, ledger),
        }
        for table in tables
    }


def _rows(spec: Spec, table: Table, ledger: Ledger) -> list[dict[str, Any]]:
    """A row a pair, method, α and column: the gap recovered in %, from means over the datasets, as the papers take
    it."""
    rows = []
    for pair in table.pairs:
        for method in table.methods:
            for alpha in table.alphas:
                for place, (strategy, size) in enumerate(table.columns):
                    units = [
                        unit
                        for unit in units_of(table)
                        if (unit.source, unit.target) == pair and unit.strategy == strategy
                    ]
                    figures = table.paper.get(method)
                    rows.append(
                        {
                            "pair": list(pair),
                            "method": method,
                            "alpha": alpha,
                            "strategy": strategy,
                            "per_class" if table.per_class else "n": size,
                            "paper": figures and figures[place],
                            **_gap(spec, units, ledger, size, method, alpha),
                        }
                    )
    return rows


def _gap(spec: Spec, units: list[Unit], ledger: Ledger, size: int, method: str, alpha: float | str) -> dict[str, Any]:
    """Of all seeds together, and its spread over them."""
    seeds = []
    for seed in range(units[0].seeds):
        cells = [_scores(spec, unit, ledger, Cell(size, seed, method, alpha)) for unit in units]
        refusal = next((cell["refusal"] for cell in cells if cell["refusal"]), None)
        if refusal or any(cell["score"] is None for cell in cells):
            return {"refusal": refusal, "accuracy": None, "recovered": None, "spread": None}
        seeds.append([fmean(cell[what] for cell in cells) for what in ("score", ZERO, REFERENCE)])
    each = [_share(*means) for means in seeds]
    whole = [fmean(column) for column in zip(*seeds, strict=True)]
    spread = stdev(each) if len(each) > 1 and None not in each else None
    return {"refusal": None, "accuracy": whole[0], "recovered": _share(*whole), "spread": spread}


def _share(score: float, zero: float, reference: float) -> float | None:
    """In %; None where there is no way up."""
    return 100 * (score - zero) / (reference - zero) if reference > zero else None


def _scores(spec: Spec, unit: Unit, ledger: Ledger, cell: Cell) -> dict[str, Any]:
    key = key_of(spec, unit)
    row = ledger.get(key, cell.size, cell.seed, name_of(cell)) or {"score": None, "refusal": None}
    fixed = {what: ledger.get(key, cell.size, cell.seed, what) for what in FIXED}
    return {"score": row["score"] if None not in fixed.values() else None, "refusal": row["refusal"]} | fixed


def _accuracies(spec: Spec, table: Table, ledger: Ledger) -> list[dict[str, Any]]:
    """Every cell with what it is measured against, in shares."""
    return [
        {
            "pair": [unit.source, unit.target],
            "dataset": unit.dataset,
            "strategy": unit.strategy,
            **cell._asdict(),
            **_scores(spec, unit, ledger, cell),
        }
        for unit in units_of(table)
        for cell in unit.cells
    ]


def markdown(spec: Spec, tables: Iterable[Table], found: dict[str, Any]) -> str:
    """All tables on one page."""
    lines = [
        "# The papers' tables",
        "",
        "Share of the fine-tune's gain (the papers' gap recovered) in %: (ported − zero-shot) / (the target's own "
        "fine-tune − zero-shot), of accuracies averaged over the datasets, ± its spread over the seeds in points. "
        "In brackets the paper's figure of the same row and column.",
        "",
    ]
    for table in tables:
        data = found[table.name]
        lines += [
            f"## Table {table.name}: {table.title}",
            "",
            *([table.note, ""] if table.note else []),
            *_page(
                ["pair", "method", "α", *(_head(table, *column) for column in table.columns)],
                _lines(table, data["rows"]),
            ),
            "",
            *_page(["dataset", "pair", "zero-shot", "fine-tuned target", "fine-tuned source"], _bases(data)),
            "",
        ]
    return "\n".join(lines)


def _head(table: Table, strategy: str | None, size: int) -> str:
    return (f"K = {size}" if table.per_class else f"N = {size}") + (f", {strategy}" if strategy else "")


def _page(header: list[str], rows: Iterable[list[str]]) -> list[str]:
    return [f"| {' | '.join(header)} |", "|" + "---|" * len(header), *(f"| {' | '.join(row)} |" for row in rows)]


def _lines(table: Table, rows: list[dict[str, Any]]) -> Iterable[list[str]]:
    width = len(table.columns)
    for first in range(0, len(rows), width):
        some = rows[first : first + width]
        yield [" → ".join(some[0]["pair"]), some[0]["method"], str(some[0]["alpha"]), *map(_cell, some)]


def _cell(row: dict[str, Any]) -> str:
    if row["refusal"]:
        return f"refused: {row['refusal']}"
    paper = "" if row["paper"] is None else f" ({row['paper']:.1f})"
    if row["recovered"] is None:
        return ("–" if row["accuracy"] is None else "no gain") + paper
    return f"{row['recovered']:.1f}" + ("" if row["spread"] is None else f" ± {row['spread']:.1f}") + paper


def _bases(data: dict[str, Any]) -> Iterable[list[str]]:
    """What the datasets' cells are measured against, averaged over the draws."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for entry in data["accuracies"]:
        groups.setdefault((entry["dataset"], " → ".join(entry["pair"])), []).append(entry)
    for (dataset, pair), some in groups.items():
        values = [[entry[what] for entry in some] for what in (ZERO, REFERENCE, SOURCE)]
        yield [dataset, pair, *("–" if None in column else f"{100 * fmean(column):.2f} %" for column in values)]
