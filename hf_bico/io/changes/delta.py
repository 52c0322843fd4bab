"""Delta repos on disk: their record in hf_bico.json, and their tensors by the names in the model that they change."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from hf_bico.core.errors import PortError, listed, setting
from hf_bico.core.finite import is_finite
from hf_bico.core.types import Tensors
from hf_bico.families import LIBRARIES
from hf_bico.families.protocol import Purpose, PurposeKind
from hf_bico.io.adapter import CONFIG, PREFIX, WEIGHTS, AdapterConfig, Change, is_adapter, read_lora, stripped
from hf_bico.io.checkpoints import OpenedBase, SafeTensors, open_repo
from hf_bico.io.fingerprint import Fingerprint, fingerprint
from hf_bico.io.hub import Hub
from hf_bico.io.outside import read_object
from hf_bico.io.reference import Pinned, errors_about, sha256

SECTION = "delta"
"""The section of hf_bico.json that makes a repo a delta repo."""
REPORT_FILE = "hf_bico.json"
PATTERN = "delta{suffix}.safetensors"
FILE, INDEX = "delta.safetensors", "delta.safetensors.index.json"
ASIDE = (
    "_name_or_path",
    "_commit_hash",
    "architectures",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "use_cache",
    "id2label",
    "label2id",
    "problem_type",
    "finetuning_task",
)
"""Entries of a config that may differ between two copies of a model."""
_SHARD = re.compile(r"delta-\d{5}-of-\d{5}\.safetensors")
PATTERNS = ("rank_pattern", "alpha_pattern")
OTHER = "it was not written by hf_bico"
_LOKR = re.compile(re.escape(PREFIX) + r"(.+)\.lokr_w([12])")


@dataclass(frozen=True)
class DeltaRecord:
    """What hf_bico.json says about a delta."""

    base: str
    """Name of the repo that it is added to."""
    commit: str | None
    """That repo's commit; None where the base was a local folder."""
    fingerprint: Fingerprint
    """Fingerprint of the base's weights, in full."""
    config_sha256: str
    """Hash of what the base's config says about how it is built; see `config_sha256`."""
    library: str
    purpose: Purpose
    changed: tuple[str, ...]
    """Names of the model's tensors that it changes."""
    head: tuple[str, ...]
    """Names of the model's tensors that it brings whole."""
    transposed: tuple[str, ...]
    """Names of weights that are stored (d_in, d_out)."""
    files: Mapping[str, str]
    """File name → sha256."""

    def data(self) -> dict[str, Any]:
        """Return the record as plain data, for hf_bico.json."""
        return asdict(self)

    @classmethod
    def of(cls, report: Mapping[str, Any]) -> "DeltaRecord":
        """Return the record in hf_bico.json's data.

        Raises:
            PortError: hf_bico.json is not that of a delta, or cannot be read.
        """
        if not report.get(SECTION):
            raise PortError(
                f"it is not a delta repo: {REPORT_FILE} has no section {SECTION!r}; a whole model opens "
                "with its own library"
            )
        try:
            data = dict(report[SECTION])
            purpose = _purpose(data["purpose"])
            data |= {key: tuple(map(str, data[key])) for key in ("changed", "head", "transposed")}
            data |= {"files": {str(name): str(digest) for name, digest in dict(data["files"]).items()}}
            mark = Fingerprint.of_record(data["fingerprint"])
            if mark.full is None:
                raise ValueError("the fingerprint of its base has no full hash")
            return cls(**data | {"purpose": purpose, "fingerprint": mark})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise PortError(f"{REPORT_FILE} is not that of a delta repo of this version ({error})") from error

    @property
    def name(self) -> str:
        """What the base is called in errors."""
        return f"{self.base}@{self.commit}" if self.commit else f"{self.base} (a local folder)"


def _purpose(data: Mapping[str, Any]) -> Purpose:
    """Return the purpose in a record; of its config, only the class names and the problem type are taken over.

    Class numbers are made anew, as JSON turns them into strings.
    """
    kind, architecture, config = PurposeKind(str(data["kind"])), data["architecture"], dict(data["config"])
    if not isinstance(architecture, str | None):
        raise ValueError(f"purpose {kind}, {architecture}")
    labels = tuple(map(str, data["labels"]))
    names = dict(enumerate(labels))
    kept = (
        {
            "id2label": names,
            "label2id": {name: k for k, name in names.items()},
            "problem_type": config.get("problem_type") and str(config["problem_type"]),
        }
        if labels
        else {}
    )
    return Purpose(kind, labels, kept, architecture)


def config_sha256(path: Path) -> str:
    """Return the sha256 (hex) of a config.json without the entries that do not say how the model is built.

    Raises:
        PortError: it is not a readable JSON object.
    """
    data = {key: value for key, value in read_object(path).items() if key not in ASIDE}
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


class LazyTensors(Mapping[str, Tensor]):
    """Tensors by name that are computed each time they are read.

    Args:
        made: name → () → the tensor.
    """

    def __init__(self, made: Mapping[str, Callable[[], Tensor]]) -> None:
        self.made = made

    def __getitem__(self, key: str) -> Tensor:
        return self.made[key]()

    def __iter__(self) -> Iterator[str]:
        return iter(self.made)

    def __contains__(self, key: object) -> bool:
        return key in self.made

    def __len__(self) -> int:
        return len(self.made)


