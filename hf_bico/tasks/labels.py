"""What the labels of a dataset mean, and how a row's becomes what a model is asked for."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from typing import Any

import pyarrow as pa
from huggingface_hub import errors as hub_errors

from hf_bico.core.errors import PortError, listed, setting
from hf_bico.families import Answer, Purpose
from hf_bico.families.feeding import UNASKED, Span
from hf_bico.tasks.kinds import Columns, SampleKind, element, is_list
from hf_bico.tasks.splits import HubDataset, Split

CLASSES_FILE = "classnames.txt"
READ_WHOLE = 200_000
"""The most rows of a split whose labels are read to learn the classes."""
MOST_CLASSES = 1_000
"""The most classes that are learnt from labels; a column with more different values holds no classes."""


@dataclass(frozen=True)
class Labels:
    """What the labels of a task mean."""

    answer: Answer = Answer.CLASS
    names: tuple[str, ...] = ()
    """Of the classes, in the dataset's order; empty where there are none."""
    hot: bool = False
    """Whether several classes come as a yes or no for each."""
    most: float = 1.0
    """The largest number."""
    may_lack: bool = False
    """Whether there are texts without the answer to their question."""


def labels_of(dataset: HubDataset, split: Split, columns: Columns, purpose: Purpose | None) -> Labels:
    """Return what the labels mean: by the columns' types, and by the model where these leave it open.

    Raises:
        PortError: no class names, or labels that are neither classes nor numbers.
    """
    if not columns.labels:
        return Labels()
    if columns.kind is SampleKind.SPAN:
        with reading():
            return Labels(
                Answer.SPAN, may_lack=not all((row or {}).get("text") for row in split.column(columns.labels[0]))
            )
    if columns.kind is SampleKind.SPEECH:
        return Labels(Answer.SPOKEN)
    if len(columns.labels) > 1:
        return Labels(Answer.CLASSES, columns.labels, hot=True)
    reader = _Reader(dataset, split, columns.labels[0], columns.kind, purpose)
    feature = split.features[columns.labels[0]]
    if columns.kind is SampleKind.TAGS:
        return Labels(Answer.WORD_CLASSES, reader.names(element(feature), plain=True))
    if purpose is not None and purpose.answer is Answer.CLASS and reader.is_wrapped(feature):
        return Labels(Answer.CLASS, reader.names(element(feature)))
    if is_list(feature):
        hot = reader.is_hot(element(feature))
        return Labels(Answer.CLASSES, reader.hot_names() if hot else reader.names(element(feature)), hot)
    if getattr(feature, "names", None) is None and _is_number(feature, purpose):
        return Labels(Answer.NUMBER, most=max(reader.numbers(), default=1.0))
    return Labels(Answer.CLASS, reader.names(feature))


def _is_number(feature: Any, purpose: Purpose | None) -> bool:
    """Return whether labels of a type are numbers to a model: floats always, whole ones if it gives a number."""
    dtype = getattr(feature, "dtype", "")
    whole = dtype.startswith(("int", "uint", "bool")) and purpose is not None and purpose.answer is Answer.NUMBER
    return whole or dtype.startswith("float")


