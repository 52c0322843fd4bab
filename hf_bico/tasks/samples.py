"""Calibration and evaluation samples from a Hub dataset, drawn by seed without reading the whole split."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from huggingface_hub import errors as hub_errors
from PIL import UnidentifiedImageError
from PIL.Image import Image

from hf_bico.core.errors import PortError, listed, setting
from hf_bico.tasks.chats import chat_of
from hf_bico.tasks.columns import Columns, SampleKind, find_columns
from hf_bico.tasks.pictures import as_rgb, is_broken
from hf_bico.tasks.splits import HubDataset, Split, lines
from hf_bico.tasks.strategies import Calibration, Features, chosen

TEMPLATES_FILE = "zeroshot_classification_templates.txt"
CLASSES_FILE = "classnames.txt"
DEFAULT_TEMPLATES = ("a photo of a {}.",)
EVAL_SPLITS = ("test", "validation", "val", "dev")
READ_WHOLE = 200_000
"""The most rows of a split whose labels are read to learn the classes."""
MOST_CLASSES = 1_000
"""The most classes that are learnt from labels; a column with more different values holds no classes."""


@dataclass(frozen=True)
class Task:
    """What the samples are asked: their columns, the classes and the prompts of the zero-shot head."""

    columns: Columns
    class_names: tuple[str, ...]
    """Empty where there are no labels."""
    templates: tuple[str, ...]
    """Prompts with {} for the class, where the samples are images; else empty."""


@dataclass(frozen=True)
class Sample:
    """A row of a dataset as a model is asked about it."""

    inputs: Any
    """An image, a text, a pair of texts, the messages of a chat (role and content each), or a prompt."""
    label: Any
    """The index of the class, the completion of the prompt (a text, or messages), or None."""


@dataclass(frozen=True)
class Draw:
    """The calibration samples, and what it takes to draw them again."""

    samples: tuple[Sample, ...]
    split: str
    calibration: Calibration
    indices: tuple[int, ...]
    """Rows of the split."""
    sha256: str
    """Hash of the samples' content."""
    window: int | None = None
    """How many first rows of a streamed split were drawn from; None for any other split."""

    def record(self) -> dict[str, Any]:
        """Return what a report says of the draw, as plain JSON data."""
        choice, window = self.calibration, {} if self.window is None else {"window": self.window}
        return {
            "split": self.split,
            "strategy": choice.kind,
            "n": len(self.samples),
            "per_class": choice.per_class,
            "seed": choice.seed,
            **window,
            "indices": list(self.indices),
            "content_sha256": self.sha256,
        }


def read_task(dataset: HubDataset, split: Split, named: Mapping[str, str], templates: Path | None) -> Task:
    """Return the task: columns by the features or as named, classes and prompts of the dataset or of a file.

    Raises:
        PortError: no columns that go together, no class names, a template without a place for the class.
    """
    columns = find_columns(str(dataset.pinned), split.features, named)
    prompts: tuple[str, ...] = ()
    if columns.kind is SampleKind.IMAGE:
        prompts = _templates(dataset, templates)
    elif templates is not None:
        raise PortError(
            f"{setting('templates')} are for images, but {dataset.pinned} has {columns.kind}: leave them out"
        )
    names = _class_names(dataset, split, columns) if "label" in columns.names else ()
    return Task(columns, names, prompts)


def _templates(dataset: HubDataset, file: Path | None) -> tuple[str, ...]:
    prompts = lines(file) if file else dataset.text(TEMPLATES_FILE) or list(DEFAULT_TEMPLATES)
    prompts = [prompt.replace("{c}", "{}") for prompt in prompts]
    if not prompts or any(prompt.count("{}") != 1 or set("{}") & set(prompt.replace("{}", "")) for prompt in prompts):
        raise PortError("every prompt template needs one {} (or {c}) where the class name goes, and no other braces")
    return tuple(prompts)


def _class_names(dataset: HubDataset, split: Split, columns: Columns) -> tuple[str, ...]:
    """Return the class names of the feature or of a file; else the labels themselves: sorted strings, or the numbers up
    to the largest.
    """
    label = columns.names["label"]
    where = f"the labels of {dataset.pinned} ({label})"
    mend = f"make it a ClassLabel, or put a {CLASSES_FILE} beside the data"
    feature, names = split.features[label], dataset.text(CLASSES_FILE)
    strings = getattr(feature, "dtype", None) in ("string", "large_string")
    if names or getattr(feature, "names", None):
        return tuple(name if strings else name.replace("_", " ") for name in names or feature.names)
    if columns.kind is SampleKind.IMAGE and not strings:
        raise PortError(f"{where} have no class names: {mend}")
    if split.num_rows > READ_WHOLE:
        raise PortError(
            f"{where} have no class names, and {split.num_rows} rows are too many to learn them from: {mend}"
        )
    with _reading():
        values = {value for value in split.column(label) if value is not None}
    if not values or not all(isinstance(value, str if strings else int) for value in values):
        raise PortError(f"{where} are no classes: name another column with {setting('columns')} label=…")
    found = sorted(values, key=_in_order) if strings else [str(number) for number in range(max(values) + 1)]
    if len(found) > MOST_CLASSES:
        raise PortError(
            f"{where} have {len(found)} different values: {mend}, or name another column with {setting('columns')}"
        )
    return tuple(found)


def _in_order(name: str) -> tuple[bool, int, str]:
    """Return a sort key: numbers by their size, before words."""
    return not name.isdigit(), int(name) if name.isdigit() else 0, name


def check_columns(split: Split, name: str, columns: Columns) -> None:
    """Refuse a split that lacks the task's columns."""
    missing = [column for column in columns.names.values() if column not in split.features]
    if missing:
        raise PortError(
            f"the split {name!r} has no column {' and no column '.join(map(repr, missing))}; "
            f"it has {', '.join(split.features)}"
        )


