"""How a command talks: results on stdout, everything else on stderr."""

import json
import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hf_bico.core.errors import printable

interrupted = threading.Event()
"""Set by Ctrl-C, for the libraries below that swallow its exception."""
WIDE = 1000
"""Columns of a table that is written to a file, which has room for any name."""
stderr = Console(stderr=True, highlight=False, soft_wrap=True)


PLAIN = stderr.no_color
"""Whether the environment wants no colours (NO_COLOR)."""
TONES = {
    **dict.fromkeys(("good", "works"), "green"),
    **dict.fromkeys(("uncertain", "partly", "no gain", "Warning:", "Note:"), "yellow"),
    **dict.fromkeys(("poor", "harmful", "impossible", "failed", "refused", "Error:"), "red"),
}
"""Word → its colour: those of a check's and a port's verdict, of a cell's state, and with which lines begin."""


def toned(word: str) -> tuple[str, str]:
    """Return a word with its colour, for `Text.assemble`; what comes after one of `TONES` has its colour too."""
    return word, next((tone for known, tone in TONES.items() if word.startswith(known)), "")


def tell(line: str) -> None:
    """Print a line on stderr; on a terminal the word that it begins with has its colour."""
    first, colon, rest = line.partition(":")
    stderr.print(Text.assemble(toned(first + colon), rest) if first + colon in TONES else Text(line))


class Format(StrEnum):
    """How results are printed, as the Hub's own command `hf` has it."""

    AUTO = "auto"
    """For an agent where the Hub's client finds that one runs the command, else for people."""
    HUMAN = "human"
    AGENT = "agent"
    """All of it as plain text, tables as tab-separated lines; nothing is cut, drawn or coloured."""
    JSON = "json"
    QUIET = "quiet"


def begin(format: Format, quiet: bool, line: str) -> None:
    """Print the first line of a command, before anything that takes time; nothing where programs read."""
    if not quiet and format not in (Format.JSON, Format.QUIET):
        stderr.print(f"{printable(line)} …", markup=False)


def resolved(format: Format) -> Format:
    """Return the format that is meant: `auto` is what the Hub's client makes of it."""
    if format is not Format.AUTO:
        return format
    from huggingface_hub.utils import is_agent

    try:
        return Format.AGENT if is_agent() else Format.HUMAN
    except Exception:  # the client asks the Hub for the names of agents, and takes any JSON for an answer
        return Format.HUMAN


