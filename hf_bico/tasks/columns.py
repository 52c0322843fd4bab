"""The columns of a dataset and their roles: found by types and well-known names, or named by the user."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import datasets

from hf_bico.core.errors import PortError, listed, setting
from hf_bico.families import Answer, Purpose, PurposeKind


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


ROLES = {
    SampleKind.IMAGE: ("image", "label"),
    SampleKind.CHAT: ("messages",),
    SampleKind.COMPLETION: ("prompt", "completion"),
    SampleKind.PAIR: ("text", "text_pair", "label"),
    SampleKind.TEXT: ("text", "label"),
    SampleKind.PLAIN: ("text",),
    SampleKind.TAGS: ("tokens", "tags"),
    SampleKind.SPAN: ("question", "context", "answers"),
    SampleKind.TOGETHER: ("anchor", "positive"),
}
"""The columns of every kind of sample, in the order in which the kinds are tried."""

MESSAGE_KEYS = (("role", "content"), ("from", "value"))
"""What a message calls its speaker and its content."""

SUITS = {
    PurposeKind.TOKEN_CLASSES: SampleKind.TAGS,
    PurposeKind.SPANS: SampleKind.SPAN,
    PurposeKind.FEATURES: SampleKind.TOGETHER,
}
"""What a model is for → the kind of samples that is tried first."""
TOKEN_NAMES = ("tokens", "words")
TAG_NAMES = ("ner_tags", "tags", "labels", "ner")
LABEL_NAMES = ("label", "labels", "cls", "fine_label")
TEXT_NAMES = ("text", "sentence", "content", "review", "question", "utterance", "tweet", "document")
PAIR_NAMES = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("text", "text_pair"),
    ("text1", "text2"),
    ("question", "context"),
    ("question", "sentence"),
    ("question", "passage"),
    ("query", "passage"),
)
SCORE_NAMES = ("score", "similarity_score", "similarity")
TOGETHER_NAMES = (
    ("anchor", "positive"),
    ("query", "positive"),
    ("question", "answer"),
    ("query", "answer"),
    ("query", "passage"),
    ("sentence1", "sentence2"),
)
PROMPT_NAMES = ("prompt", "instruction", "question", "document", "article", "dialogue")
COMPLETION_NAMES = ("completion", "response", "answer", "output", "target", "summary", "highlights")
MESSAGES_NAMES = ("messages", "conversations", "conversation")


@dataclass(frozen=True)
class Columns:
    """What the samples are made of, and the column of every role."""

    kind: SampleKind
    names: Mapping[str, str]
    """Role → column; where every class has a column of its own, the role of each is "label" and the column's name."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The columns of the labels: none, one, or one of every class."""
        return tuple(name for role, name in self.names.items() if role in ("label", "tags", "answers") or _is_own(role))


def _is_own(role: str) -> bool:
    """Return whether it is the role of a class with a column of its own."""
    return role.startswith("label ")


def parse_columns(text: str | None) -> dict[str, str]:
    """Return a text such as "image=img,label=y" as role → column.

    Raises:
        PortError: the text is not of that form, or a role is unknown or named twice.
    """
    named: dict[str, str] = {}
    roles = list(dict.fromkeys(role for some in ROLES.values() for role in some))
    for entry in filter(None, map(str.strip, (text or "").split(","))):
        role, _, column = map(str.strip, entry.partition("="))
        if role not in roles or not column or role in named:
            why = "is named twice" if role in named else "is not role=column"
            raise PortError(f"{setting('columns')} {text}: {entry!r} {why}; the roles are {', '.join(roles)}")
        named[role] = column
    return named


def find_columns(
    where: str, features: datasets.Features, named: Mapping[str, str], purpose: Purpose | None = None
) -> Columns:
    """Return the columns of the first kind of sample that has all named roles and whose columns are there.

    Images are tried before chats, classes (`ClassLabel`) before prompt and completion, those before labels that are
    known by their name alone, and a text on its own last. An image needs no label.

    Args:
        purpose: what the model is for that is asked, where that is known: what suits it is tried before all others.

    Raises:
        PortError: several columns fit a role, or none; a named column is missing or of another type.
    """
    table = _Table(where, features, named, purpose=purpose)
    table.check()
    classed = any(isinstance(feature, datasets.ClassLabel) for feature in features.values())
    order = sorted(ROLES, key=lambda kind: kind is SampleKind.COMPLETION) if classed else ROLES
    order = sorted(order, key=lambda kind: kind is SampleKind.PLAIN)
    first = (SampleKind.TAGS, SampleKind.SPAN) if purpose is None else [SUITS.get(purpose.kind)]
    order = sorted(order, key=lambda kind: kind not in first)
    for kind in order:
        if set(named) <= set(ROLES[kind]) and (found := FINDERS[kind](table)):
            return Columns(kind, found)
    raise table.refusal(f"no columns that go together as {_either(ROLES)}")


