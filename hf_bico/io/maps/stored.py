"""The method that uses maps stored by `hf-bico align` instead of making its own."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hf_bico.core.errors import PortError, listed, setting
from hf_bico.core.method import Method
from hf_bico.core.moments import Statistics
from hf_bico.core.pairing import Blocks, Matching, by_path
from hf_bico.core.types import Map, Pair, Wanted
from hf_bico.families import Library
from hf_bico.io.checkpoints import SafeTensors
from hf_bico.io.fingerprint import fingerprint
from hf_bico.io.hub import Hub
from hf_bico.io.maps.files import MAPS_FILE, MapsBase, MapsRecord
from hf_bico.io.maps.shards import MapReader
from hf_bico.io.reference import Pinned, errors_about

SHOWN = ("dataset", "commit", "split", "n", "per_class", "strategy", "seed", "content_sha256")
"""What a report says about the calibration set that the maps were made with."""


@dataclass(frozen=True)
class StoredMaps(Method):
    """τ_B = s L τ_A Rᵀ with maps read from files; no samples are needed."""

    pinned: Pinned
    """The repo or folder with the maps."""
    sha256: str
    """Hash of the maps' JSON, which has the hashes of their files."""
    made: MapsRecord
    """What the JSON says."""
    reader: MapReader | None = None
    """Reads the maps' factors; None until they are `opened`."""

    def __post_init__(self) -> None:
        for each in ("name", "citation", "summary"):  # class attributes in other methods
            object.__setattr__(self, each, self.made.method[each])

    @property
    def wanted(self) -> Wanted:
        return Wanted()

    @property
    def matching(self) -> Matching:
        """The layer matching that the maps were made with, before any of its blocks were left out."""
        rule, left = by_path(self.made.paths, "the matching of the maps"), self.made.left

        def of_maps(tower: str, depths_base: int, depths_target: int, /) -> Blocks:
            if tower in left:
                raise PortError(f"{self.where} have none of the {tower} tower ({left[tower]}), which SOURCE changes")
            return rule(tower, depths_base, depths_target)

        return of_maps

    @property
    def options(self) -> dict[str, Any]:
        return {"reference": self.pinned.name, "commit": self.pinned.commit, "sha256": self.sha256}

    @property
    def between(self) -> tuple[str, str]:
        """The bases that the maps lead from and to."""
        return str(self.made.base), str(self.made.target)

    @property
    def where(self) -> str:
        """What to call the maps in errors."""
        return f"the maps {self.pinned.name}" + (f"@{self.pinned.commit}" if self.pinned.commit else "")

    def record(self) -> dict[str, Any]:
        """Return what a report says of the method, and of the maps: their bases, options and calibration set."""
        maps = self.options | {
            "source": self.between[0],
            "target": self.between[1],
            "options": dict(self.made.method.get("options", {})),
            "calibration": {key: self.made.calibration.get(key) for key in SHOWN},
        }
        return super().record() | {"maps": maps}

    def check(self, pairs: Sequence[Pair]) -> None:
        entries = self.made.entries
        lacking = [b.name for _, b in pairs if b.name not in entries]
        other = [
            f"{b.name} takes from {a.name}, in the maps from {entries[b.name].base}"
            for a, b in pairs
            if b.name in entries and entries[b.name].base != a.name
        ]
        shapes = {b.name: ((a.d_out, a.d_in), (b.d_out, b.d_in)) for a, b in pairs}
        sized = [
            f"{name} is {shape[1]} of {shape[0]}, in the maps {entries[name].shapes[1]} of {entries[name].shapes[0]}"
            for name, shape in shapes.items()
            if name in entries and entries[name].shapes != shape
        ]
        if lacking:
            raise PortError(
                f"{self.where} have none of {listed(lacking)}: leave those blocks out ({setting('layers')}, "
                f"{setting('skip')}), or align with them"
            )
        if other or sized:
            raise PortError(f"{self.where} are of other layers: {listed(other + sized)}")

    def require_bases(self, library: Library, models: Sequence[Pinned], folders: Sequence[Path]) -> None:
        """Refuse models that are not the two that the maps are for, by their weights, whatever their names.

        Args:
            models: the base and the target.
            folders: theirs, in the same order.

        Raises:
            PortError: either holds other weights.
        """
        odd = [
            f"they lead {word} {said}, and {pinned} holds other weights"
            for word, said, pinned, folder in zip(
                ("from", "to"), (self.made.base, self.made.target), models, folders, strict=True
            )
            if not _holds(said, library, pinned, folder)
        ]
        if odd:
            raise PortError(f"{self.where} do not fit this port: {'; '.join(odd)}")

    def opened(self, hub: Hub, pairs: Sequence[Pair], device: str) -> "StoredMaps":
        """Fetch and check the files with the maps of these pairs, and return the method ready to read them.

        Raises:
            PortError: files are damaged or missing.
        """
        entries = [self.made.entries[b.name] for _, b in pairs]
        names = sorted({factor.file for entry in entries for factor, _ in entry.expected()})
        with errors_about(self.pinned):
            missing = [name for name in names if name not in self.pinned.files]
            if missing:
                raise PortError(f"the maps are damaged: {listed(missing)} is missing")
            return replace(self, reader=MapReader(hub.fetch(self.pinned, tuple(names)), self.made, entries, device))

    def plan(self, pairs: Sequence[Pair], seen: Statistics) -> Iterator[tuple[Pair, Map]]:
        reader = self.reader
        assert reader is not None  # they are `opened`
        for pair in pairs:
            with errors_about(self.pinned):
                map_ = reader.read(self.made.entries[pair.target.name])
            yield pair, map_


def _holds(said: MapsBase, library: Library, pinned: Pinned, folder: Path) -> bool:
    """Return whether a model is the one recorded: by every byte, or by a sample if it is the same repo and commit."""
    tensors = SafeTensors.of(library, pinned, folder)
    committed = pinned.commit is not None and (pinned.name, pinned.commit) == (said.name, said.commit)
    return fingerprint(tensors, full=not committed).matches(said.fingerprint, full=not committed)


@contextmanager
def naming_the_maps(maps: StoredMaps | None, base: Pinned, target: Pinned) -> Iterator[None]:
    """Add to a `PortError` of the block that the maps were made for models of other names, if they were.

    Args:
        maps: None: errors stay as they are.
    """
    try:
        yield
    except PortError as error:
        if maps is None or maps.between == (str(base), str(target)):
            raise
        raise PortError(
            f"{maps.where} lead from {maps.between[0]} to {maps.between[1]}, this port goes from {base} to {target}: "
            f"{error.message}"
        ) from error


ALIGN = "`hf-bico align BASE TARGET --dataset DATASET --output MAPS`"


def open_maps(reference: str, hub: Hub) -> StoredMaps:
    """Return the stored maps in a folder or a repo; only their JSON is read.

    Raises:
        PortError: there are none, or their JSON is damaged.
    """
    pinned = hub.resolve(reference)
    with errors_about(pinned):
        if MAPS_FILE not in pinned.files:
            raise PortError(f"there are no maps: it has no {MAPS_FILE}; {ALIGN} makes them")
        raw = (hub.fetch(pinned, (MAPS_FILE,)) / MAPS_FILE).read_bytes()
        made = MapsRecord.read(raw)
    return StoredMaps(pinned, hashlib.sha256(raw).hexdigest(), made)
