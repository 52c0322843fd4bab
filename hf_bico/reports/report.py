"""What a reader needs to judge a result and to make it again; written as `hf_bico.json`."""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from hf_bico.core.account import Left
from hf_bico.core.errors import PortError
from hf_bico.core.riders import Rode
from hf_bico.core.transport import Moved
from hf_bico.io.changes.delta import REPORT_FILE
from hf_bico.reports.opening import Opening
from hf_bico.reports.plain import from_plain, maybe, to_plain
from hf_bico.reports.records import (
    CalibrationRecord,
    Environment,
    HeadRecord,
    LayerRow,
    MatchingRecord,
    Measured,
    MethodRecord,
    Origin,
    TaskVectorRecord,
    TaughtRecord,
    UnlabelledRecord,
)
from hf_bico.reports.worth import Scored, Worth
from hf_bico.tasks.paired import ClassChange, Paired
from hf_bico.tasks.scores import Score, better, recovered

SCHEMA = 4
OLDEST = 3
"""The oldest schema that is read."""


@dataclass(frozen=True)
class Elsewhere:
    """Scores on another dataset, to see what a port may have broken."""

    dataset: Origin
    split: str
    zero_shot: Score
    ported: Score
    paired: Paired | None = None
    """The port against the target without it."""


@dataclass(frozen=True)
class Evaluation:
    """Scores on a split that the calibration did not see."""

    split: str
    source: Score
    zero_shot: Score
    naive: Score
    ported: Score
    comparable: bool = True
    """Whether the source's score is on the same scale."""
    bico: Score | None = maybe()
    """The paper's method, where the port's was chosen among several."""
    dtype: str | None = maybe()
    """What the models ran in by autocast, as torch names it; None for the dtype of their weights."""
    paired: tuple[Paired, ...] | None = maybe()
    """The port against the target without it, the naive copy, the source and, where it is there, the paper's method."""
    classes: tuple[ClassChange, ...] | None = maybe()
    """What the port did to every class, where samples have one."""
    elsewhere: tuple[Elsewhere, ...] | None = maybe()
    """Scores on other datasets."""
    overlapping: int = 0
    """How many samples of the split were not scored, for they are among those that the port was made from."""

    def __repr__(self) -> str:
        scores = ", ".join(f"{name} {getattr(self, name)}" for name in ("source", "zero_shot", "naive", "ported"))
        return f"Evaluation({self.ported.metric} on {self.ported.n} of {self.split!r}: {scores})"

    @property
    def rows(self) -> list[tuple[str, Score]]:
        """The scores with what they are of, in the order they are shown."""
        paper = [("target + τ by bico, the paper's method", self.bico)] if self.bico else []
        return [
            ("fine-tuned source, on its own base", self.source),
            ("target without the port", self.zero_shot),
            ("target + naive copy of τ", self.naive),
            *paper,
            ("target + ported τ", self.ported),
        ]

    @property
    def scored(self) -> Scored:
        """What the verdict goes by."""
        baselines = {"naive": self.naive} | ({"bico": self.bico} if self.bico else {})
        return Scored(self.source if self.comparable else None, self.zero_shot, self.ported, baselines)

    @property
    def regressed(self) -> bool:
        """Whether the target without the port is better."""
        return better(self.zero_shot, self.ported)

    @property
    def recovered(self) -> float | None:
        """Share of the way from the target without the port to the source's score; None where there is no way up."""
        if not self.comparable:
            return None
        return recovered(self.ported.value, self.zero_shot.value, self.source.value, self.ported.metric)


@dataclass
class Clock:
    """Seconds of every stage of a run."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str):
        """Add the time that the block takes to a stage's; a stage may have several blocks."""
        start = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


@dataclass(frozen=True, kw_only=True)
class Report:
    """What all reports have: a record that is written as JSON and read back into the same type."""

    lineage: dict[str, Origin] | None
    """Role → where it came from: source, base, target and, where there were samples, dataset."""
    environment: Environment | None = maybe()
    notes: tuple[str, ...] | None = maybe()
    """What was read in another way than its owner may think, a line each."""
    schema: int = SCHEMA
    hf_bico: str = field(default_factory=lambda: version("hf-bico"))
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat("T", "seconds"))

    def __repr__(self) -> str:
        models = [self.lineage[role].name for role in ("source", "target")] if self.lineage else []
        return f"{type(self).__name__}({', '.join(filter(None, (' → '.join(models), self.created)))})"

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON data: first schema, version and date, as in every file of ours."""
        found = to_plain(self)
        first = {name: found.pop(name) for name in ("schema", "hf_bico", "created")}
        return first | found

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Return the report that `to_json` gave as data, also of an older schema.

        Raises:
            PortError: the data is no such report.
        """
        schema = data.get("schema")
        if not isinstance(schema, int) or not OLDEST <= schema <= SCHEMA:
            raise PortError(f"it has the schema {schema!r}; this version reads {OLDEST} to {SCHEMA}")
        return from_plain(cls, _upgraded(data))