def input_columns(where: str, features: datasets.Features, like: Columns) -> Columns:
    """Return the columns of samples of the same kind without labels: those of the same names, else found by type.

    Raises:
        PortError: there are none, or several that may be meant.
    """
    named = {role: name for role, name in like.names.items() if name not in like.labels}
    if all(name in features and _fits(role, features[name]) for role, name in named.items()):
        return Columns(like.kind, named)
    mend = f"call what is meant {' and '.join(map(repr, named.values()))}, as the samples with labels do"
    table = _Table(where, features, {}, mend)
    found = {SampleKind.IMAGE: _picture, SampleKind.PAIR: _texts}.get(like.kind, _plain)(table)
    if not found:
        raise table.refusal(f"no {' and no '.join(named)} column")
    return Columns(like.kind, found)


def _either(kinds: Iterable[SampleKind]) -> str:
    return ", ".join(kind.value for kind in kinds)


@dataclass(frozen=True)
class _Table:
    """The columns of a dataset, and those that the user named."""

    where: str
    features: datasets.Features
    named: Mapping[str, str]
    mend: str = f"name them with {setting('columns')} role=column,…"
    """What an error says of columns in doubt."""
    purpose: Purpose | None = None
    """What the model is for that is asked."""

    def refusal(self, what: str) -> PortError:
        """Return an error that says what the dataset has, what is wrong with that, and how to name columns."""
        have = listed([f"{name} ({_type(feature)})" for name, feature in self.features.items()], 20)
        return PortError(f"{self.where} has {what}: {self.mend}; it has {have}")

    def check(self) -> None:
        """Refuse columns that were named wrongly.

        Raises:
            PortError: a named column is missing, or cannot be what it is said to be.
        """
        for role, names in self.named.items():
            for column in _parted(names, self.features):
                if column not in self.features:
                    raise self.refusal(f"no {role} column {column!r}")
                if not _fits(role, self.features[column]):
                    raise self.refusal(f"no {role} in column {column!r}")

    def strings(self, names: Iterable[str] | None = None) -> list[str]:
        """Return the string columns that no role has yet; only those of these names if given."""
        taken = set(self.named.values())
        return [
            name
            for name in (self.features if names is None else names)
            if name in self.features and name not in taken and _is_string(self.features[name])
        ]

    def one(self, role: str, candidates: list[str]) -> str | None:
        """Return the column of a role: the one named, else the only candidate; None where there is none.

        Raises:
            PortError: there are several candidates.
        """
        if role in self.named:
            return self.named[role]
        if len(candidates) > 1:
            raise self.refusal(f"several {role} columns ({', '.join(candidates)})")
        return candidates[0] if candidates else None

    def label(self) -> dict[str, str]:
        """Return the role and column of the label, a `ClassLabel`, a list of them, or one of a known name; empty where
        there is none. Where every class has a column, return all of them.
        """
        own = _parted(self.named["label"], self.features) if "label" in self.named else self._of_each_class()
        if len(own) > 1:
            return {f"label {name}": name for name in own}
        types = self.features.items()
        classes = [name for name, feature in types if isinstance(feature, datasets.ClassLabel)]
        lists = [name for name, feature in types if isinstance(element(feature), datasets.ClassLabel)]
        taken = set(self.named.values())
        known = [name for name in LABEL_NAMES if name in self.features and name not in taken]
        if not known and self.purpose is not None and self.purpose.answer in (None, Answer.NUMBER):
            known = [name for name in SCORE_NAMES if name in self.features and name not in taken]
        label = self.one("label", classes or lists or known)
        return {} if label is None else {"label": label}

    def _of_each_class(self) -> list[str]:
        """Return the columns with the names of a model's classes, in their order; empty where one of them lacks."""
        if self.purpose is None or self.purpose.answer is not Answer.CLASSES:
            return []
        there = {_plain_name(name): name for name, feature in self.features.items() if _is_yes_or_no(feature)}
        found = [there.get(_plain_name(label)) for label in self.purpose.labels]
        return [name for name in found if name is not None] if None not in found else []


def _image(table: _Table) -> dict[str, str] | None:
    image = _picture(table)
    return image and image | table.label()


def _picture(table: _Table) -> dict[str, str] | None:
    image = table.one("image", [name for name, feature in table.features.items() if _fits("image", feature)])
    return None if image is None else {"image": image}


def _chat(table: _Table) -> dict[str, str] | None:
    found = [name for name, feature in table.features.items() if _is_chat(feature)]
    found = [name for name in found if name in MESSAGES_NAMES] or found
    messages = table.one("messages", found)
    return None if messages is None else {"messages": messages}


def _tags(table: _Table) -> dict[str, str] | None:
    words = [name for name in table.features if name in TOKEN_NAMES and _fits("tokens", table.features[name])]
    tokens = table.one("tokens", words)
    fitting = [name for name, feature in table.features.items() if name != tokens and _fits("tags", feature)]
    tags = table.one("tags", next(([name] for name in TAG_NAMES if name in fitting), fitting))
    return None if tokens is None or tags is None else {"tokens": tokens, "tags": tags}


