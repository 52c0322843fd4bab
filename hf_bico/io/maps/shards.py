"""The factors of stored maps, written as they come and read one at a time."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from hf_bico.core.errors import PortError, listed
from hf_bico.core.finite import is_finite
from hf_bico.core.low_rank import Factor, LowRank
from hf_bico.core.types import BilinearMap, Pair
from hf_bico.io.checkpoints import SafeTensors
from hf_bico.io.maps.files import MAPS_FILE, Entry, MapsRecord, Place
from hf_bico.io.reference import sha256

SHARD = 2_000_000_000
"""Largest size of a file in bytes, unless a single factor is larger."""


DTYPES = {"float32": torch.float32, "float16": torch.float16}
"""What factors may be stored in. Their numbers are at most about 1, for which float16 has three more bits than
bfloat16."""


class Shards:
    """Writes maps, as they come, to files of a folder; no more than one file's worth is held."""

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        self.folder, self.dtype = folder, dtype
        self.rows: list[dict[str, Any]] = []
        self.files: dict[str, dict[str, Any]] = {}
        self._waiting: dict[str, Tensor] = {}
        self._last: tuple[Factor | None, dict[str, Any] | None] = (None, None)

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

    def _put(self, factor: Factor | None, name: str) -> dict[str, Any] | None:
        if factor is None:
            return None
        two = [factor.b, factor.a] if isinstance(factor, LowRank) else [factor]
        names = [f"{name}.b", f"{name}.a"] if len(two) > 1 else [name]
        parts = [part.cpu().to(self.dtype).contiguous() for part in two]
        if self._waiting and sum(part.nbytes for part in (*parts, *self._waiting.values())) > SHARD:
            self.flush()
        self._waiting |= dict(zip(names, parts, strict=True))
        said = {"file": self._name, "tensor": names[0]}
        return said if len(two) == 1 else said | {"times": names[1], "inner": len(parts[1])}

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
            f"{name} of {factor.file} is not there" if name not in own else f"{name} is {own.shape(name)}, not {shape}"
            for entry in entries
            for factor, whole in entry.expected()
            for name, shape in factor.expected(whole)
            if name not in (own := self.tensors[factor.file]) or own.shape(name) != shape
        ]
        if odd:
            raise PortError(f"{MAPS_FILE} does not fit the files beside it: {listed(list(dict.fromkeys(odd)))}")
        self._last: tuple[Place | None, Factor | None] = (None, None)

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

    def _factor(self, entry: Entry, place: Place | None) -> Factor | None:
        if place is None:
            return None
        b = self._tensor(entry, place.file, place.tensor)
        return b if place.times is None else LowRank(b, self._tensor(entry, place.file, place.times))

    def _tensor(self, entry: Entry, file: str, name: str) -> Tensor:
        # a copy: BLAS may round differently at the alignment that a tensor has in its file
        tensor = self.tensors[file][name].to(self.device, torch.float32, copy=True)
        if not is_finite(tensor):
            raise PortError(f"NaN or Inf in the map of {entry.target} ({name} of {file}): make the maps again")
        return tensor


def _damage(path: Path, size: int, digest: str) -> str | None:
    """Return what is wrong with a file; None if it is as it was written."""
    if not path.is_file():
        return f"{path.name} is missing"
    if path.stat().st_size != size:
        return f"{path.name} has {path.stat().st_size} bytes, not {size}"
    return None if sha256(path) == digest else f"{path.name} is not what was written (sha256)"