def classes_of(split: Split, task: Task, calibration: Calibration) -> np.ndarray:
    """Return the class of every row of a split, (rows,) int64; zeros, with nothing read, where the strategy is random.

    Raises:
        PortError: there are no labels, or one is none of the classes.
    """
    if calibration.kind == "random":
        return np.broadcast_to(0, split.num_rows)
    if "label" not in task.columns.names:
        raise PortError(
            f"the strategy {calibration.kind} goes by class, and samples of {task.columns.kind} without a "
            f"label have none: use random, or name the label with {setting('columns')} label=…"
        )
    with _reading():
        labels = split.column(task.columns.names["label"])
    return np.array([_class(task, index, label) for index, label in enumerate(labels)], dtype=np.int64)


def check_draw(name: str, labels: np.ndarray, task: Task, calibration: Calibration) -> None:
    """Refuse a draw that the split `name` cannot give, before a model is opened to embed candidates.

    Raises:
        PortError: N is larger than the split or what the strategy may draw from; a class has too few.
    """
    n = calibration.size(len(task.class_names))
    if calibration.per_class is not None:
        counts = np.bincount(labels, minlength=len(task.class_names))
        few = [f"{task.class_names[i]!r} has {counts[i]}" for i in np.flatnonzero(counts < calibration.per_class)]
        if few:
            raise PortError(
                f"{calibration.per_class} samples of every class asked for, but of the split {name!r} {listed(few)}"
            )
    _require_size(len(labels), name, n)
    chosen(labels, calibration.kind, n, calibration.seed, lambda indices: np.zeros((len(indices), 1)))


def draw(
    split: Split, name: str, task: Task, calibration: Calibration, labels: np.ndarray, features: Features | None = None
) -> Draw:
    """Return calibration samples drawn from a split.

    Args:
        labels: what `classes_of` returns.
        features: for the strategies that go by distance.

    Raises:
        PortError: there are too few, a label is out of range, an image is broken.
    """
    indices = chosen(labels, calibration.kind, calibration.size(len(task.class_names)), calibration.seed, features)
    samples = tuple(samples_of(split, indices, task))
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(_content(sample))
    return Draw(samples, name, calibration, indices, digest.hexdigest(), split.window)


def _content(sample: Sample) -> bytes:
    """Return bytes that tell a sample from any other: an image's pixels; of anything else, canonical JSON in UTF-8."""
    if isinstance(sample.inputs, Image):
        return json.dumps([sample.inputs.mode, sample.inputs.size, sample.label]).encode() + sample.inputs.tobytes()
    return json.dumps([sample.inputs, sample.label], ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode(
        "utf-8", "surrogatepass"
    )


def choose(split: Split, name: str, n: int, seed: int) -> tuple[int, ...]:
    """Return the sorted indices of N random rows.

    Raises:
        PortError: N is not between 1 and the split's size.
    """
    _require_size(split.num_rows, name, n)
    return chosen(np.broadcast_to(0, split.num_rows), "random", n, seed)


def _require_size(rows: int, name: str, n: int) -> None:
    if not 1 <= n <= rows:
        raise PortError(f"{n} samples asked for, but the split {name!r} has {rows}")


def samples_of(split: Split, indices: Sequence[int], task: Task) -> Iterator[Sample]:
    """Yield the rows as samples, in order.

    Raises:
        PortError: an image is broken, a text is empty, a label is none of the classes.
    """
    rows = split.rows(indices, list(dict.fromkeys(task.columns.names.values())))
    for index in indices:
        with _reading():
            try:
                row = next(rows)
            except (UnidentifiedImageError, SyntaxError, OSError) as error:
                if task.columns.kind is not SampleKind.IMAGE or not is_broken(error):
                    raise
                raise PortError(f"the image of row {index} cannot be read: {' '.join(str(error).split())}") from error
            sample = _sample(task, index, row)
        yield sample


def _sample(task: Task, index: int, row: Mapping[str, Any]) -> Sample:
    kind, values = task.columns.kind, {role: row[column] for role, column in task.columns.names.items()}
    if kind is SampleKind.CHAT:
        return Sample(*chat_of(index, values))
    if kind is SampleKind.COMPLETION:
        return Sample(_text(index, "prompt", values["prompt"]), _text(index, "completion", values["completion"]))
    label = _class(task, index, values["label"]) if "label" in values else None
    if kind is SampleKind.IMAGE:
        if values["image"] is None:
            raise PortError(f"row {index} has no image: name another split")
        return Sample(as_rgb(values["image"]), label)
    text = _text(index, "text", values["text"])
    return Sample((text, _text(index, "second text", values["text_pair"])) if kind is SampleKind.PAIR else text, label)


def _text(index: int, what: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise PortError(f"row {index} has no {what}: leave such rows out of the dataset, or name another split")
    return value


def _class(task: Task, index: int, label: Any) -> int:
    """Return the index of a row's class."""
    if isinstance(label, str) and label in task.class_names:
        return task.class_names.index(label)
    if not isinstance(label, int) or not 0 <= label < len(task.class_names):
        known = listed(task.class_names) if isinstance(label, str) else f"0 to {len(task.class_names) - 1}"
        raise PortError(f"row {index} has label {label!r}; labels are {known}: name another split")
    return int(label)


@contextmanager
def _reading():
    """Turn errors of the files below into a `PortError` of one line."""
    try:
        yield
    except (OSError, hub_errors.HTTPError, pa.ArrowException) as error:
        raise PortError(f"the dataset's rows cannot be read: {' '.join(str(error).split())}") from error
