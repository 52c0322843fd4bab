"""Calibration and evaluation samples from a Hub dataset, drawn by seed without reading the whole split."""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import datasets
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.packaged_modules.cache.cache import Cache
from datasets.packaged_modules.parquet.parquet import Parquet
from huggingface_hub import errors as hub_errors
from PIL import UnidentifiedImageError

from hf_bico.core.errors import PortError
from hf_bico.io.hub import Hub
from hf_bico.io.reference import Pinned

TEMPLATES_FILE = "zeroshot_classification_templates.txt"
CLASSES_FILE = "classnames.txt"
DEFAULT_TEMPLATES = ("a photo of a {}.",)
EVAL_SPLITS = ("test", "validation", "val", "dev")
LABEL_COLUMNS = ("label", "labels", "cls", "fine_label")


class Split(Protocol):
    """Rows of a split by index, decoded one at a time."""

    features: datasets.Features
    num_rows: int

    def rows(self, indices: Sequence[int], columns: Sequence[str]) -> Iterator[dict[str, Any]]: ...


class ArrowSplit:
    """A split that `datasets` brought into its cache; only the rows asked for are decoded."""

    def __init__(self, dataset: datasets.Dataset) -> None:
        self.dataset, self.features, self.num_rows = dataset, dataset.features, dataset.num_rows

    def rows(self, indices: Sequence[int], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        dataset = self.dataset.select_columns(list(columns))
        return (dataset[int(index)] for index in indices)


class ParquetSplit:
    """A split in parquet files, near or far: footers first, then the row groups and columns that are asked for."""

    def __init__(self, urls: Sequence[str], storage: dict[str, Any], features: datasets.Features | None = None) -> None:
        self.files = [pq.ParquetFile(self._open(url, storage), pre_buffer=True) for url in urls]
        self.features = features or datasets.Features.from_arrow_schema(self.files[0].schema_arrow)
        self.groups = [(file, group) for file in self.files for group in range(file.num_row_groups)]
        sizes = [file.metadata.row_group(group).num_rows for file, group in self.groups]
        self.starts = [0, *accumulate(sizes)]
        self.num_rows = self.starts[-1]

    @staticmethod
    def _open(url: str, storage: dict[str, Any]):
        fs, path = fsspec.url_to_fs(url, **(storage if url.startswith("hf://") else {}))
        return fs.open(path, cache_type="none")  # read what is asked for, never a block ahead

    def rows(self, indices: Sequence[int], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        features = datasets.Features({name: self.features[name] for name in columns})
        held, table = None, None
        for index in indices:
            group = bisect_right(self.starts, index) - 1
            if group != held:
                file, number = self.groups[group]
                held, table = group, file.read_row_group(number, columns=list(columns))
            row = table.slice(int(index) - self.starts[group], 1).to_pylist()[0]
            yield features.decode_example(row)


class HubDataset:
    """A dataset repo at one commit, or a local dataset folder."""

    def __init__(self, hub: Hub, pinned: Pinned, config: str | None = None) -> None:
        self.hub, self.pinned = hub, pinned
        path = f"hf://datasets/{pinned.name}" if pinned.folder is None else str(pinned.folder)
        with self._speaking():
            self.builder = datasets.load_dataset_builder(path, config, revision=pinned.commit, token=hub.token)
        if isinstance(self.builder, Cache):  # what `datasets` falls back to: it may be of any commit
            raise PortError(f"no answer from {hub.api.endpoint} for dataset {pinned}; check the network or HF_ENDPOINT")
        self.config = self.builder.config.name

    @property
    def splits(self) -> list[str]:
        return [str(name) for name in (self.builder.config.data_files or self.builder.info.splits or {})]

    def split(self, name: str, *, whole: bool = False) -> Split:
        """A split by name; `whole` where all of it will be read, so that it comes once and through the cache.

        Raises:
            PortError: there is none of that name.
        """
        if name not in self.splits:
            raise PortError(f"{self.pinned} has no split {name!r}; it has {', '.join(self.splits) or 'none'}")
        with self._speaking():
            if isinstance(self.builder, Parquet):
                storage = {"token": self.hub.token, "endpoint": self.hub.api.endpoint}
                urls = self.builder.config.data_files[name]
                return ParquetSplit(self._here(urls) if whole else urls, storage, self.builder.info.features)
            self.builder.download_and_prepare()
            return ArrowSplit(self.builder.as_dataset(split=name))

    def _here(self, urls: Sequence[str]) -> list[str]:
        """The same files on this disk."""
        names = [url.split(f"@{self.pinned.commit}/", 1)[-1] for url in urls]
        folder = self.hub.fetch(self.pinned, tuple(names))
        return [str(folder / name) for name in names]

    def text(self, name: str) -> list[str] | None:
        """The lines of a text file of the repo, None where there is none."""
        if name not in self.pinned.files:
            return None
        return lines(self.hub.fetch(self.pinned, (name,)) / name)

    @contextmanager
    def _speaking(self):
        """`datasets`' errors, and the client's below them, in one line."""
        with self.hub.speaking(f"dataset {self.pinned}", self.pinned.name, "dataset"):
            try:
                yield
            except hub_errors.HTTPError:
                raise
            except (ValueError, RuntimeError, OSError, pa.ArrowException, datasets.exceptions.DatasetsError) as error:
                raise PortError(f"dataset {self.pinned} cannot be read: {' '.join(str(error).split())}") from error


@dataclass(frozen=True)
class Columns:
    image: str
    label: str


@dataclass(frozen=True)
class Task:
    """What the samples are asked: their columns, the classes and the prompts of the zero-shot head."""

    columns: Columns
    class_names: tuple[str, ...]
    templates: tuple[str, ...]


@dataclass(frozen=True)
class Sample:
    image: Any
    label: int


@dataclass(frozen=True)
class Draw:
    """The calibration samples and what it takes to draw them again."""

    samples: tuple[Sample, ...]
    split: str
    seed: int
    indices: tuple[int, ...]
    sha256: str

    def record(self) -> dict[str, Any]:
        return {"split": self.split, "n": len(self.samples), "seed": self.seed, "indices": list(self.indices),
                "content_sha256": self.sha256}


def read_task(dataset: HubDataset, split: Split, columns: dict[str, str | None], templates: Path | None) -> Task:
    """Columns from the features (or as named), classes and prompts from the dataset (or a file).

    Raises:
        PortError: no image column, no labels, no class names, a template without a place for the class.
    """
    found = _columns(dataset, split, columns)
    prompts = lines(templates) if templates else dataset.text(TEMPLATES_FILE) or list(DEFAULT_TEMPLATES)
    prompts = [prompt.replace("{c}", "{}") for prompt in prompts]
    if not prompts or any(prompt.count("{}") != 1 or set("{}") & set(prompt.replace("{}", "")) for prompt in prompts):
        raise PortError("every prompt template needs one {} (or {c}) where the class name goes, and no other braces")
    return Task(found, _class_names(dataset, split, found.label), tuple(prompts))


def _columns(dataset: HubDataset, split: Split, named: dict[str, str | None]) -> Columns:
    images = [name for name, feature in split.features.items() if isinstance(feature, datasets.Image)]
    labels = [name for name, feature in split.features.items() if isinstance(feature, datasets.ClassLabel)]
    labels = labels or [name for name in LABEL_COLUMNS if name in split.features]
    if named.get("image") is not None:
        images = [name for name in images if name == named["image"]]
    if named.get("label") is not None:
        labels = [name for name in split.features if name == named["label"]]
    for kind, found in (("image", images), ("label", labels)):
        if len(found) != 1:
            have = ", ".join(f"{name} ({type(feature).__name__})" for name, feature in split.features.items())
            wanted = f" {named[kind]!r}" if named.get(kind) else ""
            raise PortError(f"{dataset.pinned} has {'several' if found else 'no'} {kind} column{wanted}: "
                            f"name one with --{kind}-column; it has {have}")
    return Columns(images[0], labels[0])


def _class_names(dataset: HubDataset, split: Split, label: str) -> tuple[str, ...]:
    names = dataset.text(CLASSES_FILE) or getattr(split.features[label], "names", None)
    if not names:
        raise PortError(f"the labels of {dataset.pinned} ({label}) have no class names: make it a ClassLabel, or put "
                        f"a {CLASSES_FILE} beside the data")
    return tuple(name.replace("_", " ") for name in names)


def check_columns(split: Split, name: str, columns: Columns) -> None:
    """Refuse a split that lacks the task's columns."""
    missing = [column for column in asdict(columns).values() if column not in split.features]
    if missing:
        raise PortError(f"the split {name!r} has no column {' and no column '.join(map(repr, missing))}; "
                        f"it has {', '.join(split.features)}")


def draw(split: Split, name: str, task: Task, n: int, seed: int) -> Draw:
    """N samples of a split, without replacement, by seed.

    Raises:
        PortError: N is larger than the split, a label is out of range, an image is broken.
    """
    indices = choose(split, name, n, seed)
    samples = tuple(samples_of(split, indices, task))
    digest = hashlib.sha256()
    for sample in samples:
        head = json.dumps([sample.image.mode, sample.image.size, sample.label])
        digest.update(head.encode() + sample.image.tobytes())
    return Draw(samples, name, seed, indices, digest.hexdigest())


def choose(split: Split, name: str, n: int, seed: int) -> tuple[int, ...]:
    """Indices of N rows, sorted.

    Raises:
        PortError: N is not between 1 and the split's size.
    """
    if not 1 <= n <= split.num_rows:
        raise PortError(f"{n} samples asked for, but the split {name!r} has {split.num_rows}")
    return tuple(sorted(np.random.default_rng(seed).choice(split.num_rows, n, replace=False).tolist()))


def samples_of(split: Split, indices: Sequence[int], task: Task) -> Iterator[Sample]:
    """The rows as samples, in order."""
    rows = split.rows(indices, list(asdict(task.columns).values()))
    try:
        for index in indices:
            try:
                row = next(rows)
            except UnidentifiedImageError as error:
                raise PortError(f"the image of row {index} cannot be read") from error
            image, label = row[task.columns.image], row[task.columns.label]
            if image is None or not isinstance(label, int) or not 0 <= label < len(task.class_names):
                raise PortError(f"row {index} has label {label!r} and {'no' if image is None else 'an'} image; labels "
                                f"are 0 to {len(task.class_names) - 1}: name another split")
            yield Sample(image.convert("RGB"), label)
    except (OSError, hub_errors.HTTPError, pa.ArrowException) as error:
        raise PortError(f"the dataset's rows cannot be read: {' '.join(str(error).split())}") from error


def lines(path: Path) -> list[str]:
    """The lines of a text file that hold something.

    Raises:
        PortError: it cannot be read.
    """
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise PortError(f"{path.name} cannot be read: {error}") from error