@dataclass(frozen=True)
class _Reader:
    """Reads the names of classes from a column of labels."""

    dataset: HubDataset
    split: Split
    column: str
    kind: SampleKind
    purpose: Purpose | None

    @property
    def where(self) -> str:
        return f"the labels of {self.dataset.pinned} ({self.column})"

    @property
    def mend(self) -> str:
        return f"make it a ClassLabel, or put a {CLASSES_FILE} beside the data"

    @property
    def own(self) -> tuple[str, ...]:
        """The model's classes, if it is known."""
        return self.purpose.labels if self.purpose else ()

    def values(self) -> Iterator[Any]:
        """Yield all values that are not None; those of a list one by one.

        Raises:
            PortError: there are too many rows.
        """
        if self.split.num_rows > READ_WHOLE:
            raise PortError(
                f"{self.where} have no class names, and {self.split.num_rows} rows are too many to learn them from: "
                f"{self.mend}"
            )
        with reading():
            rows = self.split.column(self.column)
        for row in rows:
            yield from (single(value) for value in (row if isinstance(row, list) else [row]) if value is not None)

    def numbers(self) -> Iterator[float]:
        """Yield all numbers; none of a split that is too large to be read for them."""
        if self.split.num_rows <= READ_WHOLE:
            yield from (value for value in self.values() if isinstance(value, int | float))

    def names(self, feature: Any, *, plain: bool = False) -> tuple[str, ...]:
        """Return the class names of a feature or of a file; else the labels themselves: sorted strings, or the numbers
        up to the largest, by the model's names where it has as many.

        Args:
            plain: whether names are kept as they are written; else "_" is a blank.
        """
        names = self.dataset.text(CLASSES_FILE)
        strings = getattr(feature, "dtype", None) in ("string", "large_string")
        if names or getattr(feature, "names", None):
            given = [str(name) if isinstance(name, int) else name for name in names or feature.names]
            if odd := [repr(name) for name in given if not isinstance(name, str)]:
                raise PortError(f"{self.where} have class names that are no texts: {listed(odd)}")
            return tuple(name if strings or plain else name.replace("_", " ") for name in given)
        if self.kind is SampleKind.IMAGE and not strings:
            raise PortError(f"{self.where} have no class names: {self.mend}")
        values = {value for value in self.values() if value != UNASKED}
        if not values or not all(isinstance(value, str if strings else int) for value in values):
            raise PortError(f"{self.where} are no classes: name another column with {setting('columns')} label=…")
        found = sorted(values, key=_in_order) if strings else [str(number) for number in range(max(values) + 1)]
        if len(found) > MOST_CLASSES:
            raise PortError(
                f"{self.where} have {len(found)} different values: {self.mend}, or name another column with "
                f"{setting('columns')}"
            )
        several = self.purpose is not None and self.purpose.answer in (Answer.CLASSES, Answer.WORD_CLASSES)
        if several and not strings and len(found) <= len(self.own):  # a rare class may be in no row
            return self.own
        if several and strings and all(name.removeprefix("LABEL_").isdigit() for name in self.own):
            raise PortError(
                f"{self.where} are words, and the model's classes are {listed(self.own, 3)}, so that their order is "
                f"not known: put the names into its config.json (id2label, label2id), or {self.mend}"
            )
        return tuple(found)

    def is_wrapped(self, feature: Any) -> bool:
        """Return whether one class a row is written as a list of one, or as a whole number with a fraction's type."""
        if not is_list(feature) and not str(getattr(feature, "dtype", "")).startswith("float"):
            return False
        with reading():
            rows = [single(row) for row in self.split.column(self.column) if row is not None]
        return all(isinstance(row, int | str) for row in rows)

    def is_hot(self, feature: Any) -> bool:
        """Return whether a list has a yes or no for each class, rather than the classes that are there."""
        dtype = getattr(feature, "dtype", "")
        if getattr(feature, "names", None) or not dtype.startswith(("int", "uint", "float", "bool")):
            return False
        if not dtype.startswith(("int", "uint")):
            return True
        with reading():
            rows = [row for row in self.split.column(self.column) if row is not None]
        widths = {len(row) for row in rows}
        return len(widths) == 1 and min(widths) > 1 and all(value in (0, 1) for row in rows for value in row)

    def hot_names(self) -> tuple[str, ...]:
        """Return the names of classes that come as a yes or no for each: a file's, the model's, or numbers."""
        with reading():
            rows = self.split.column(self.column)
        width = max((len(row) for row in rows if row), default=0)
        named = self.dataset.text(CLASSES_FILE) or self.own
        return tuple(named) if len(named) == width else tuple(map(str, range(width)))


