"""Lines for the user on what was read in another way than its owner may think; nothing is wrong, so nothing stops."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from hf_bico.core.errors import spelled

Hear = Callable[[str], None]

_ears: ContextVar[tuple[Hear, ...]] = ContextVar("ears", default=())


def note(line: str) -> None:
    """Say a line to all who listen; a setting in it is written as `hf_bico.core.errors.setting` says."""
    for hear in _ears.get():
        hear(spelled(line))


@contextmanager
def listening(hear: Hear) -> Iterator[None]:
    """Call `hear` with every line that is said while the block runs, each once; whoever listened before hears them too.

    Args:
        hear: takes a line, its settings spelled.
    """
    heard: set[str] = set()

    def once(line: str) -> None:
        if line not in heard:
            heard.add(line)
            hear(line)

    before = _ears.get()
    _ears.set((*before, once))
    try:
        yield
    finally:
        _ears.set(before)


@contextmanager
def noted() -> Iterator[list[str]]:
    """Yield a list that gets every line that is said while the block runs, each once."""
    lines: list[str] = []
    with listening(lines.append):
        yield lines
