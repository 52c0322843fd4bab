"""Finds the columns of every kind of sample in a dataset, by their types and well-known names."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import datasets

from hf_bico.core.errors import PortError, listed, setting
from hf_bico.core.notes import note
from hf_bico.families import Answer, Purpose, PurposeKind
from hf_bico.tasks.kinds import SampleKind, element, fits, is_chat, is_numeric, is_string, parted, plain_name, type_name

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
NEGATIVE_NAMES = re.compile(r"(hard_)?neg(ative)?s?(_\d+)?")
PROMPT_NAMES = ("prompt", "instruction", "question", "document", "article", "dialogue")
CAPTION_NAMES = ("text", "caption", "description")
COMPLETION_NAMES = ("completion", "response", "answer", "output", "target", "summary", "highlights")
TRANSCRIPTION_NAMES = ("transcription", "transcript", "sentence", "text", "normalized_text")
MESSAGES_NAMES = ("messages", "conversations", "conversation")


@dataclass(frozen=True)
class Table:
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
        have = listed([f"{name} ({type_name(feature)})" for name, feature in self.features.items()], 20)
        return PortError(f"{self.where} has {what}: {self.mend}; it has {have}")

    def check(self) -> None:
        """Refuse columns that were named wrongly.

        Raises:
            PortError: a named column is missing, or cannot be what it is said to be.
        """
        for role, names in self.named.items():
            for column in parted(names, self.features):
                if column not in self.features:
                    raise self.refusal(f"no {role} column {column!r}")
                if not fits(role, self.features[column]):
                    raise self.refusal(f"no {role} in column {column!r}")

    def strings(self, names: Iterable[str] | None = None) -> list[str]:
        """Return the string columns that no role has yet; only those of these names if given."""
        taken = set(self.named.values())
        return [
            name
            for name in (self.features if names is None else names)
            if name in self.features and name not in taken and is_string(self.features[name])
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
        own = parted(self.named["label"], self.features) if "label" in self.named else self._of_each_class()
        if len(own) > 1:
            return {f"label {name}": name for name in own}
        types = self.features.items()
        classes = [name for name, feature in types if isinstance(feature, datasets.ClassLabel)]
        lists = [name for name, feature in types if isinstance(element(feature), datasets.ClassLabel)]
        taken = set(self.named.values())
        known = [name for name in LABEL_NAMES if name in self.features and name not in taken]
        if not known and self.purpose is not None and self.purpose.answer is Answer.NUMBER:
            known = self.scores()
        label = self.one("label", classes or lists or known)
        return {} if label is None else {"label": label}

    def scores(self) -> list[str]:
        """Return the columns of numbers that no role has yet, of names that scores have."""
        numbers = [name for name in SCORE_NAMES if name in self.features and is_numeric(self.features[name])]
        return [name for name in numbers if name not in self.named.values()]

    def _of_each_class(self) -> list[str]:
        """Return the columns with the names of a model's classes, in their order; empty where one of them lacks."""
        if self.purpose is None or self.purpose.answer is not Answer.CLASSES:
            return []
        there = {plain_name(name): name for name, feature in self.features.items() if is_numeric(feature)}
        found = [there.get(plain_name(label)) for label in self.purpose.labels]
        return [name for name in found if name is not None] if None not in found else []


def _image(table: Table) -> dict[str, str] | None:
    image = picture(table)
    return image and image | table.label()


def picture(table: Table) -> dict[str, str] | None:
    """Return the column of images; None where there is none."""
    image = table.one("image", [name for name, feature in table.features.items() if fits("image", feature)])
    return None if image is None else {"image": image}


def sound(table: Table) -> dict[str, str] | None:
    """Return the column of sounds; None where there is none."""
    audio = table.one("audio", [name for name, feature in table.features.items() if fits("audio", feature)])
    return None if audio is None else {"audio": audio}


def _sound(table: Table) -> dict[str, str] | None:
    audio = sound(table)
    return audio and audio | table.label()


def _speech(table: Table) -> dict[str, str] | None:
    audio = sound(table)
    known = table.strings(TRANSCRIPTION_NAMES)
    text = table.one("transcription", known[:1] or table.strings()) if audio else None
    return None if audio is None or text is None else audio | {"transcription": text}


def _chat(table: Table) -> dict[str, str] | None:
    """Return the column of whole chats; or those of a prompt of messages and of what is answered to it."""
    if "messages" not in table.named and (answered := _answered_chat(table)):
        return answered
    if "prompt" in table.named or "completion" in table.named:
        return None
    found = [name for name, feature in table.features.items() if is_chat(feature)]
    found = [name for name in found if name in MESSAGES_NAMES] or found
    messages = table.one("messages", found)
    return None if messages is None else {"messages": messages}


def _tags(table: Table) -> dict[str, str] | None:
    words = [name for name in table.features if name in TOKEN_NAMES and fits("tokens", table.features[name])]
    tokens = table.one("tokens", words)
    fitting = [name for name, feature in table.features.items() if name != tokens and fits("tags", feature)]
    tags = table.one("tags", next(([name] for name in TAG_NAMES if name in fitting), fitting))
    return None if tokens is None or tags is None else {"tokens": tokens, "tags": tags}