@dataclass(frozen=True)
class StoredDelta:
    """The tensors of an opened delta repo, by their names in the model."""

    pinned: Pinned
    record: DeltaRecord
    matrices: LazyTensors
    """Name → ΔW, float32."""
    biases: LazyTensors
    """Name → the bias with its change in it, where biases are stored so."""
    head: LazyTensors
    """Name → what replaces the base's tensor."""
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Name → shape, of all of these."""

    def changes(self, base: Tensors) -> Tensors:
        """Return {name: change}, dense and in float32, for the tensors that change."""
        biases = {key: lambda key=key: self.biases[key].float() - base[key].float() for key in self.biases}
        return LazyTensors({**self.matrices.made, **biases})

    def check_fits(self, base: Mapping[str, Any], skeleton: nn.Module, name: str) -> None:
        """Refuse a base that the delta does not fit.

        Args:
            base: name → anything with the shape of the base's tensor.
            skeleton: the model, for the head, which the base's files may lack.
            name: the base's, for the error.

        Raises:
            PortError: the base lacks tensors or has them in another shape; all of them listed.
        """
        state = skeleton.state_dict()
        odd = []
        for key, shape in self.shapes.items():
            place = state if key in self.head else base
            if key not in place:
                odd.append(f"{key} is not in it")
            elif tuple(place[key].shape) != shape:
                odd.append(f"{key} is {tuple(place[key].shape)}, not {shape}")
        if odd:
            raise PortError(f"{self.pinned} does not fit {name}: {listed(odd)}")


def open_delta(hub: Hub, pinned: Pinned, *, full: bool = False) -> StoredDelta:
    """Fetch a delta repo, check it, and return its tensors.

    Args:
        full: compare every file's sha256, not only those of JSON files.

    Raises:
        PortError: it is not a delta repo; a file is missing, truncated or another one; an index names other files;
            tensors are missing, unknown, or hold NaN or Inf.
    """
    with errors_about(pinned):
        record = DeltaRecord.of(hub.json(pinned, REPORT_FILE))
        _check_names(record)
        folder = hub.fetch(pinned, tuple(record.files))
        _check_files(folder, record, full)
        found = (_adapter if is_adapter(pinned) else _own)(pinned, folder, record)
        shapes, broken = _looked_at(found)
        wanted = {*record.changed, *record.head}
        odd = [f"{key} is missing" for key in sorted(wanted - shapes.keys())]
        odd += [f"{key} is unknown" for key in sorted(shapes.keys() - wanted)]
        odd += [f"{key} has NaN or Inf" for key in broken]
        if odd:
            raise PortError(f"its tensors are not what {REPORT_FILE} says: {listed(odd)}; fetch it again")
    return replace(found, shapes=shapes)


def _looked_at(found: StoredDelta) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """Return the shapes of all tensors, and the names of those with NaN or Inf; every tensor is read once."""
    shapes, broken = {}, []
    for part in (found.matrices, found.biases, found.head):
        for key, tensor in part.items():
            shapes[key] = tuple(tensor.shape)
            if not is_finite(tensor):
                broken.append(key)
    return shapes, broken


def _check_names(record: DeltaRecord) -> None:
    """Refuse a record that names files other than those of a delta repo."""
    odd = [name for name in record.files if name not in (WEIGHTS, CONFIG, FILE, INDEX) and not _SHARD.fullmatch(name)]
    if odd:
        raise PortError(f"{REPORT_FILE} names {listed(odd)}, which is not a file of a delta repo")


def _check_files(folder: Path, record: DeltaRecord, full: bool) -> None:
    """Refuse files that are missing or have another sha256 than the record says; without `full`, JSON files only."""
    missing = [name for name in record.files if not (folder / name).is_file()]
    if missing:
        raise PortError(f"{listed(missing)} is missing: fetch it again")
    broken = [
        name
        for name, said in record.files.items()
        if (full or name.endswith(".json")) and sha256(folder / name) != said
    ]
    if broken:
        raise PortError(f"{listed(broken)} is not the file that {REPORT_FILE} was written with: its sha256 differs")


def _own(pinned: Pinned, folder: Path, record: DeltaRecord) -> StoredDelta:
    """Return a delta that is stored as safetensors of our own."""
    names = [name for name in record.files if name != INDEX]
    tensors = SafeTensors(*(folder / name for name in names))
    if INDEX in record.files:
        tensors.check_index(folder / INDEX, names)
    return StoredDelta(
        pinned, record, _floats(tensors, {key: key for key in tensors}), LazyTensors({}), LazyTensors({})
    )


def _floats(tensors: Tensors, names: Mapping[str, str]) -> LazyTensors:
    """Return tensors of a file in float32.

    Args:
        names: name → name in the file.
    """
    made = {name: lambda key=key: tensors[key].float() for name, key in names.items()}
    return LazyTensors(made)


def _adapter(pinned: Pinned, folder: Path, record: DeltaRecord) -> StoredDelta:
    """Return a delta that is stored as a PEFT adapter."""
    config, tensors = AdapterConfig.read(folder, pinned.files), SafeTensors(folder / WEIGHTS)
    if (config.base, config.revision) != (record.base if record.commit else None, record.commit):
        raise PortError(f"{CONFIG} is of {config.base}@{config.revision}, {REPORT_FILE} of {record.name}: {OTHER}")
    matrices, used = (_lokr if config.kind == "LOKR" else _lora)(config, tensors, record)
    names = {name: key for key in tensors if key not in used and (name := stripped(key))}
    unknown = sorted(set(tensors) - used - set(names.values()))
    if unknown:
        raise PortError(f"{WEIGHTS} has {listed(unknown)}, which is not part of a delta: {OTHER}")
    whole = {name: partial(tensors.__getitem__, key) for name, key in names.items()}
    head = LazyTensors({name: read for name, read in whole.items() if name in record.head})
    biases = LazyTensors({name: read for name, read in whole.items() if name not in record.head})
    return StoredDelta(pinned, record, matrices, biases, head)


def _lora(config: AdapterConfig, tensors: SafeTensors, record: DeltaRecord) -> tuple[LazyTensors, set[str]]:
    """Return a LoRA's changes, and the names of the tensors that they are made of; refuse scales other than 1."""
    read = read_lora(config, tensors) if config.plain and not config.dora else None
    if read is None or any(
        change.scale != 1 or change.magnitude is not None or change.bias is not None or change.embedding
        for change in read.modules.values()
    ):
        raise PortError(f"its LoRA is not a plain change: {OTHER}")
    used = {f"{PREFIX}{module}.lora_{side}.weight" for module in read.modules for side in "AB"}
    changes = {f"{module}.weight": change for module, change in read.modules.items()}
    made = {name: partial(_dense, change, name in record.transposed) for name, change in changes.items()}
    return LazyTensors(made), used


