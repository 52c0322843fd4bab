"""Maps between two bases in files: shards of factors, and one JSON that says whose they are and where each lies."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import save_file
from torch import Tensor

from hf_bico.core.errors import PortError, listed
from hf_bico.core.pairing import Blocks
from hf_bico.core.types import BilinearMap, Fit, Pair
from hf_bico.io.checkpoints import SafeTensors
from hf_bico.io.fingerprint import Fingerprint
from hf_bico.io.outside import parse_object
from hf_bico.io.reference import sha256

MAPS_FILE = "hf_bico_maps.json"
SCHEMA = 1
SHARD = 2_000_000_000
"""Largest size of a file in bytes, unless a single factor is larger."""
SHARD_NAME = re.compile(r"maps-\d{5}\.safetensors")


class Factor(NamedTuple):
    """Where a factor is stored: the names of its file and of its tensor."""

    file: str
    tensor: str


@dataclass(frozen=True)
class Entry:
    """The stored map of one pair; a side without a factor stays as it is."""

    base: str
    """Name of the base's site."""
    target: str
    """Name of the target's site."""
    shapes: tuple[tuple[int, int], tuple[int, int]]
    """(out, in) of the base's weight and of the target's."""
    left: Factor | None
    right: Factor | None
    output_fit: Fit | None
    input_fit: Fit | None
    scale: float

    def expected(self) -> Iterable[tuple[Factor, tuple[int, int]]]:
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
            if data["schema"] != SCHEMA:
                raise PortError(f"{MAPS_FILE} has schema {data['schema']!r}; this version reads {SCHEMA}")
            base, target = (
                MapsBase(data[role]["name"], data[role]["commit"], Fingerprint.of_record(data[role]["fingerprint"]))
                for role in ("source", "target")
            )
            files = {name: (int(file["bytes"]), str(file["sha256"])) for name, file in data["files"].items()}
            rows = [_entry(row) for row in data["maps"]]
            matching, method = data["matching"], data["method"]
            paths = {
                tower: path and tuple(block if block is None else int(block) for block in path)
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
    left, right = (row[side] and Factor(str(row[side]["file"]), str(row[side]["tensor"])) for side in ("left", "right"))
    output_fit, input_fit = (
        fit and Fit(int(fit["rank"]), int(fit["full"]), float(fit["residual"])) for fit in (row["output"], row["input"])
    )
    return Entry(str(row["source"]), str(row["target"]), shapes, left, right, output_fit, input_fit, row["scale"])


class Shards:
    """Writes maps, as they come, to files of a folder; no more than one file's worth is held."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[dict[str, Any]] = []
        self.files: dict[str, dict[str, Any]] = {}
        self._waiting: dict[str, Tensor] = {}
        self._last: tuple[Tensor | None, dict[str, str] | None] = (None, None)

    def add(self, pair: Pair, map_: BilinearMap) -> None:
        """Add a pair's map; a right factor that the pair before has too (q, k and v share theirs) is stored once."""
        a, b = pair
        if map_.right is not self._last[0]:
            self._last = map_.right, self._put(map_.right, f"{len(self.rows):05d}.right")
        right = self._last[1]  # may lie in an earlier file than the left factor
        self.rows.append(
            {
                "source": a.name,
                "target": b.name,
                "tower": b.tower,
                "blocks": [a.depth, b.depth],
                "shapes": [[a.d_out, a.d_in], [b.d_out, b.d_in]],
                "left": self._put(map_.left, f"{len(self.rows):05d}.left"),
                "right": right,
                "output": map_.output_fit and asdict(map_.output_fit),
                "input": map_.input_fit and asdict(map_.input_fit),
                "scale": map_.scale,
            }
        )

    def _put(self, factor: Tensor | None, name: str) -> dict[str, str] | None:
        if factor is None:
            return None
        if self._waiting and factor.nbytes + sum(tensor.nbytes for tensor in self._waiting.values()) > SHARD:
            self.flush()
        self._waiting[name] = factor.cpu().contiguous()
        return {"file": self._name, "tensor": name}

    @property
    def _name(self) -> str:
        return f"maps-{len(self.files) + 1:05d}.safetensors"

    def flush(self) -> None:
        """Write the factors held to a file; the next map begins another."""
        if self._waiting:
            place = self.folder / self._name
            save_file(self._waiting, place, metadata={"format": "pt"})
            self.files[place.name] = {"bytes": place.stat().st_size, "sha256": sha256(place)}
        self._waiting = {}

    def forget_after(self, rows: int) -> None:
        """Forget all maps but the first `rows`, after which there was a flush, and remove their files."""
        self._waiting, self._last = {}, (None, None)
        self.rows = self.rows[:rows]
        used = {row[side]["file"] for row in self.rows for side in ("left", "right") if row[side]}
        for name in self.files.keys() - used:
            (self.folder / name).unlink()
            del self.files[name]


class MapReader:
    """Reads stored maps, one at a time."""

    def __init__(self, folder: Path, record: MapsRecord, entries: Sequence[Entry], device: str) -> None:
        """Check the files of some maps.

        Args:
            entries: the maps that will be read; only their files are checked.
            device: where to put the factors.

        Raises:
            PortError: files are missing or not as they were written, factors are missing or of another shape; all of
                them listed.
        """
        self.device = device
        names = sorted({factor.file for entry in entries for factor, _ in entry.expected()})
        odd = [why for name in names if (why := _damage(folder / name, *record.files[name]))]
        if odd:
            raise PortError(f"the maps are damaged: {listed(odd)}; fetch them again")
        self.tensors = {name: SafeTensors(folder / name) for name in names}
        odd = [
            f"{factor.tensor} of {factor.file} is not there"
            if factor.tensor not in self.tensors[factor.file]
            else f"{factor.tensor} is {self.tensors[factor.file].shape(factor.tensor)}, not {shape}"
            for entry in entries
            for factor, shape in entry.expected()
            if factor.tensor not in self.tensors[factor.file] or self.tensors[factor.file].shape(factor.tensor) != shape
        ]
        if odd:
            raise PortError(f"{MAPS_FILE} does not fit the files beside it: {listed(list(dict.fromkeys(odd)))}")
        self._last: tuple[Factor | None, Tensor | None] = (None, None)

    def read(self, entry: Entry) -> BilinearMap:
        """Return the map of an entry, its factors on the device.

        Raises:
            PortError: NaN or Inf in a factor.
        """
        if entry.right != self._last[0]:
            self._last = entry.right, self._factor(entry, entry.right)
        return BilinearMap(
            self._factor(entry, entry.left), self._last[1], entry.output_fit, entry.input_fit, entry.scale
        )

    def _factor(self, entry: Entry, factor: Factor | None) -> Tensor | None:
        if factor is None:
            return None
        # a copy: BLAS may round differently at the alignment that a tensor has in its file
        tensor = self.tensors[factor.file][factor.tensor].clone().to(self.device)
        if not tensor.isfinite().all():
            raise PortError(
                f"NaN or Inf in the map of {entry.target} ({factor.tensor} of {factor.file}): make the maps again"
            )
        return tensor


def _damage(path: Path, size: int, digest: str) -> str | None:
    """Return what is wrong with a file; None if it is as it was written."""
    if not path.is_file():
        return f"{path.name} is missing"
    if path.stat().st_size != size:
        return f"{path.name} has {path.stat().st_size} bytes, not {size}"
    return None if sha256(path) == digest else f"{path.name} is not what was written (sha256)"


def write_maps_record(folder: Path, data: Mapping[str, Any]) -> None:
    """Write the maps' JSON beside their shards."""
    (folder / MAPS_FILE).write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