def _in_order(name: str) -> tuple[bool, int, str]:
    """Return a sort key: numbers by their size, before words."""
    return not name.isdigit(), int(name) if name.isdigit() else 0, name


def single(label: Any) -> Any:
    """Return a class as it is meant: the only one of a list, and a whole number where it is written as a fraction."""
    if isinstance(label, list) and len(label) == 1:
        label = label[0]
    return int(label) if isinstance(label, float) and label.is_integer() else label


def class_index(names: Sequence[str], index: int, label: Any) -> int:
    """Return the index of a class in a row.

    Args:
        index: the row's, for the error.

    Raises:
        PortError: it is none of the classes.
    """
    label = single(label)
    if isinstance(label, str) and label in names:
        return names.index(label)
    if not isinstance(label, int) or not 0 <= label < len(names):
        known = listed(names) if isinstance(label, str) else f"0 to {len(names) - 1}"
        raise PortError(f"row {index} has label {label!r}; labels are {known}: name another split")
    return int(label)


def label_of(labels: Labels, columns: Columns, index: int, values: Mapping[str, Any]) -> Any:
    """Return what a row is answered with: see `Sample.label`; None for samples without labels.

    Args:
        values: role → value.

    Raises:
        PortError: the label is none of the classes, no number, or does not go with the text.
    """
    if not columns.labels:
        return None
    if labels.answer is Answer.SPAN:
        return _spans(index, values)
    if labels.answer is Answer.WORD_CLASSES:
        return _tags(labels, index, values)
    if labels.answer is Answer.NUMBER:
        return _number(index, values["label"])
    if labels.answer is Answer.CLASS:
        return class_index(labels.names, index, values["label"])
    given = values["label"] if "label" in values else [values[role] for role in values if role.startswith("label ")]
    return _several(labels, index, given)


def _number(index: int, value: Any) -> float:
    if not isinstance(value, int | float) or not isfinite(value):
        raise PortError(f"row {index} has label {value!r}, which is no number: leave such rows out of the dataset")
    return float(value)


def _several(labels: Labels, index: int, given: Any) -> tuple[int, ...]:
    if not isinstance(given, list) or (labels.hot and len(given) != len(labels.names)):
        raise PortError(
            f"row {index} has label {given!r}, not {'a yes or no for each of ' if labels.hot else 'a list of classes '}"
            f"({listed(labels.names, 3)}): leave such rows out of the dataset"
        )
    if not labels.hot:
        return tuple(sorted({class_index(labels.names, index, value) for value in given}))
    if not all(value in (0, 1) for value in given):
        raise PortError(f"row {index} has label {given!r}, and only 0 and 1 say whether a class is there")
    return tuple(number for number, value in enumerate(given) if value)


def _tags(labels: Labels, index: int, values: Mapping[str, Any]) -> tuple[int, ...]:
    tags, words = values["tags"] or [], values["tokens"] or []
    if len(tags) != len(words):
        raise PortError(f"row {index} has {len(words)} words and {len(tags)} tags: leave such rows out of the dataset")
    return tuple(UNASKED if tag == UNASKED else class_index(labels.names, index, tag) for tag in tags)


def _spans(index: int, values: Mapping[str, Any]) -> tuple[Span, ...]:
    given = values["answers"] or {}
    texts, starts = given.get("text") or [], given.get("answer_start") or []
    spans = tuple(Span(int(start), int(start) + len(text)) for start, text in zip(starts, texts, strict=False))
    for span, text in zip(spans, texts, strict=False):
        if values["context"][span.start : span.end] != text:
            raise PortError(
                f"row {index} has the answer {text!r}, which is not at character {span.start} of its context: leave "
                "such rows out of the dataset"
            )
    return spans


@contextmanager
def reading():
    """Turn errors of the files below into a `PortError` of one line."""
    try:
        yield
    except (OSError, UnicodeError, hub_errors.HTTPError, pa.ArrowException) as error:
        raise PortError(f"the dataset's rows cannot be read: {' '.join(str(error).split())}") from error
