"""Calibration and evaluation samples from a Hub dataset, drawn by seed without reading the whole split."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from huggingface_hub import errors as hub_errors
from PIL import UnidentifiedImageError

from hf_bico.core.errors import PortError, listed
from hf_bico.splits import HubDataset, Split, lines
from hf_bico.strategies import Calibration, Features, chosen

TEMPLATES_FILE = "zeroshot_classification_templates.txt"
CLASSES_FILE = "classnames.txt"
DEFAULT_TEMPLATES = ("a photo of a {}.",)
EVAL_SPLITS = ("test", "validation", "val", "dev")
LABEL_COLUMNS = ("label", "labels", "cls", "fine_label")


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
    calibration: Calibration
    indices: tuple[int, ...]
    sha256: str

    def record(self) -> dict[str, Any]:
        choice = self.calibration
        return {"split": self.split, "strategy": choice.kind, "n": len(self.samples), "per_class": choice.per_class,
                "seed": choice.seed, "indices": list(self.indices), "content_sha256": self.sha256}


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


def classes_of(split: Split, task: Task, calibration: Calibration) -> np.ndarray:
    """The class of every row of a split, (rows,), where the strategy asks for it; else zeros, and nothing is read.

    Raises:
        PortError: a label is none of the classes.
    """
    if calibration.kind == "random":
        return np.broadcast_to(0, split.num_rows)
    with _reading():
        labels = split.column(task.columns.label)
    for index, label in enumerate(labels):
        _check_label(task, index, label)
    return np.array(labels, dtype=np.int64)


def check_draw(name: str, labels: np.ndarray, task: Task, calibration: Calibration) -> None:
    """Refuse a draw that the split `name` cannot give, before any model is there to embed its candidates.

    Raises:
        PortError: N is larger than the split or what the strategy may draw from; a class has too few samples.
    """
    n = calibration.size(len(task.class_names))
    if calibration.per_class is not None:
        counts = np.bincount(labels, minlength=len(task.class_names))
        few = [f"{task.class_names[i]!r} has {counts[i]}" for i in np.flatnonzero(counts < calibration.per_class)]
        if few:
            raise PortError(f"{calibration.per_class} samples of every class asked for, but of the split {name!r} "
                            f"{listed(few)}")
    _require_size(len(labels), name, n)
    chosen(labels, calibration.kind, n, calibration.seed, lambda indices: np.zeros((len(indices), 1)))


def draw(split: Split, name: str, task: Task, calibration: Calibration, labels: np.ndarray,
         features: Features | None = None) -> Draw:
    """Calibration samples of a split.

    Args:
        labels: what `classes_of` says.
        features: for the strategies that go by distance.

    Raises:
        PortError: there are too few, a label is out of range, an image is broken.
    """
    indices = chosen(labels, calibration.kind, calibration.size(len(task.class_names)), calibration.seed, features)
    samples = tuple(samples_of(split, indices, task))
    digest = hashlib.sha256()
    for sample in samples:
        head = json.dumps([sample.image.mode, sample.image.size, sample.label])
        digest.update(head.encode() + sample.image.tobytes())
    return Draw(samples, name, calibration, indices, digest.hexdigest())


def choose(split: Split, name: str, n: int, seed: int) -> tuple[int, ...]:
    """Indices of N rows at random, sorted.

    Raises:
        PortError: N is not between 1 and the split's size.
    """
    _require_size(split.num_rows, name, n)
    return chosen(np.broadcast_to(0, split.num_rows), "random", n, seed)


def _require_size(rows: int, name: str, n: int) -> None:
    if not 1 <= n <= rows:
        raise PortError(f"{n} samples asked for, but the split {name!r} has {rows}")


def samples_of(split: Split, indices: Sequence[int], task: Task) -> Iterator[Sample]:
    """The rows as samples, in order."""
    rows = split.rows(indices, list(asdict(task.columns).values()))
    for index in indices:
        with _reading():
            try:
                row = next(rows)
            except UnidentifiedImageError as error:
                raise PortError(f"the image of row {index} cannot be read") from error
            image, label = row[task.columns.image], row[task.columns.label]
            if image is None:
                raise PortError(f"row {index} has no image: name another split")
            _check_label(task, index, label)
            sample = Sample(image.convert("RGB"), label)
        yield sample


def _check_label(task: Task, index: int, label: Any) -> None:
    if not isinstance(label, int) or not 0 <= label < len(task.class_names):
        raise PortError(f"row {index} has label {label!r}; labels are 0 to {len(task.class_names) - 1}: name another "
                        "split")


@contextmanager
def _reading():
    """Errors of the files below, in one line."""
    try:
        yield
    except (OSError, hub_errors.HTTPError, pa.ArrowException) as error:
        raise PortError(f"the dataset's rows cannot be read: {' '.join(str(error).split())}") from error
