"""Whose report a JSON is, read as what comes from outside; and the parts that reports keep as plain data, typed."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from hf_bico.core.errors import PortError
from hf_bico.core.types import Fit
from hf_bico.io.maps.files import READ
from hf_bico.reports.page.words import metric_of
from hf_bico.reports.plain import from_plain, to_plain
from hf_bico.reports.report import CheckReport, CompareReport, MapsReport, PortReport, Report
from hf_bico.reports.worth import Worth
from hf_bico.tasks.scores import Score

SIGNS: dict[str, type[Report]] = {
    "summary": CompareReport,
    "maps": MapsReport,
    "moved": PortReport,
    "verdict": CheckReport,
}
"""A key by which a report is told from the others → its type; the first that is there."""


BEYOND = 1e150
"""No number of a report is as large; its square is a number still."""
Record = TypeVar("Record")


def typed(kind: type[Record], data: Any) -> Record:
    """Return JSON data as a record that can be shown.

    Raises:
        PortError: it is no such record; see `sound`.
    """
    return sound(from_plain(kind, data))


def sound(record: Record) -> Record:
    """Return a record whose numbers can be reckoned with, for a text may stand for NaN, and whose metrics are known.

    Raises:
        PortError: it is none.
    """
    waiting: list[Any] = [to_plain(record)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict) and "low" in value and isinstance(value.get("metric"), str):
            metric_of(value["metric"])
        if isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value
        elif isinstance(value, int | float) and not abs(value) < BEYOND:
            raise PortError(f"it has {value} where a number belongs")
    return record


def read(data: Mapping[str, Any]) -> Report:
    """Return the report that JSON data is of.

    Raises:
        PortError: it is none, or of a schema that this version does not read.
    """
    kind = next((kind for key, kind in SIGNS.items() if key in data), None)
    if kind is None or "schema" not in data:
        raise PortError("it is no report of a port, a check, a comparison or maps")
    if kind is not MapsReport:
        return sound(kind.from_json(data))
    if data["schema"] not in READ:
        raise PortError(f"it has the schema {data['schema']!r:.60}; this version reads maps up to {max(READ)}")
    return typed(MapsReport, data)


@dataclass(frozen=True)
class Estimate:
    """What a port was expected to cost."""

    seconds: float
    memory_bytes: float
    n: int | None = None
    method: str = ""
    stages: dict[str, float] = field(default_factory=dict)
    groups: int = 1


@dataclass(frozen=True)
class Scores:
    """What a comparison starts from."""

    split: str
    metric: str
    source: Score
    zero_shot: Score
    dtype: str | None = None


@dataclass(frozen=True)
class Goal(Score):
    """What the ports of a comparison are measured by."""

    what: str = ""
    model: str = ""


@dataclass(frozen=True)
class Entry:
    """A method at an α and an N, over the seeds."""

    method: str
    alpha: float | str
    n: int
    per_class: int | None
    seeds: int
    refusal: str | None
    score: float | None
    recovered: float | None
    recovered_spread: float | None
    seconds: float | None
    shared_seconds: float | None
    peak_bytes: int | None
    verdict: Worth | None
    score_spread: float | None = None
    also: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Drawn:
    """A draw of calibration samples."""

    n: int
    content_sha256: str
    seed: int | None = None
    per_class: int | None = None
    split: str | None = None
    strategy: str | None = None
    indices: tuple[int, ...] = ()
    dataset: str = ""
    commit: str | None = None
    local: bool = False


@dataclass(frozen=True)
class Looked:
    """A model that a check looked at."""

    family: str
    blocks: dict[str, int]
    linear_maps: int
    parameters: int
    purpose: str = ""


@dataclass(frozen=True)
class Stays:
    """What stays behind, for a reason."""

    reason: str
    tensors: int
    share: float


@dataclass(frozen=True)
class Shares:
    """Where τ lies."""

    relative_norm: float
    moved_share: float
    by_role: dict[str, float] = field(default_factory=dict)
    by_block: dict[str, float] = field(default_factory=dict)
    left: tuple[Stays, ...] = ()


@dataclass(frozen=True)
class Block:
    """How alike a block of the target and its partner are."""

    tower: str
    target: int | None
    source: int | None
    cka: float | None = None
    input_residual: float | None = None
    output_residual: float | None = None
    input_rank: float | None = None
    output_rank: float | None = None
    kept: float | None = None
    apart: float | None = None


@dataclass(frozen=True)
class Judged:
    """The verdict of a check."""

    grade: str
    reasons: tuple[str, ...] = ()
    next: str = ""


@dataclass(frozen=True)
class Side:
    """One of the two bases that maps lead between."""

    name: str
    commit: str | None = None
    local: bool = False
    fingerprint: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Mapped:
    """The map of a pair of layers."""

    source: str
    target: str
    tower: str
    blocks: tuple[int | None, int | None]
    shapes: tuple[tuple[int, int], tuple[int, int]]
    output: Fit | None
    input: Fit | None
    scale: float


@dataclass(frozen=True)
class Stored:
    """A file of maps."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Matched:
    """How the blocks of two bases meet."""

    rule: str
    layers: str | None = None
    skip: str | None = None
    paths: dict[str, tuple[int | None, ...] | None] = field(default_factory=dict)
    cka: dict[str, list[list[float]]] = field(default_factory=dict)


def estimate_of(data: Mapping[str, Any] | None) -> tuple[Estimate, Estimate | None] | None:
    """Return what was expected, and what was measured where it was; None of nothing.

    Raises:
        PortError: it is no estimate.
    """
    if data is None:
        return None
    expected, took = typed(Estimate, data), data.get("measured")
    return expected, None if took is None else replace(typed(Estimate, took), n=expected.n)