def _together(table: _Table) -> dict[str, str] | None:
    named = {role: table.named[role] for role in ("anchor", "positive") if role in table.named}
    if len(named) == 2:
        return named
    found = [names for names in TOGETHER_NAMES if set(names) <= set(table.strings(names))]
    return None if named or not found or table.label() else {"anchor": found[0][0], "positive": found[0][1]}


def _span(table: _Table) -> dict[str, str] | None:
    fitting = [name for name, feature in table.features.items() if _fits("answers", feature)]
    if not fitting:
        return None
    found = {role: table.one(role, table.strings([role])) for role in ("question", "context")}
    found["answers"] = table.one("answers", fitting)
    known = {role: name for role, name in found.items() if name is not None}
    return known if len(known) == len(found) else None


def _completion(table: _Table) -> dict[str, str] | None:
    prompts, completions = table.strings(PROMPT_NAMES), table.strings(COMPLETION_NAMES)
    if not (prompts or "prompt" in table.named) or not (completions or "completion" in table.named):
        return None
    found = {"prompt": table.one("prompt", prompts), "completion": table.one("completion", completions)}
    return {role: name for role, name in found.items() if name is not None}


def _pair(table: _Table) -> dict[str, str] | None:
    texts = _texts(table)
    label = table.label() if texts else {}
    return texts | label if texts and label else None


def _texts(table: _Table) -> dict[str, str] | None:
    first, second = (table.named.get(role) for role in ("text", "text_pair"))
    found = [
        names
        for names in PAIR_NAMES
        if all(
            own in (None, name) and name in table.features and _is_string(table.features[name])
            for own, name in zip((first, second), names, strict=True)
        )
    ]
    if first and second:
        found = [(first, second)]
    if len(found) > 1:
        raise table.refusal(f"several pairs of texts ({', '.join(' and '.join(names) for names in found)})")
    return {"text": found[0][0], "text_pair": found[0][1]} if found else None


def _text(table: _Table) -> dict[str, str] | None:
    label = table.label()
    text = _single(table, without=label.get("label")) if label else None
    return None if text is None else {"text": text} | label


def _plain(table: _Table) -> dict[str, str] | None:
    text = _single(table)
    return None if text is None else {"text": text}


def _single(table: _Table, without: str | None = None) -> str | None:
    """Return the column of a text: the one of a known name, else the only column of strings."""
    known, strings = (
        [name for name in names if name != without] for names in (table.strings(TEXT_NAMES), table.strings())
    )
    return table.one("text", known or strings)


FINDERS = {
    SampleKind.IMAGE: _image,
    SampleKind.CHAT: _chat,
    SampleKind.COMPLETION: _completion,
    SampleKind.PAIR: _pair,
    SampleKind.TEXT: _text,
    SampleKind.PLAIN: _plain,
    SampleKind.TAGS: _tags,
    SampleKind.SPAN: _span,
    SampleKind.TOGETHER: _together,
}


def _fits(role: str, feature: Any) -> bool:
    if role == "image":
        return isinstance(feature, datasets.Image)
    if role == "messages":
        return _is_chat(feature)
    if role == "label":
        return isinstance(element(feature), datasets.ClassLabel | datasets.Value)
    if role in ("tokens", "tags"):
        return is_list(feature) and (_is_string(element(feature)) or (role == "tags" and _is_class(element(feature))))
    if role == "answers":
        return isinstance(feature, dict) and {"text", "answer_start"} <= set(feature)
    return _is_string(feature)


def is_list(feature: Any) -> bool:
    """Return whether a column holds lists."""
    return isinstance(feature, list) or hasattr(feature, "feature")


def element(feature: Any) -> Any:
    """Return the type of what a column's lists hold; of any other column its own."""
    return feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", feature)


def _is_class(feature: Any) -> bool:
    whole = isinstance(feature, datasets.Value) and feature.dtype.startswith(("int", "uint"))
    return whole or isinstance(feature, datasets.ClassLabel)


def _is_yes_or_no(feature: Any) -> bool:
    return isinstance(feature, datasets.Value) and feature.dtype.startswith(("bool", "int", "uint", "float"))


def _parted(column: str, features: datasets.Features) -> list[str]:
    """Return the columns that "a|b|c" names; a column's own name is one, whatever is in it."""
    return [column] if column in features else column.split("|")


def _plain_name(name: str) -> str:
    return name.strip().lower().replace("_", " ")


def _is_string(feature: Any) -> bool:
    return isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string", "string_view")


def _is_chat(feature: Any) -> bool:
    """Return whether a column is a list of messages, each with its speaker and its content."""
    one = feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", None)
    return isinstance(one, dict) and any(set(keys) <= set(one) for keys in MESSAGE_KEYS)


def _type(feature: Any) -> str:
    return feature.dtype if isinstance(feature, datasets.Value) else type(feature).__name__