@dataclass(frozen=True, kw_only=True, repr=False)
class PortReport(Report):
    """What is told of a port, from repos or between live models."""

    lineage: dict[str, Origin]
    command: str | None = maybe()
    """What makes the port again; a port between live models has none."""
    live: bool | None = maybe()
    """Whether the models were in memory."""
    method: MethodRecord
    calibration: CalibrationRecord
    task_vector: TaskVectorRecord
    layers: tuple[LayerRow, ...]
    matching: MatchingRecord | None = maybe()
    head: HeadRecord
    moved: tuple[Moved, ...]
    beside: tuple[Rode, ...] | None = maybe()
    """What moved beside the linear maps."""
    left: tuple[Left, ...]
    roles: tuple[str, ...] | None = maybe()
    """How the roles of layers were found, model by model, where no table says them."""
    evaluation: Evaluation | None = maybe()
    verdict: Worth | None = maybe()
    """What the port is worth by its scores; reports that were written before have none."""
    estimate: dict[str, Any] | None = maybe()
    """What the port was expected to cost, and what it did cost."""
    delta: dict[str, Any] | None = maybe()
    """What is needed to open a delta repo; see `hf_bico.io.changes.delta.DeltaRecord`."""
    alpha: float | None = maybe()
    """The α that a live port was written at."""
    polish: TaughtRecord | None = maybe()
    """How the port was trained, or trained further; None where nothing was trained."""
    unlabelled: UnlabelledRecord | None = maybe()
    """The samples without labels that were taken beside the calibration samples, if any."""
    scores: tuple[Measured, ...] | None = maybe()
    """What the author of a live port measured."""
    opening: Opening | None = maybe()
    """How the port is opened, and used; reports that were written before do not say."""
    licenses: tuple[str, ...] | None = maybe()
    """Of the target, then of the source, each once; live models do not say theirs."""
    languages: tuple[str, ...] | None = maybe()
    """Languages of the source and the target, as their cards say."""

    def to_json(self) -> dict[str, Any]:
        found, evaluation = super().to_json(), self.evaluation
        if evaluation:
            found["evaluation"] |= {"recovered": evaluation.recovered, "regressed": evaluation.regressed}
        return found


@dataclass(frozen=True, kw_only=True, repr=False)
class CheckReport(Report):
    """What is told of a check, as far as it went."""

    lineage: dict[str, Origin]
    models: dict[str, dict[str, Any]] | None = maybe()
    pairs: tuple[LayerRow, ...] | None = maybe()
    task_vector: dict[str, Any] | None = maybe()
    """Where τ lies, in shares of ‖τ‖²."""
    estimate: dict[str, Any] | None = maybe()
    matching: MatchingRecord | None = maybe()
    samples: CalibrationRecord | None = maybe()
    signs: dict[str, float | None] | None = maybe()
    trial: dict[str, Any] | None = None
    scores: dict[str, Score | None] | None = maybe()
    cka: dict[str, list[list[float]]] | None = maybe()
    blocks: list[dict[str, Any]] | None = maybe()
    verdict: dict[str, Any] = field(default_factory=dict)
    """Grade, reasons and what to do next."""


@dataclass(frozen=True, kw_only=True, repr=False)
class CompareReport(Report):
    """What is told of a comparison: every method, α, N and seed on one evaluation split."""

    lineage: dict[str, Origin]
    command: str | None = maybe()
    """What makes one of the ports, without its method, α and samples."""
    evaluation: dict[str, Any]
    reference: dict[str, Any]
    """What ports are measured by: the gap to it, or the gain of it."""
    methods: dict[str, dict[str, Any]]
    """Name → options."""
    calibration: list[dict[str, Any]]
    """One entry per draw, with the scores of the target without a port, of the source, and of the reference."""
    head: str
    task: dict[str, Any]
    rows: list[dict[str, Any]]
    summary: list[dict[str, Any]]
    """One entry per method, α and N, over the seeds."""


@dataclass(frozen=True, kw_only=True, repr=False)
class MapsReport(Report):
    """What is told of maps between two bases; `hf_bico.io.maps.files.MapsRecord` reads what a port needs."""

    lineage: dict[str, Origin] | None = maybe()
    command: str
    source: dict[str, Any]
    """The base that fine-tunes start from, with the fingerprint of its weights."""
    target: dict[str, Any]
    method: MethodRecord
    calibration: dict[str, Any]
    matching: dict[str, Any]
    left: dict[str, str]
    """Tower → why there are no maps of it."""
    files: dict[str, dict[str, Any]]
    maps: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True, repr=False)
class SumReport(Report):
    """What is told of a task vector that was added to a model."""

    lineage: dict[str, Origin] | None = maybe()
    target: str
    """The model that it was added to."""
    alpha: float
    task_vector: dict[str, str]
    """Where the vector comes from."""


def _upgraded(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return JSON data of an older schema as it would be written now.

    Schema 3 kept the scores of a live port by label, without their α.
    """
    scores = data.get("scores")
    if data.get("schema") == OLDEST and data.get("live") and isinstance(scores, Mapping):
        return {**data, "scores": [{"metric": label, "value": value, "alpha": None} for label, value in scores.items()]}
    return dict(data)


def write_report(folder: Path, report: Report) -> None:
    """Write a report into a folder, as hf_bico.json."""
    text = json.dumps(report.to_json(), indent=1, ensure_ascii=False)
    (folder / REPORT_FILE).write_text(text + "\n", encoding="utf-8")


def without_other_models(scores: Sequence[Measured], alpha: float, cut: bool) -> tuple[Measured, ...]:
    """Return the scores of the model that is written, and those of the target without the port.

    Args:
        alpha: the α that is written.
        cut: whether a LoRA is cut, so that the model is another than the one scored, whatever α is.
    """
    return tuple(each for each in scores if each.alpha is None or (each.alpha == alpha and not cut))
