"""Maps that `hf-bico align` made, in place of a method that makes its own."""

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
from hf_bico.io.maps.files import MAPS_FILE, MapReader, MapsBase, MapsRecord
from hf_bico.io.reference import Pinned, errors_about

SHOWN = ("dataset", "commit", "split", "n", "per_class", "strategy", "seed", "content_sha256")
"""Of the calibration set that maps were made of, what a report says of them."""


@dataclass(frozen=True)
class StoredMaps(Method):
    """τ_B = s L τ_A Rᵀ with maps out of files: no samples are needed for them."""

    pinned: Pinned
    sha256: str
    """Of the maps' JSON, which has those of their files."""
    made: MapsRecord
    """What it says of them."""
    reader: MapReader | None = None
    """Of the factors, once the maps are `opened`."""

    def __post_init__(self) -> None:
        for each in ("name", "citation", "summary"):  # other methods have them in their class
            object.__setattr__(self, each, self.made.method[each])

    @property
    def wanted(self) -> Wanted:
        return Wanted()

    @property
    def matching(self) -> Matching:
        """The maps' own, before any of its blocks were left out."""
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
        """The bases that they lead from and to."""
        return str(self.made.base), str(self.made.target)

    @property
    def where(self) -> str:
        """What the maps are called in an error."""
        return f"the maps {self.pinned.name}" + (f"@{self.pinned.commit}" if self.pinned.commit else "")

    def record(self) -> dict[str, Any]:
        """Return what a report says: also which maps, between which bases, made how and of which samples."""
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
        """Refuse models that are not those that the maps lie between, whatever they are called.

        Args:
            models: the base and the target, in `folders`.

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
        """Return the maps ready to be read, with the files that serve these pairs fetched and looked through.

        Raises:
            PortError: they are damaged, or not there.
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
    """Return whether a model is the one said: by every byte, unless it is the very commit."""
    tensors = SafeTensors.of(library, pinned, folder)
    committed = pinned.commit is not None and (pinned.name, pinned.commit) == (said.name, said.commit)
    return fingerprint(tensors, full=not committed).matches(said.fingerprint, full=not committed)


@contextmanager
def naming_the_maps(maps: StoredMaps | None, base: Pinned, target: Pinned) -> Iterator[None]:
    """Say in an error about layers that are to be paired that maps were made for models of other names, if so."""
    try:
        yield
    except PortError as error:
        if maps is None or maps.between == (str(base), str(target)):
            raise
        raise PortError(
            f"{maps.where} lead from {maps.between[0]} to {maps.between[1]}, this port goes from {base} to {target}: "
            f"{error.message}"
        ) from error


def open_maps(reference: str, hub: Hub) -> StoredMaps:
    """Return the maps of a folder or a repo; their JSON alone is read.

    Raises:
        PortError: there are none, or they say nothing that can be trusted.
    """
    pinned = hub.resolve(reference)
    with errors_about(pinned):
        if MAPS_FILE not in pinned.files:
            raise PortError(f"there are no maps: it has no {MAPS_FILE}; `hf-bico align` makes one")
        raw = (hub.fetch(pinned, (MAPS_FILE,)) / MAPS_FILE).read_bytes()
        made = MapsRecord.read(raw.decode("utf-8", "replace"))
    return StoredMaps(pinned, hashlib.sha256(raw).hexdigest(), made)
