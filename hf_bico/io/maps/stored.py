"""Maps that `hf-bico align` made, in place of a method that makes its own."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import InitVar, dataclass
from pathlib import Path
from typing import Any

from hf_bico.core.errors import PortError, listed
from hf_bico.core.methods import METHODS, Method, method_of
from hf_bico.core.moments import Statistics
from hf_bico.core.pairing import Blocks, Matching, by_path
from hf_bico.core.types import Map, Pair, Signal
from hf_bico.families import Library
from hf_bico.io.checkpoints import SafeTensors
from hf_bico.io.fingerprint import fingerprint
from hf_bico.io.hub import Hub
from hf_bico.io.maps.files import MAPS_FILE, Entry, MapReader, MapsBase, MapsRecord
from hf_bico.io.reference import Pinned, errors_about


@dataclass(frozen=True)
class StoredMaps(Method):
    """τ_B = s L τ_A Rᵀ with maps out of files: no samples are needed for them."""

    reference: str
    commit: str | None
    sha256: str
    """Of the maps' JSON, which has those of their files."""
    pinned: InitVar[Pinned]
    record: InitVar[MapsRecord]

    def __post_init__(self, pinned: Pinned, record: MapsRecord) -> None:
        object.__setattr__(self, "_pinned", pinned)
        object.__setattr__(self, "_record", record)
        object.__setattr__(self, "_shelf", None)

    @property
    def name(self) -> str:
        """That of the method that made them; so with its citation and summary."""
        return self._record.method["name"]

    @property
    def citation(self) -> str:
        return self._record.method["citation"]

    @property
    def summary(self) -> str:
        return self._record.method["summary"]

    @property
    def signals(self) -> frozenset[Signal]:
        return frozenset()

    @property
    def matching(self) -> Matching:
        """The maps' own, before any of its blocks were left out."""
        rule, left = by_path(self._record.paths, "the matching of the maps"), self._record.left

        def of_maps(tower: str, depths_source: int, depths_target: int, /) -> Blocks:
            if tower in left:
                raise PortError(f"{self.where} have none of the {tower} tower ({left[tower]}), which SOURCE changes")
            return rule(tower, depths_source, depths_target)

        return of_maps

    @property
    def rule(self) -> str:
        """What the maps' blocks were matched by."""
        return self._record.rule

    @property
    def between(self) -> tuple[str, str]:
        """The bases that they lead from and to."""
        return str(self._record.source), str(self._record.target)

    def about_maps(self) -> dict[str, Any]:
        """For reports: which maps, between which bases, made how and of which samples."""
        made, calibration = self._record, self._record.calibration
        shown = ("dataset", "commit", "split", "n", "per_class", "strategy", "seed", "content_sha256")
        return {
            "reference": self.reference,
            "commit": self.commit,
            "sha256": self.sha256,
            "source": self.between[0],
            "target": self.between[1],
            "options": dict(made.method.get("options", {})),
            "calibration": {key: calibration.get(key) for key in shown},
        }

    def check(self, pairs: Sequence[Pair]) -> None:
        entries = self._record.entries
        lacking = [b.name for _, b in pairs if b.name not in entries]
        other = [
            f"{b.name} takes from {a.name}, in the maps from {entries[b.name].source}"
            for a, b in pairs
            if b.name in entries and entries[b.name].source != a.name
        ]
        shapes = {b.name: ((a.d_out, a.d_in), (b.d_out, b.d_in)) for a, b in pairs}
        sized = [
            f"{name} is {shape[1]} of {shape[0]}, in the maps {entries[name].shapes[1]} of {entries[name].shapes[0]}"
            for name, shape in shapes.items()
            if name in entries and entries[name].shapes != shape
        ]
        if lacking:
            raise PortError(
                f"{self.where} have none of {listed(lacking)}: leave those blocks out (--layers, --skip), "
                "or align with them"
            )
        if other or sized:
            raise PortError(f"{self.where} are of other layers: {listed(other + sized)}")

    @property
    def pinned_name(self) -> str:
        """What the maps are called in a command."""
        return f"{self.reference}@{self.commit}" if self.commit else f"./{self.reference}"

    @property
    def where(self) -> str:
        return f"the maps {self.reference}" + (f"@{self.commit}" if self.commit else "")

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
                ("from", "to"), (self._record.source, self._record.target), models, folders, strict=True
            )
            if not _same(said, library, pinned, folder)
        ]
        if odd:
            raise PortError(f"{self.where} do not fit this port: {'; '.join(odd)}")

    def open(self, hub: Hub, pairs: Sequence[Pair], device: str) -> None:
        """Fetch the files that serve these pairs and look through them.

        Raises:
            PortError: they are damaged, or not there.
        """
        entries = [self._record.entries[b.name] for _, b in pairs]
        names = sorted({factor.file for entry in entries for factor, _ in entry.expected()})
        with errors_about(self._pinned):
            missing = [name for name in names if name not in self._pinned.files]
            if missing:
                raise PortError(f"the maps are damaged: {listed(missing)} is missing")
            object.__setattr__(
                self, "_shelf", MapReader(hub.fetch(self._pinned, tuple(names)), self._record, entries, device)
            )

    def plan(self, pairs: Sequence[Pair], statistics: Statistics) -> Iterator[tuple[Pair, Map]]:
        for pair in pairs:
            entry: Entry = self._record.entries[pair.target.name]
            with errors_about(self._pinned):
                map_ = self._shelf.read(entry)
            yield pair, map_