def _together(table: Table) -> dict[str, str] | None:
    named = {role: table.named[role] for role in ("anchor", "positive") if role in table.named}
    if len(named) == 2:
        return named | _negatives(table)
    found = [names for names in TOGETHER_NAMES if set(names) <= set(table.strings(names))]
    return (
        None
        if named or not found or table.label() or table.scores()
        else {"anchor": found[0][0], "positive": found[0][1]} | _negatives(table)
    )


def _negatives(table: Table) -> dict[str, str]:
    """Return the columns of texts that are like the anchor and do not belong to it: those named, or of their usual name
    where none of the roles is named; and say which others there may be.
    """
    likely = [name for name in table.features if NEGATIVE_NAMES.fullmatch(name)]
    found = parted(table.named["negative"], table.features) if "negative" in table.named else []
    if not table.named:
        found = [name for name in likely if is_string(table.features[name])]
    if unused := [name for name in likely if name not in (*found, *table.named.values())]:
        note(
            f"{listed(unused)} of {table.where} may be hard negatives, and is not used: name columns of one text each "
            f"with {setting('columns')} negative=a|b"
        )
    return {"negative": found[0]} if len(found) == 1 else {f"negative {name}": name for name in found}


def _span(table: Table) -> dict[str, str] | None:
    fitting = [name for name, feature in table.features.items() if fits("answers", feature)]
    if not fitting:
        return None
    found = {role: table.one(role, table.strings([role])) for role in ("question", "context")}
    found["answers"] = table.one("answers", fitting)
    known = {role: name for role, name in found.items() if name is not None}
    return known if len(known) == len(found) else None


def _answered_chat(table: Table) -> dict[str, str] | None:
    """Return the columns of a prompt of messages and of its completion, messages or a text; None without both."""
    chats = [name for name, feature in table.features.items() if is_chat(feature)]
    prompts = [name for name in PROMPT_NAMES if name in chats]
    either = [*chats, *table.strings(COMPLETION_NAMES)]
    prompt = table.one("prompt", prompts)
    completion = table.one("completion", [name for name in COMPLETION_NAMES if name in either])
    if prompt is None or completion is None or prompt not in chats:
        return None
    return {"prompt": prompt, "completion": completion}


def _completion(table: Table) -> dict[str, str] | None:
    prompts, completions = table.strings(PROMPT_NAMES), table.strings(COMPLETION_NAMES)
    if not (prompts or "prompt" in table.named) or not (completions or "completion" in table.named):
        return None
    found = {"prompt": table.one("prompt", prompts), "completion": table.one("completion", completions)}
    return {role: name for role, name in found.items() if name is not None}


def _pair(table: Table) -> dict[str, str] | None:
    both = texts(table)
    label = table.label() if both else {}
    if both and not label and table.purpose is not None and table.purpose.kind is PurposeKind.FEATURES:
        score = table.one("label", table.scores())
        label = {} if score is None else {"label": score}
    return both | label if both and label else None


def texts(table: Table) -> dict[str, str] | None:
    """Return the columns of a pair of texts; None where there are none."""
    first, second = (table.named.get(role) for role in ("text", "text_pair"))
    found = [
        names
        for names in PAIR_NAMES
        if all(
            own in (None, name) and name in table.features and is_string(table.features[name])
            for own, name in zip((first, second), names, strict=True)
        )
    ]
    if first and second:
        found = [(first, second)]
    if len(found) > 1:
        raise table.refusal(f"several pairs of texts ({', '.join(' and '.join(names) for names in found)})")
    return {"text": found[0][0], "text_pair": found[0][1]} if found else None


def _text(table: Table) -> dict[str, str] | None:
    label = table.label()
    text = _single(table, without=label.get("label")) if label else None
    return None if text is None else {"text": text} | label


def plain(table: Table) -> dict[str, str] | None:
    """Return the column of a text; None where there is none."""
    text = _single(table)
    return None if text is None else {"text": text}


def _single(table: Table, without: str | None = None) -> str | None:
    """Return the column of a text: the one of a known name, else the only column of strings."""
    known, strings = (
        [name for name in names if name != without] for names in (table.strings(TEXT_NAMES), table.strings())
    )
    return table.one("text", known or strings)


def _sight(table: Table) -> dict[str, str] | None:
    """Return the column of an image, or of lists of them, and those of a chat, a prompt with its completion, or a text
    about it.
    """
    lists = [name for name, feature in table.features.items() if fits("images", feature)]
    seen = picture(table)
    if not seen:
        images = table.one("images", lists)
        seen = None if images is None else {"images": images}
    if not seen:
        return None
    said = None if "text" in table.named else _chat(table) or _completion(table)
    text = None if said else table.one("text", table.strings(CAPTION_NAMES))
    if text is not None:
        said = {"text": text}
    return said and seen | said


FINDERS = {
    SampleKind.IMAGE: _image,
    SampleKind.CHAT: _chat,
    SampleKind.COMPLETION: _completion,
    SampleKind.PAIR: _pair,
    SampleKind.TEXT: _text,
    SampleKind.PLAIN: plain,
    SampleKind.TAGS: _tags,
    SampleKind.SPAN: _span,
    SampleKind.TOGETHER: _together,
    SampleKind.SPEECH: _speech,
    SampleKind.SOUND: _sound,
    SampleKind.SIGHT: _sight,
}