def _dense(change: Change, transposed: bool) -> Tensor:
    return change.product(transposed).dense()


def _lokr(config: AdapterConfig, tensors: SafeTensors, record: DeltaRecord) -> tuple[LazyTensors, set[str]]:
    """Return a LoKr's changes ΔW = w₁ ⊗ w₂ = w₂, and the names of their tensors; refuse w₁ and scales other than 1."""
    parts: dict[str, dict[str, str]] = {}
    for key in tensors:
        if match := _LOKR.fullmatch(key):
            parts.setdefault(match[1], {})[match[2]] = key
    odd = [module for module, keys in parts.items() if keys.keys() != {"1", "2"} or not _is_one(tensors[keys["1"]])]
    scaled = config.data.get("alpha") != config.data.get("r") or any(map(config.data.get, PATTERNS))
    if odd or scaled:
        raise PortError(f"its LoKr is not a plain change ({listed(odd) or 'it is scaled'}): {OTHER}")
    used = {key for keys in parts.values() for key in keys.values()}
    return _floats(tensors, {f"{module}.weight": keys["2"] for module, keys in parts.items()}), used


def _is_one(tensor: Tensor) -> bool:
    return tuple(tensor.shape) == (1, 1) and float(tensor) == 1.0


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON object to a file, its keys sorted."""
    path.write_text(json.dumps(dict(data), indent=2, sort_keys=True) + "\n", encoding="utf-8")


def open_base(
    hub: Hub, record: DeltaRecord, deltas: Sequence[StoredDelta], base: str | Path | None, *, full: bool
) -> OpenedBase:
    """Fetch the base of some deltas, check it, and return it.

    Args:
        record: the record whose purpose the model is built for.
        base: a repo or folder where it is now; None: its repo at its commit.
        full: compare every byte of its weights.

    Raises:
        PortError: it was a local folder and `base` is None, it is another model, or the deltas do not fit it.
    """
    if base is None and record.commit is None:
        raise PortError(f"the base was a local folder, {record.base}: say where it is now with {setting('base')}")
    pinned = hub.resolve(str(base) if base else f"hf://{record.base}@{record.commit}")
    library = next((library for library in LIBRARIES if library.name == record.library), None)
    if library is None or library.config_file not in pinned.files or not library.weights(pinned.files):
        raise PortError(f"{pinned} is not a model of {record.library} with safe weights")

    def check(folder: Path, stored: SafeTensors) -> None:
        seen = fingerprint(stored, full)
        if not seen.matches(record.fingerprint, full):
            what = "other tensors" if seen.header != record.fingerprint.header else "other contents"
            raise PortError(
                f"{pinned} is not the base of {deltas[0].pinned}, which was made for {record.name}: it has {what}"
            )
        if config_sha256(folder / library.config_file) != record.config_sha256:
            raise PortError(
                f"the {library.config_file} of {pinned} differs from that of {record.name}, so that its weights "
                "make another function"
            )

    found = open_repo(hub, pinned, library, record.purpose, check)
    for delta in deltas:
        delta.check_fits(found.weights, found.model, str(pinned))
    return found
