"""The columns of a dataset and their roles: found by types and well-known names, or named by the user."""

from collections.abc import Collection, Iterable, Mapping

import datasets

from hf_bico.core.errors import PortError, setting
from hf_bico.families import Purpose, PurposeKind
from hf_bico.tasks.finders import FINDERS, Table, picture, plain, sound, texts
from hf_bico.tasks.kinds import HEARD, ROLES, Columns, SampleKind, fits

SUITS = {
    PurposeKind.TOKEN_CLASSES: SampleKind.TAGS,
    PurposeKind.SPANS: SampleKind.SPAN,
    PurposeKind.FEATURES: SampleKind.TOGETHER,
    PurposeKind.SOUND_CLASSES: SampleKind.SOUND,
    PurposeKind.CTC: SampleKind.SPEECH,
    PurposeKind.SPEECH: SampleKind.SPEECH,
    PurposeKind.IMAGE_TEXT: SampleKind.SIGHT,
}
"""What a model is for → the kind of samples that is tried first."""


EXAMPLE = "text=sentence,label=class"
"""Columns with their roles, as an error shows how they are named."""


def parse_columns(text: str | None) -> dict[str, str]:
    """Return a text such as "image=img,label=y" as role → column.

    Raises:
        PortError: the text is not of that form, or a role is unknown or named twice.
    """
    named: dict[str, str] = {}
    for entry in filter(None, map(str.strip, (text or "").split(","))):
        role, _, column = map(str.strip, entry.partition("="))
        if why := _wrong(entry, role, column, named):
            roles = dict.fromkeys(role for some in ROLES.values() for role in some)
            how = f"say role=column, such as {setting('columns')} {EXAMPLE}"
            raise PortError(f"{setting('columns')} {text}: {why}; the roles are {', '.join(roles)}: {how}")
        named[role] = column
    return named


def _wrong(entry: str, role: str, column: str, named: Collection[str]) -> str:
    """Return what is wrong with a role and its column; empty if nothing is."""
    if not role or not column:
        return f"{entry!r} is not role=column"
    if role in named:
        return f"{role!r} is named twice"
    return "" if any(role in some for some in ROLES.values()) else f"{role!r} is no role that a column can have"


def find_columns(
    where: str, features: datasets.Features, named: Mapping[str, str], purpose: Purpose | None = None
) -> Columns:
    """Return the columns of the first kind of sample that has all named roles and whose columns are there.

    Images are tried before chats, classes (`ClassLabel`) before prompt and completion, those before labels that are
    known by their name alone, and a text on its own last. An image and a sound need no label. Sounds are tried first
    where it is not known what the model takes, or it takes them; else last.

    Args:
        purpose: what the model is for that is asked, where that is known: what suits it is tried before all others.

    Raises:
        PortError: several columns fit a role, or none; a named column is missing or of another type.
    """
    table = Table(where, features, named, purpose=purpose)
    table.check()
    classed = any(isinstance(feature, datasets.ClassLabel) for feature in features.values())
    later = (SampleKind.COMPLETION, SampleKind.SPEECH) if classed else ()
    order = sorted(ROLES, key=lambda kind: kind in later)
    order = sorted(order, key=lambda kind: kind in (SampleKind.PLAIN, *HEARD))
    first = (
        (SampleKind.TAGS, SampleKind.SPAN, *HEARD[:: 1 if classed else -1])
        if purpose is None
        else [SUITS.get(purpose.kind)]
    )
    order = sorted(order, key=lambda kind: kind not in first)
    if SampleKind.SIGHT not in first:  # to any other model an image is one, and a text about it a text
        order.remove(SampleKind.SIGHT)
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
    if all(name in features and fits(role, features[name]) for role, name in named.items()):
        return Columns(like.kind, named)
    mend = f"call what is meant {' and '.join(map(repr, named.values()))}, as the samples with labels do"
    table = Table(where, features, {}, mend)
    finders = {SampleKind.IMAGE: picture, SampleKind.PAIR: texts, SampleKind.SOUND: sound}
    found = finders.get(like.kind, plain)(table)
    if not found:
        raise table.refusal(f"no {' and no '.join(named)} column")
    return Columns(like.kind, found)


def _either(kinds: Iterable[SampleKind]) -> str:
    return ", ".join(kind.value for kind in kinds)