def _same(said: MapsBase, library: Library, pinned: Pinned, folder: Path) -> bool:
    """By every byte, unless it is the very commit."""
    tensors = SafeTensors.of(library, pinned, folder)
    committed = pinned.commit is not None and (pinned.name, pinned.commit) == (said.name, said.commit)
    return fingerprint(tensors, full=not committed).matches(said.fingerprint, full=not committed)


@contextmanager
def naming_the_maps(method: Method, base: Pinned, target: Pinned):
    """An error about the layers that are to be paired says so where maps were made for models of other names."""
    try:
        yield
    except PortError as error:
        made = method.between if isinstance(method, StoredMaps) else (str(base), str(target))
        if made == (str(base), str(target)):
            raise
        raise PortError(
            f"{method.where} lead from {made[0]} to {made[1]}, this port goes from {base} to {target}: {error}"
        ) from error


def open_maps(reference: str, hub: Hub) -> StoredMaps:
    """The maps of a folder or a repo; their JSON alone is read.

    Raises:
        PortError: there are none, or they say nothing that can be trusted.
    """
    pinned = hub.resolve(reference)
    with errors_about(pinned):
        if MAPS_FILE not in pinned.files:
            raise PortError(f"there are no maps: it has no {MAPS_FILE}; `hf-bico align` makes one")
        raw = (hub.fetch(pinned, (MAPS_FILE,)) / MAPS_FILE).read_bytes()
        record = MapsRecord.read(raw.decode("utf-8", "replace"))
    return StoredMaps(pinned.name, pinned.commit, hashlib.sha256(raw).hexdigest(), pinned, record)


def method_for(
    maps: str | None, name: str, options: Sequence[str], bank: Path | None, matching: str, hub: Hub
) -> Method:
    """The method of this name, or maps that were made before.

    Args:
        name: bico is what is meant where none is named, so beside maps it says nothing.

    Raises:
        PortError: options that say how maps are made beside maps that are.
    """
    if maps is None:
        return method_of(name, options)
    given = {"--set": options, "--bank": bank, "--matching": matching != "index"}
    odd = [option for option, value in given.items() if value]
    if odd:
        raise PortError(f"--maps brings maps that are made already: leave out {listed(odd)}")
    found = open_maps(maps, hub)
    if name not in (found.name, "bico"):
        raise PortError(f"{found.where} were made by {found.name}, not by {name}: leave out --method")
    return found


def require_maps(method: Method) -> None:
    """Refuse a method whose maps cannot be kept.

    Raises:
        PortError: it has none, or they depend on τ.
    """
    if method.why_not_storable is not None:
        able = [name for name, kind in METHODS.items() if kind().why_not_storable is None]
        raise PortError(
            f"the maps of {method.name} cannot be kept: {method.why_not_storable}; take one of {', '.join(able)}"
        )
