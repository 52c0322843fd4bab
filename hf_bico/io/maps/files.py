"""Maps between two bases in files: shards of factors, and one JSON that says whose they are and where each lies."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

from hf_bico.core.errors import PortError, listed
from hf_bico.core.pairing import Blocks
from hf_bico.core.types import Fit
from hf_bico.io.fingerprint import Fingerprint
from hf_bico.io.outside import parse_object

MAPS_FILE = "hf_bico_maps.json"
SCHEMA = 2
READ = (1, SCHEMA)
"""Schema 1 has no products."""
SHARD_NAME = re.compile(r"maps-\d{5}\.safetensors")


class Place(NamedTuple):
    """Where a factor is stored: the names of its file and of its tensor, or of a product's two: B, and A."""

    file: str
    tensor: str
    times: str | None = None
    """The name of A, in the same file."""
    inner: int = 0
    """The columns of B and rows of A."""

    def expected(self, shape: tuple[int, int]) -> list[tuple[str, tuple[int, int]]]:
        """Return its tensors, each with the shape that it must have for a factor of this shape."""
        if self.times is None:
            return [(self.tensor, shape)]
        return [(self.tensor, (shape[0], self.inner)), (self.times, (self.inner, shape[1]))]


@dataclass(frozen=True)
class Entry:
    """The stored map of one pair; a side without a factor stays as it is."""

    base: str
    """Name of the base's site."""
    target: str
    """Name of the target's site."""
    shapes: tuple[tuple[int, int], tuple[int, int]]
    """(out, in) of the base's weight and of the target's."""
    left: Place | None
    right: Place | None
    output_fit: Fit | None
    input_fit: Fit | None
    scale: float

    def expected(self) -> Iterable[tuple[Place, tuple[int, int]]]:
        """Yield the map's factors, each with the shape that it must have."""
        (out_a, in_a), (out_b, in_b) = self.shapes
        for factor, shape in ((self.left, (out_b, out_a)), (self.right, (in_b, in_a))):
            if factor is not None:
                yield factor, shape


class MapsBase(NamedTuple):
    """One of the two models that maps lead between."""

    name: str
    commit: str | None
    fingerprint: Fingerprint

    def __str__(self) -> str:
        return f"{self.name}@{self.commit}" if self.commit else f"{self.name} (local folder)"


@dataclass(frozen=True)
class MapsRecord:
    """What the JSON says."""

    base: MapsBase
    target: MapsBase
    method: Mapping[str, Any]
    """Name, citation, summary and options of the method that made the maps."""
    rule: str
    """The rule of the layer matching."""
    paths: Mapping[str, Blocks]
    """Tower → the matching of its blocks, including those that were left out."""
    files: Mapping[str, tuple[int, str]]
    """File name → size in bytes, and sha256."""
    entries: Mapping[str, Entry]
    """Name of the target's site → its map."""
    calibration: Mapping[str, Any]
    """What the maps were calibrated on."""
    left: Mapping[str, str]
    """Tower → why there are no maps for it."""

    @classmethod
    def read(cls, raw: bytes) -> "MapsRecord":
        """Return the record in the JSON's bytes.

        Raises:
            PortError: it is not a record of maps, has another schema, or contradicts itself.
        """
        try:
            data = parse_object(raw, MAPS_FILE)
            if data["schema"] not in READ:
                raise PortError(f"{MAPS_FILE} has schema {data['schema']!r}; this version reads up to {SCHEMA}")
            base, target = (
                MapsBase(data[role]["name"], data[role]["commit"], Fingerprint.of_record(data[role]["fingerprint"]))
                for role in ("source", "target")
            )
            files = {name: (int(file["bytes"]), str(file["sha256"])) for name, file in data["files"].items()}
            rows = [_entry(row) for row in data["maps"]]
            matching, method = data["matching"], data["method"]
            paths: dict[str, Any] = {
                tower: None if path is None else tuple(block if block is None else int(block) for block in path)
                for tower, path in matching["paths"].items()
            }
            said = {key: str(method[key]) for key in ("name", "citation", "summary")} | {
                "options": dict(method["options"])
            }
            found = cls(
                base,
                target,
                {**method, **said},
                str(matching["rule"]),
                paths,
                files,
                {row.target: row for row in rows},
                dict(data["calibration"]),
                dict(data["left"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PortError(
                f"{MAPS_FILE} is not a readable record of maps ({type(error).__name__}: {error})"
            ) from error
        odd = [f"{name!r} is not a file of maps" for name in files if not SHARD_NAME.fullmatch(name)]
        odd += [
            f"{factor.file!r} is not one of its files"
            for row in rows
            for factor, _ in row.expected()
            if factor.file not in files
        ]
        odd += [
            f"{row.target} has no factor for a side that is {a} wide in one base and {b} in the other"
            for row in rows
            for factor, a, b in zip((row.left, row.right), *row.shapes, strict=True)
            if factor is None and a != b
        ]
        odd += [f"{row.target} is there twice" for row in rows if found.entries[row.target] is not row]
        odd += [f"{row.target} has the scale {row.scale}" for row in rows if not 0 < row.scale < float("inf")]
        if odd:
            raise PortError(f"{MAPS_FILE} cannot be trusted: {listed(list(dict.fromkeys(odd)))}")
        return found


def _entry(row: Mapping[str, Any]) -> Entry:
    """Return the map that a row of the JSON describes; any error says that the JSON is damaged."""
    shapes = tuple((int(out), int(into)) for out, into in row["shapes"])
    if len(shapes) != 2 or not isfinite(row["scale"]):
        raise ValueError(f"the map of {row['target']} has shapes {row['shapes']} and scale {row['scale']}")
    left, right = (None if row[side] is None else _place(row[side]) for side in ("left", "right"))
    output_fit, input_fit = (
        None if fit is None else Fit(int(fit["rank"]), int(fit["full"]), float(fit["residual"]))
        for fit in (row["output"], row["input"])
    )
    return Entry(str(row["source"]), str(row["target"]), shapes, left, right, output_fit, input_fit, row["scale"])


def _place(said: Mapping[str, Any]) -> Place:
    times = said.get("times")
    return Place(
        str(said["file"]), str(said["tensor"]), None if times is None else str(times), int(said.get("inner", 0))
    )


def write_maps_record(folder: Path, data: Mapping[str, Any]) -> None:
    """Write the maps' JSON beside their shards."""
    (folder / MAPS_FILE).write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