@dataclass(frozen=True)
class Grid:
    """Rows under a header: a table for people, tab-separated lines for agents."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    tone: str = ""
    """The column whose words have colours, if one has."""

    def table(self) -> Table:
        """Return it as a table; brackets in its texts are no marks."""
        shape: dict[str, Any] = {"box": box.SIMPLE_HEAD, "collapse_padding": True, "pad_edge": False}
        title = Text(self.title) if self.title else None
        table = Table(**shape, title=title, title_justify="left", title_style="")
        for name in self.header:
            table.add_column(Text(name))
        for row in self.rows:
            cells = zip(self.header, row, strict=True)
            table.add_row(*(Text(*toned(cell) if name == self.tone else (cell,)) for name, cell in cells))
        return table

    def lines(self) -> Iterator[str]:
        """Yield its title, if it has one, and its rows with tabs between the cells, the header first."""
        if self.title:
            yield self.title
        for row in (self.header, *self.rows):
            yield tabbed(row)


@dataclass(frozen=True)
class Facts:
    """Names with what is said of each, under a line: in two columns for people, tab-separated lines for agents."""

    title: str
    rows: Sequence[tuple[str, str]]

    def table(self) -> Text:
        """Return them under one another, what is said beside its name."""
        width = max((len(name) for name, _ in self.rows), default=0) + 1
        return Text("\n".join((self.title, *(f"{name:{width}}{said}" for name, said in self.rows))))

    def lines(self) -> Iterator[str]:
        """Yield the title, and every name and what is said of it with a tab between them."""
        yield self.title
        yield from map(tabbed, self.rows)


def tabbed(cells: Sequence[str]) -> str:
    """Return cells as one line with tabs between them, and none within."""
    return "\t".join(printable(" ".join(str(cell).split())) for cell in cells)


Part = str | Text | Grid | Facts
"""What is printed at once."""


class Terminal:
    """How a command talks in the chosen format."""

    def __init__(self, format: Format, quiet: bool) -> None:
        self.format = Format.QUIET if quiet else resolved(format)
        stderr.no_color = PLAIN or self.format is not Format.HUMAN
        self.out = Console(highlight=False, soft_wrap=True, no_color=stderr.no_color)
        if not self.out.is_terminal:
            self.out.width = WIDE
        self._told: set[str] = set()
        _quieten_libraries()
        _tell_warnings(self.format)

    def track(self, items, what: str, total: int):
        """Yield the items, with a progress bar on stderr while they pass; where that is no terminal, or no human looks
        at it, with a line when a stage first begins.
        """
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        bare = not self.draws
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=stderr, disable=bare, transient=True) as progress:
            for item in progress.track(items, total=total, description=what):
                if interrupted.is_set():  # a library below swallowed it
                    raise KeyboardInterrupt
                self._tell(what)
                yield item

    def _tell(self, what: str) -> None:
        if self.format is not Format.QUIET and not self.draws and what not in self._told:
            self._told.add(what)
            stderr.print(f"{what} …", markup=False)

    def say(self, human: Part, data: Any, quiet: str) -> None:
        """Print the result, in the one form that was asked for.

        Args:
            human: a text, a `Grid` or `Facts`, for people and agents; a `Text` has colours for people.
            data: what JSON has.
            quiet: what alone is told in the format quiet.
        """
        if self.is_read:
            self._show(human)
        elif self.format is Format.JSON or quiet:
            print(json.dumps(data, ensure_ascii=False) if self.format is Format.JSON else quiet)

    def add(self, *parts: Part) -> None:
        """Print more of the result, for people and agents alone."""
        for part in parts if self.is_read else ():
            self._show(part)

    def _show(self, part: Part) -> None:
        if not isinstance(part, Grid | Facts):
            self.out.print(part, markup=False)
        elif self.format is Format.HUMAN:
            self.out.print(part.table())
        else:
            print("\n".join(part.lines()))

    @property
    def is_read(self) -> bool:
        """Whether all that is told is read, by people or by agents."""
        return self.format in (Format.HUMAN, Format.AGENT)

    @property
    def draws(self) -> bool:
        """Whether stderr is a terminal on which bars and boards can be drawn over themselves."""
        return self.format is Format.HUMAN and stderr.is_terminal

    def note(self, line: str) -> None:
        """Print what was read in another way than its owner may think."""
        self.warn(f"Note: {line}")

    def warn(self, line: str) -> None:
        """Print a line on stderr, unless only the result was asked for."""
        if self.format is not Format.QUIET:
            tell(line)


def _quieten_libraries() -> None:
    """Silence the libraries' chatter, and their bars, which stay on the screen and count every small file."""
    import datasets
    import huggingface_hub

    for name in ("httpx2", "httpx", "open_clip", "huggingface_hub", "datasets"):
        logging.getLogger(name).setLevel(logging.ERROR)
    huggingface_hub.utils.disable_progress_bars()
    datasets.disable_progress_bars()


class _Told(logging.Handler):
    """Prints our own warnings on stderr, around a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        stderr.print(Text(record.getMessage(), "yellow"))


def _tell_warnings(format: Format) -> None:
    logger = logging.getLogger("hf_bico")
    for handler in [each for each in logger.handlers if isinstance(each, _Told)]:
        logger.removeHandler(handler)
    logger.addHandler(_Told(logging.ERROR if format is Format.QUIET else logging.WARNING))
