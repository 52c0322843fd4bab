"""How a page writes numbers and names."""

from collections.abc import Mapping, Sequence
from typing import Any

from hf_bico.core.errors import PortError
from hf_bico.core.types import Fit
from hf_bico.reports.page.parts import Tile, Word
from hf_bico.tasks.scores import METRICS, Metric, Score

NONE = "–"
TONES = {
    "works": "good",
    "partly": "middling",
    "no gain": "plain",
    "harmful": "bad",
    "good": "good",
    "uncertain": "middling",
    "poor": "bad",
    "impossible": "bad",
}
"""Word of a verdict, or grade of a check → its colour and sign."""


def metric_of(name: str) -> Metric:
    """Return a metric by its name.

    Raises:
        PortError: this version does not know it.
    """
    if name not in METRICS:
        raise PortError(f"it has a score by {name!r:.60}, which this version does not know: install a newer one")
    return METRICS[name]


def word(text: str) -> Word:
    """Return a verdict's word with its colour."""
    return Word(text, TONES.get(text, "plain"))


def percent(value: float | None) -> str:
    """Return a share in per cent."""
    return NONE if value is None else f"{value:.1%}"


def figure(value: float | None, digits: int = 4) -> str:
    """Return a number of so many digits."""
    return NONE if value is None else f"{value:.{digits}g}"


def seconds(value: float | None) -> str:
    """Return a time as readers take it in."""
    if value is None:
        return NONE
    if 0 < value < 0.01:
        return "< 0.01 s"
    if value < 60:
        return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"
    return f"{value / 60:.1f} min" if value < 3600 else f"{value / 3600:.1f} h"


def size(count: float | None) -> str:
    """Return bytes as readers take them in."""
    if count is None:
        return NONE
    units = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))
    unit, name = next((each for each in units if count >= each[0]), units[-1])
    return f"{count / unit:.3g} {name}"


def shape(sides: Sequence[int]) -> str:
    """Return (d_out, d_in)."""
    return "×".join(map(str, sides))


def place(tower: str, depth: int | None) -> str:
    """Return what a block is called."""
    return f"{tower} {'outside the blocks' if depth is None else f'block {depth}'}".strip()


def fitted(fit: Fit | None) -> str:
    """Return how well a side of a map is determined, and how well it matches."""
    return f"rank {fit.rank} of {fit.full}, residual {fit.residual:.3f}" if fit else "as it is"


def options(chosen: Mapping[str, Any]) -> str:
    """Return options as they are written on a command line."""
    return ", ".join(f"{name} = {value}" for name, value in chosen.items()) or "none"


def pinned(name: str, commit: str | None) -> str:
    """Return a repo at its commit."""
    return f"{name}@{commit}" if commit else name


def score_tile(label: str, score: Score, *, marked: bool = False) -> Tile:
    """Return a score as a number at the top."""
    return Tile(label, str(score), f"95 % interval: {score.interval}", marked)
