"""The one error that users see."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

_SETTING = re.compile(r"⟦(\w+)⟧")
_ENDLESS = re.compile(r"(\S{400})\S{100,}")
"""Words that nobody reads to their end: cut in errors."""


def setting(name: str) -> str:
    """Return a placeholder for a setting in an error: `base=` when read in Python, `--base` on the command line.

    Args:
        name: the field's or argument's.
    """
    return f"⟦{name}⟧"


_spell: ContextVar[Callable[[str], str]] = ContextVar("spell", default=lambda name: f"{name}=")


@contextmanager
def spelling(spell: Callable[[str], str]) -> Iterator[None]:
    """Spell the settings in errors with `spell`, not as Python's arguments, while the block runs."""
    before = _spell.set(spell)
    try:
        yield
    finally:
        _spell.reset(before)


def spelled(text: str) -> str:
    """Return a text with its placeholders replaced as the current `spelling` says."""
    return _SETTING.sub(lambda found: _spell.get()(found[1]), text)


def printable(text: str) -> str:
    """Return a text as one line without characters that steer a terminal or turn its letters round: those escaped."""
    if text.isprintable():
        return text
    line = " ".join(text.splitlines()).replace("\t", " ")
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in line)


class PortError(Exception):
    """Raised for what a user can mend. Its message is one line: what is wrong and what to do."""

    @property
    def message(self) -> str:
        """The line with its settings still placeholders, for an error that quotes this one."""
        return str(self.args[0]) if self.args else ""

    def __str__(self) -> str:
        return _ENDLESS.sub(r"\1…", printable(spelled(self.message)))


def listed(items: Sequence[str], most: int = 5) -> str:
    """Return the items in one line, separated by commas; after the first `most` it says how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
