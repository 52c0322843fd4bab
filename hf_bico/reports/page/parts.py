"""What a page is made of: parts with all that is reckoned done, which a template only writes down.

A section is a title and a few of these parts; a new one needs a function that gives it, and no template.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    title: str
    kind: str = "text"
    """One of "text", "number", "picture" and "code"."""


@dataclass(frozen=True)
class Bar:
    """A cell with a bar, and what it says."""

    kind: ClassVar[str] = "bar"
    share: float
    """Of the cell's width, 0 to 1."""
    text: str = ""


@dataclass(frozen=True)
class Span:
    """A cell with a dot and its whiskers, on the axis of its table; places are in per cent of the width."""

    kind: ClassVar[str] = "span"
    low: float
    value: float
    high: float
    says: str
    """The same in words."""
    marked: bool = False
    """Whether it is what the report is of."""


@dataclass(frozen=True)
class Word:
    """A word with a sign and a colour of its own."""

    kind: ClassVar[str] = "word"
    text: str
    tone: str
    """One of "good", "middling", "plain" and "bad"."""


@dataclass(frozen=True)
class Link:
    """A link to a page of the Hub."""

    kind: ClassVar[str] = "link"
    text: str
    href: str


Cell = str | Bar | Span | Word | Link


@dataclass(frozen=True)
class Tick:
    """A place on an axis, in per cent of the width, and its label."""

    at: float
    label: str


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row names it."""

    kind: ClassVar[str] = "table"
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    marked: frozenset[int] = frozenset()
    """Numbers of the rows that stand out."""
    ticks: tuple[Tick, ...] = ()
    """The axis of its spans."""
    lines: tuple[float, ...] = ()
    """Places on it that are marked from top to bottom, in per cent."""
    stacked: bool = False
    """Whether a row's cells lie below one another where there is little room."""


@dataclass(frozen=True)
class Facts:
    """Names and what they are, a line each."""

    kind: ClassVar[str] = "facts"
    caption: str
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Folded:
    """Parts that are shown when a line is clicked."""

    kind: ClassVar[str] = "folded"
    summary: str
    parts: tuple["Part", ...]
    printed: bool = True
    """Whether they are printed on paper."""


@dataclass(frozen=True)
class Command:
    """A text that a click selects whole, to copy it; lines stay lines."""

    kind: ClassVar[str] = "command"
    label: str
    text: str
    whole: bool = True
    """Whether a click selects all of it."""


@dataclass(frozen=True)
class Site:
    """A cell of a grid of layers."""

    label: str
    """The target's layer."""
    shown: str
    fit: int | None
    """How well its maps fit, 0 to 10; None where there are none."""
    kept: int | None
    """How much of τ is kept, 0 to 10; None where nobody said."""
    lines: tuple[str, ...]
    """What is shown of it where it is pointed at or focused."""


@dataclass(frozen=True)
class Grid:
    """Layers as cells, a block a row and a role a column."""

    kind: ClassVar[str] = "grid"
    caption: str
    roles: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Site | None, ...]], ...]
    number: int = 0
    """Which of the page's grids it is, for names within the page."""


@dataclass(frozen=True)
class Square:
    """A cell of a heat map; places and sizes are in per cent of the width, and in pixels of the height."""

    x: float
    y: float
    strength: float
    """0 to 1."""
    says: str
    text: str
    """What is written into it, if anything."""
    middle: float
    """Where that is, in per cent."""
    chosen: bool


@dataclass(frozen=True)
class Heat:
    """A matrix as a heat map, with some cells framed."""

    kind: ClassVar[str] = "heat"
    title: str
    """What it shows, for those who do not see it."""
    across: str
    down: str
    width: float
    """Of a cell, in per cent."""
    height: int
    """Of a cell, in pixels."""
    columns: tuple[Tick, ...]
    rows: tuple[Tick, ...]
    """Labels, at pixels from the top."""
    squares: tuple[Square, ...]
    tall: int
    room: str
    """How wide it may be: "narrow", "middle" or "wide"."""


@dataclass(frozen=True)
class Point:
    """A point of a line, in per cent of the width and pixels of the height."""

    x: float
    y: float
    low: float
    high: float
    says: str


@dataclass(frozen=True)
class Line:
    """A line of a chart."""

    name: str
    colour: int
    marker: int
    points: tuple[Point, ...]
    strong: bool = False


@dataclass(frozen=True)
class Chart:
    """Lines over an axis."""

    kind: ClassVar[str] = "chart"
    title: str
    across: str
    up: str
    lines: tuple[Line, ...]
    columns: tuple[Tick, ...]
    rows: tuple[Tick, ...]
    """Labels, at pixels from the top."""
    marks: tuple[float, ...] = ()
    """Heights that are marked from left to right, in pixels."""
    tall: int = 0


@dataclass(frozen=True)
class Piece:
    """A piece of a stacked bar, in per cent of its width."""

    x: float
    width: float
    colour: int
    says: str


@dataclass(frozen=True)
class Stack:
    """A bar of pieces that add up."""

    kind: ClassVar[str] = "stack"
    title: str
    pieces: tuple[Piece, ...]
    legend: tuple[tuple[int, str], ...]


Part = Text | Table | Facts | Folded | Command | Grid | Heat | Chart | Stack


@dataclass(frozen=True)
class Section:
    """A part of a page with a title."""

    anchor: str
    title: str
    parts: tuple[Part, ...]

    @classmethod
    def of(cls, anchor: str, title: str, parts: Sequence[Part | None]) -> "Section | None":
        """Return a section of those parts that are there; None where there are none."""
        there = tuple(part for part in parts if part is not None)
        return cls(anchor, title, there) if there else None


@dataclass(frozen=True)
class Tile:
    """A number at the top of a page."""

    label: str
    value: str
    below: str = ""
    marked: bool = False


@dataclass(frozen=True)
class Page:
    """All that a page shows."""

    kind: str
    """What it is of, in words."""
    title: str
    subtitle: str
    sections: tuple[Section, ...]
    verdict: Word | None = None
    sentences: tuple[str, ...] = ()
    """The verdict's reasons, and what comes next."""
    tiles: tuple[Tile, ...] = field(default=())
