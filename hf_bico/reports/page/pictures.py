"""Where things lie in the pictures of a page.

Across, places are in per cent, so that a picture is as wide as there is room; down, they are in pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor, isfinite, log, log10

from hf_bico.reports.page.parts import Chart, Heat, Line, Piece, Point, Square, Stack, Tick

COLOURS = 7
"""Colours of lines and pieces (Okabe and Ito 2008); the stylesheet has them."""
MARKERS = 4
EDGE = 4.0
"""Per cent that stay free at either end of an axis."""
MOST_VALUES = 12
"""The most columns of a heat map whose values are written into its cells."""
MOST_LABELS = 12
TALL = 260
"""Height of a chart's field, in pixels."""


@dataclass(frozen=True)
class Axis:
    """A scale from the least value to the largest."""

    low: float
    high: float
    logarithmic: bool = False

    @classmethod
    def over(cls, values: Sequence[float], *, logarithmic: bool = False) -> "Axis":
        """Return an axis on which all of these values lie; of none it is that from 0 to 1."""
        known = [value for value in values if isfinite(value) and (value > 0 or not logarithmic)]
        low, high = (min(known), max(known)) if known else (0.0, 1.0)
        if low == high:
            room = abs(low) / 2 or 0.5
            low, high = (low / 2, high * 2) if logarithmic else (low - room, high + room)
        return cls(low, high, logarithmic)

    def share(self, value: float) -> float:
        """Return where a value lies, from 0 to 1; what lies beyond an end is put there."""
        if self.logarithmic:
            found = log(max(value, self.low) / self.low) / log(self.high / self.low)
        else:  # halves, for the difference of two large numbers overflows
            found = (value / 2 - self.low / 2) / (self.high / 2 - self.low / 2)
        return min(max(found, 0.0), 1.0)

    def at(self, value: float) -> float:
        """Return where a value lies, in per cent of the width."""
        return round(EDGE + (100 - 2 * EDGE) * self.share(value), 2)

    def steps(self, most: int = 6) -> list[float]:
        """Return round values along the axis, at most so many."""
        step = _round_step((self.high - self.low) / most)
        if step == 0:
            return []
        first = floor(self.low / step)
        found = [number * step for number in range(first, first + most + 3)]
        return [value for value in found if self.low <= value <= self.high]

    def ticks(self, show: Callable[[float], str], most: int = 6) -> tuple[Tick, ...]:
        """Return round values along the axis with their labels, each label once."""
        labels = {show(value): value for value in reversed(self.steps(most))}
        return tuple(Tick(self.at(value), label) for label, value in reversed(labels.items()))


def _round_step(least: float) -> float:
    """Return the smallest of 1, 2 and 5 times a power of ten that is no less."""
    if not 1e-300 < least < 1e300:
        return 0.0
    power = 10.0 ** floor(log10(least))
    return next((factor * power for factor in (1, 2, 5) if factor * power >= least), 10 * power)


def every(count: int, most: int = MOST_LABELS) -> range:
    """Return the numbers of those of `count` things that get a label."""
    return range(0, count, 1 + (count - 1) // most)


def heat(matrix: Sequence[Sequence[float]], path: Sequence[int | None], title: str, axes: tuple[str, str]) -> Heat:
    """Return a matrix of CKA, target by source, with the chosen source of every target framed.

    Args:
        axes: what the columns and the rows are.
    """
    wide = max(map(len, matrix), default=0) or 1
    high = 26 if wide <= MOST_VALUES else 14
    width = 100 / wide
    squares = [
        Square(
            round(source * width, 3),
            target * high,
            min(max(value, 0.0), 1.0),
            f"{target} ← {source}: {value:.3f}",
            f"{value:.2f}".removeprefix("0") if wide <= MOST_VALUES else "",
            round((source + 0.5) * width, 2),
            target < len(path) and path[target] == source,
        )
        for target, row in enumerate(matrix)
        for source, value in enumerate(row)
    ]
    return Heat(
        title,
        *axes,
        round(width, 3),
        high,
        tuple(Tick(round((k + 0.5) * width, 2), str(k)) for k in every(wide)),
        tuple(Tick((k + 0.5) * high, str(k)) for k in every(len(matrix), 24)),
        tuple(squares),
        len(matrix) * high,
        "narrow" if wide <= 6 else "middle" if wide <= MOST_VALUES else "wide",
    )


def stack(seconds: Mapping[str, float], title: str, show: Callable[[float], str]) -> Stack | None:
    """Return what took how long as one bar, the longest first in its legend; None where nothing took any time."""
    whole = sum(seconds.values())
    if not isfinite(whole) or whole <= 0 or min(seconds.values()) < 0:
        return None
    order = sorted(seconds, key=lambda name: -seconds[name])
    colours = {name: min(number, COLOURS) for number, name in enumerate(order)}
    pieces, x = [], 0.0
    for name, value in seconds.items():
        width = 100 * value / whole
        pieces.append(Piece(round(x, 3), round(width, 3), colours[name], f"{name}: {show(value)}, {width:.0f}%"))
        x += width
    legend = [(colours[name], f"{name} {show(seconds[name])}") for name in order[:COLOURS] if seconds[name] > 0]
    rest = sum(seconds[name] for name in order[COLOURS:])
    return Stack(title, tuple(pieces), (*legend, *([(COLOURS, f"the rest {show(rest)}")] if rest > 0 else [])))


@dataclass(frozen=True)
class Measure:
    """A value of a line with its spread."""

    x: float
    y: float
    spread: float
    says: str


def _line(
    name: str, points: Sequence[Measure], number: int, aside: float, across: Axis, y: Callable[[float], float]
) -> Line:
    """Return a line of a chart.

    Args:
        number: which of the lines it is.
        aside: per cent by which it is moved, lest whiskers cover one another.
        y: the height of a value.
    """
    found = [
        Point(round(across.at(p.x) + aside, 2), y(p.y), y(p.y - p.spread), y(p.y + p.spread), p.says)
        for p in sorted(points, key=lambda point: point.x)
    ]
    return Line(name, number % COLOURS, number % MARKERS, tuple(found))


def chart(
    lines: Mapping[str, Sequence[Measure]],
    names: tuple[str, str, str],
    show: tuple[Callable[[float], str], Callable[[float], str]],
    *,
    marks: Sequence[float] = (),
    strong: str | None = None,
) -> Chart:
    """Return lines over a logarithmic axis.

    Args:
        names: what it shows; what is across; what is up.
        show: how values are written across and up.
        marks: heights that are marked from left to right.
        strong: the line that stands out.
    """
    every_one = [point for points in lines.values() for point in points]
    xs = sorted({point.x for point in every_one})
    across = Axis.over(xs, logarithmic=True)
    ends = [point.y + sign * point.spread for point in every_one for sign in (-1, 1)]
    up = Axis.over([*ends, *marks])

    def y(value: float) -> float:
        return round(8 + (TALL - 16) * (1 - up.share(value)), 1)

    drawn = [
        _line(name, points, number, (number - (len(lines) - 1) / 2) * min(1.2, 6 / len(lines)), across, y)
        for number, (name, points) in enumerate(lines.items())
    ]
    drawn = [replace(line, strong=line.name == strong) for line in drawn]
    columns = tuple(Tick(across.at(x), show[0](x)) for x in (xs[k] for k in every(len(xs), 8)))
    rows = tuple(Tick(y(value), show[1](value)) for value in up.steps())
    return Chart(*names, tuple(drawn), columns, rows, tuple(map(y, marks)), TALL)
