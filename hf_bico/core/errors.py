"""The one error that a user sees."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

_SETTING = re.compile(r"⟦(\w+)⟧")


def setting(name: str) -> str:
    """Return a setting's place in an error: Python spells it as an argument (`base=`), the command line as its option.

    Args:
        name: of the field or argument.
    """
    return f"⟦{name}⟧"


_spell: ContextVar[Callable[[str], str]] = ContextVar("spell", default=lambda name: f"{name}=")


@contextmanager
def spelling(spell: Callable[[str], str]) -> Iterator[None]:
    """Spell the settings in errors otherwise than as Python's arguments, for as long as the block runs."""
    before = _spell.set(spell)
    try:
        yield
    finally:
        _spell.reset(before)


def spelled(text: str) -> str:
    """Return a text with its settings spelled for whoever reads it here."""
    return _SETTING.sub(lambda found: _spell.get()(found[1]), text)


class PortError(Exception):
    """Something a user can mend. Its message is one line: what is wrong and what to do."""

    @property
    def message(self) -> str:
        """The line with its settings still to be spelled, for an error that quotes this one."""
        return str(self.args[0]) if self.args else ""

    def __str__(self) -> str:
        return spelled(self.message)


def listed(items: Sequence[str], most: int = 5) -> str:
    """Return all items in one line; a long list is cut and says how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
