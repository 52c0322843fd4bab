"""What is told of an evaluation: models that are as they are, on samples of a dataset."""

from dataclasses import dataclass
from typing import Any

from hf_bico.reports.plain import maybe
from hf_bico.reports.records import Origin
from hf_bico.reports.report import Report
from hf_bico.tasks.paired import Paired
from hf_bico.tasks.scores import Score


@dataclass(frozen=True, kw_only=True)
class ModelScore:
    """What a model scored."""

    name: str
    """What it was called."""
    model: Origin
    base: Origin | None = maybe()
    """What a delta or an adapter was opened over."""
    form: str
    """Either "model", "delta" or "adapter"."""
    purpose: str
    score: Score
    paired: Paired | None = maybe()
    """Against the first model on the same samples; None of the first, and where scores are no sums over samples."""


@dataclass(frozen=True, kw_only=True)
class EvalReport(Report):
    """What is told of an evaluation."""

    split: str
    n: int
    """How many samples were scored."""
    seed: int | None = maybe()
    """Of the draw of the samples; None where all were scored."""
    overlapping: int = 0
    """How many samples more were not scored, for one of the models was made from them."""
    config: str | None = None
    """The dataset's configuration."""
    dtype: str | None = maybe()
    """What the models ran in by autocast, as torch names it; None for the dtype of their weights."""
    task: dict[str, Any]
    """Columns, class names and prompts, as the first model was asked."""
    models: tuple[ModelScore, ...]
    """In the order in which they were named."""
