"""Calibration and evaluation samples from a Hub dataset, drawn by seed without reading the whole split."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import UnidentifiedImageError
from PIL.Image import Image

from hf_bico.core.errors import PortError, listed, setting
from hf_bico.families import Answer, Purpose
from hf_bico.families.sounds import Sound
from hf_bico.tasks.chats import chat_of
from hf_bico.tasks.columns import Columns, SampleKind, find_columns
from hf_bico.tasks.labels import Labels, class_index, label_of, labels_of, reading
from hf_bico.tasks.pictures import as_rgb, is_broken
from hf_bico.tasks.sights import Sight, content_of, sight_of
from hf_bico.tasks.sounds import as_sound
from hf_bico.tasks.splits import HubDataset, Split, lines
from hf_bico.tasks.strategies import Calibration, Features, chosen

TEMPLATES_FILE = "zeroshot_classification_templates.txt"
DEFAULT_TEMPLATES = ("a photo of a {}.",)
EVAL_SPLITS = ("test", "validation", "val", "dev")


@dataclass(frozen=True)
class Task:
    """What the samples are asked: their columns, the classes and the prompts of the zero-shot head."""

    columns: Columns
    labels: Labels
    """What the labels mean, where there are any."""
    templates: tuple[str, ...]
    """Prompts with {} for the class, where the samples are images; else empty."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes; empty where there are none."""
        return self.labels.names

    @property
    def is_paired(self) -> bool:
        """Whether two texts are compared, each by itself: they belong together, or have a score."""
        scored = self.columns.kind is SampleKind.PAIR and self.labels.answer is Answer.NUMBER
        return scored or self.columns.kind is SampleKind.TOGETHER

    def record(self) -> dict[str, Any]:
        """Return what a report says of the task, as plain data."""
        answer = self.labels.answer if self.columns.labels else None
        return {
            "columns": asdict(self.columns),
            "class_names": self.class_names,
            "templates": self.templates,
            "answer": answer,
        }


@dataclass(frozen=True)
class Sample:
    """A row of a dataset as a model is asked about it."""

    inputs: Any
    """An image, a sound, images with what is said of them (`Sight`), a text, a pair of texts (an anchor, its positive,
    its negatives), a list of words, the messages of a chat (role and content each), or a prompt."""
    label: Any
    """The index of the class, a number, what is said, the completion of the prompt (a text, or messages), the classes
    that are there or those of every word, the right spans of the second text, or None."""


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


def read_task(
    dataset: HubDataset,
    split: Split,
    named: Mapping[str, str],
    templates: Path | None,
    purpose: Purpose | None = None,
) -> Task:
    """Return the task: columns by the features or as named, classes and prompts of the dataset or of a file.

    Args:
        purpose: what the model is for that is asked, where that is known.

    Raises:
        PortError: no columns that go together, no class names, a template without a place for the class.
    """
    columns = find_columns(str(dataset.pinned), split.features, named, purpose)
    prompts: tuple[str, ...] = ()
    if columns.kind is SampleKind.IMAGE:
        prompts = _templates(dataset, templates)
    elif templates is not None:
        raise PortError(
            f"{setting('templates')} are for images, but {dataset.pinned} has {columns.kind}: leave them out"
        )
    return Task(columns, labels_of(dataset, split, columns, purpose), prompts)


def _templates(dataset: HubDataset, file: Path | None) -> tuple[str, ...]:
    prompts = lines(file) if file else dataset.text(TEMPLATES_FILE) or list(DEFAULT_TEMPLATES)
    prompts = [prompt.replace("{c}", "{}") for prompt in prompts]
    if not prompts or any(prompt.count("{}") != 1 or set("{}") & set(prompt.replace("{}", "")) for prompt in prompts):
        raise PortError("every prompt template needs one {} (or {c}) where the class name goes, and no other braces")
    return tuple(prompts)


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
    if task.columns.labels and task.labels.answer is not Answer.CLASS:
        raise PortError(
            f"the strategy {calibration.kind} goes by the class of a sample, and these have {task.labels.answer}: use "
            "random"
        )
    if "label" not in task.columns.names:
        raise PortError(
            f"the strategy {calibration.kind} goes by class, and samples of {task.columns.kind} without a "
            f"label have none: use random, or name the label with {setting('columns')} label=…"
        )
    with reading():
        labels = split.column(task.columns.names["label"])
    return np.array([class_index(task.class_names, index, label) for index, label in enumerate(labels)], dtype=np.int64)


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
    return Draw(samples, name, calibration, indices, sha256_of(samples), split.window)


def sha256_of(samples: Iterable[Sample]) -> str:
    """Return the hash of the content of samples, in their order."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(_content(sample))
    return digest.hexdigest()


def _content(sample: Sample) -> bytes:
    """Return bytes that tell a sample from any other: an image's pixels; of anything else, canonical JSON in UTF-8."""
    if isinstance(sample.inputs, Sound):
        return json.dumps([sample.inputs.rate, sample.label]).encode() + sample.inputs.samples.tobytes()
    if isinstance(sample.inputs, Sight):
        return content_of(sample.inputs, sample.label)
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
        with reading():
            try:
                row = next(rows)
            except (UnidentifiedImageError, SyntaxError, OSError) as error:
                if task.columns.kind not in (SampleKind.IMAGE, SampleKind.SIGHT) or not is_broken(error):
                    raise
                raise PortError(f"the image of row {index} cannot be read: {' '.join(str(error).split())}") from error
            sample = _sample(task, index, row)
        yield sample


def _sample(task: Task, index: int, row: Mapping[str, Any]) -> Sample:
    kind, values = task.columns.kind, {role: row[column] for role, column in task.columns.names.items()}
    if kind is SampleKind.SIGHT:
        return Sample(*sight_of(index, values))
    if kind is SampleKind.CHAT:
        return Sample(*chat_of(index, values))
    if kind is SampleKind.COMPLETION:
        return Sample(_text(index, "prompt", values["prompt"]), _text(index, "completion", values["completion"]))
    if kind is SampleKind.TAGS:
        return Sample(_words(index, values["tokens"]), label_of(task.labels, task.columns, index, values))
    if kind is SampleKind.SPAN:
        texts = _text(index, "question", values["question"]), _text(index, "context", values["context"])
        return Sample(texts, label_of(task.labels, task.columns, index, values))
    if kind is SampleKind.SPEECH:
        return Sample(as_sound(index, values["audio"]), _text(index, "transcription", values["transcription"]))
    if kind is SampleKind.TOGETHER:
        return Sample(tuple(_text(index, role, value) for role, value in values.items()), None)
    label = label_of(task.labels, task.columns, index, values)
    if kind is SampleKind.IMAGE:
        if values["image"] is None:
            raise PortError(f"row {index} has no image: name another split")
        return Sample(as_rgb(values["image"]), label)
    if kind is SampleKind.SOUND:
        return Sample(as_sound(index, values["audio"]), label)
    text = _text(index, "text", values["text"])
    return Sample((text, _text(index, "second text", values["text_pair"])) if kind is SampleKind.PAIR else text, label)


def _text(index: int, what: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise PortError(f"row {index} has no {what}: leave such rows out of the dataset, or name another split")
    return value


def _words(index: int, value: Any) -> list[str]:
    if not value or not all(isinstance(word, str) for word in value):
        raise PortError(f"row {index} has no words: leave such rows out of the dataset, or name another split")
    return value
