"""What samples are made of, and what a column can hold."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import datasets


class SampleKind(StrEnum):
    """What a sample is made of."""

    IMAGE = "image"
    TEXT = "text"
    PAIR = "text pair"
    PLAIN = "plain text"
    CHAT = "chat"
    COMPLETION = "prompt and completion"
    TAGS = "words and tags"
    SPAN = "question and context"
    TOGETHER = "texts that belong together"
    SOUND = "sound"
    SPEECH = "sound and transcription"
    SIGHT = "images and texts"


ROLES = {
    SampleKind.IMAGE: ("image", "label"),
    SampleKind.CHAT: ("messages", "prompt", "completion"),
    SampleKind.COMPLETION: ("prompt", "completion"),
    SampleKind.PAIR: ("text", "text_pair", "label"),
    SampleKind.TEXT: ("text", "label"),
    SampleKind.PLAIN: ("text",),
    SampleKind.TAGS: ("tokens", "tags"),
    SampleKind.SPAN: ("question", "context", "answers"),
    SampleKind.TOGETHER: ("anchor", "positive", "negative"),
    SampleKind.SPEECH: ("audio", "transcription"),
    SampleKind.SOUND: ("audio", "label"),
    SampleKind.SIGHT: ("image", "images", "messages", "prompt", "completion", "text"),
}
"""The columns of every kind of sample, in the order in which the kinds are tried."""

LABELLED = ("label", "tags", "answers", "transcription")
"""The roles of what samples are answered with, where that is not read like the rest of a text."""
HEARD = (SampleKind.SOUND, SampleKind.SPEECH)
"""Samples of sound."""
MESSAGE_KEYS = (("role", "content"), ("from", "value"))
"""What a message calls its speaker and its content."""


@dataclass(frozen=True)
class Columns:
    """What the samples are made of, and the column of every role."""

    kind: SampleKind
    names: Mapping[str, str]
    """Role → column; where every class, or each of several negatives, has a column of its own, its role is "label", or
    "negative", and the column's name."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The columns of the labels: none, one, or one of every class."""
        return tuple(name for role, name in self.names.items() if role in LABELLED or _is_own(role))


def _is_own(role: str) -> bool:
    """Return whether it is the role of a class with a column of its own."""
    return role.startswith("label ")


def fits(role: str, feature: Any) -> bool:
    """Return whether a column may have a role."""
    if role == "image":
        return isinstance(feature, datasets.Image)
    if role == "audio":
        return isinstance(feature, datasets.Audio)
    if role == "images":
        return is_list(feature) and isinstance(element(feature), datasets.Image)
    if role == "messages":
        return is_chat(feature)
    if role == "label":
        return isinstance(element(feature), datasets.ClassLabel | datasets.Value)
    if role in ("tokens", "tags"):
        return is_list(feature) and (is_string(element(feature)) or (role == "tags" and is_class(element(feature))))
    if role == "answers":
        return isinstance(feature, dict) and {"text", "answer_start"} <= set(feature)
    if role in ("prompt", "completion"):
        return is_string(feature) or is_chat(feature)
    return is_string(feature)


def is_list(feature: Any) -> bool:
    """Return whether a column holds lists."""
    return isinstance(feature, list) or hasattr(feature, "feature")


def element(feature: Any) -> Any:
    """Return the type of what a column's lists hold; of any other column its own."""
    return feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", feature)


def is_class(feature: Any) -> bool:
    """Return whether a column holds classes, by name or number."""
    whole = isinstance(feature, datasets.Value) and feature.dtype.startswith(("int", "uint"))
    return whole or isinstance(feature, datasets.ClassLabel)


def is_numeric(feature: Any) -> bool:
    """Return whether a column holds numbers, or yes and no."""
    return isinstance(feature, datasets.Value) and feature.dtype.startswith(("bool", "int", "uint", "float"))


def parted(column: str, features: datasets.Features) -> list[str]:
    """Return the columns that "a|b|c" names; a column's own name is one, whatever is in it."""
    return [column] if column in features else column.split("|")


def plain_name(name: str) -> str:
    """Return a name without case, "_" and blanks around it."""
    return name.strip().lower().replace("_", " ")


def is_string(feature: Any) -> bool:
    """Return whether a column holds strings."""
    return isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string", "string_view")


def is_chat(feature: Any) -> bool:
    """Return whether a column is a list of messages, each with its speaker and its content."""
    one = feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", None)
    return isinstance(one, dict) and any(set(keys) <= set(one) for keys in MESSAGE_KEYS)


def type_name(feature: Any) -> str:
    """Return what an error calls the type of a column."""
    return feature.dtype if isinstance(feature, datasets.Value) else type(feature).__name__
