"""Finished cells, a line of JSON each, so that a second start goes on where the first was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hub_scripts.papers.plan import Cell, Unit

ZERO, SOURCE, REFERENCE = "zero-shot", "source", "fine-tuned target"


def name_of(cell: Cell) -> str:
    """As `hf_bico.core.compare.compare` names the row."""
    return f"{cell.method} α={cell.alpha}"


class Ledger:
    """A file that grows by a line a value; a line that was cut off as it was written does not count."""

    def __init__(self, path: Path) -> None:
        self.path, self.known = path, {}
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        for line in whole.splitlines():
            entry = json.loads(line)
            self.known[entry["unit"], entry["size"], entry["seed"], entry["what"]] = entry["value"]
        if whole != text:
            path.write_text(whole, encoding="utf-8")

    def get(self, unit: str, size: int, seed: int, what: str) -> Any:
        """None for what is not there."""
        return self.known.get((unit, size, seed, what))

    def put(self, unit: str, size: int, seed: int, what: str, value: Any) -> Any:
        entry = {"unit": unit, "size": size, "seed": seed, "what": what, "value": value}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        self.known[unit, size, seed, what] = value
        return value

    def once(self, unit: str, size: int, seed: int, what: str, compute: Callable[[], Any]) -> Any:
        """A value that is computed at most once, also over several starts."""
        found = self.get(unit, size, seed, what)
        return self.put(unit, size, seed, what, compute()) if found is None else found

    def has(self, key: str, unit: Unit) -> bool:
        """Whether all of a comparison is there."""
        fixed = [(cell.size, cell.seed, what) for cell in unit.cells for what in (ZERO, SOURCE, REFERENCE)]
        return all(
            self.get(key, *place) is not None
            for place in [*fixed, *((cell.size, cell.seed, name_of(cell)) for cell in unit.cells)]
        )
