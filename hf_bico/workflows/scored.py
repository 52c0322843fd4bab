"""What models are scored on: which split, and which of its rows."""

from collections.abc import Sequence
from dataclasses import dataclass

from hf_bico.core.errors import PortError, setting
from hf_bico.core.notes import note
from hf_bico.tasks.samples import Task, check_columns, choose
from hf_bico.tasks.splits import HubDataset, Split
from hf_bico.tasks.usable import UNLABELLED, check_labels, check_rows, class_column, labelled
from hf_bico.workflows.choices import ScoringChoices

HALVES = ("bfloat16", "float16")
"""What autocast runs matrix products in."""


@dataclass(frozen=True)
class ScoringPlan:
    """What models are scored on."""

    name: str
    """Name of the split."""
    split: Split
    n: int | None
    """How many samples of it are drawn; None for all."""
    seed: int
    dtype: str | None = None
    """What models run in by autocast, as torch names it; None for the dtype of their weights."""

    @property
    def indices(self) -> tuple[int, ...]:
        """The rows that are scored."""
        return choose(self.split, self.name, self.size, self.seed)

    @property
    def size(self) -> int:
        """How many samples there are."""
        return self.split.num_rows if self.n is None else self.n


def scoring_of(config: ScoringChoices, names: Sequence[str], dataset: HubDataset, task: Task, seed: int) -> ScoringPlan:
    """Return what models are scored on.

    Args:
        names: the splits that may be scored; the first that has labels is.

    Raises:
        PortError: there is no such split, or it lacks the task's columns or so many rows.
    """
    name = _with_labels(dataset, task, names)
    plan = ScoringPlan(name, scored_split(dataset, name, task, config.eval_n), config.eval_n, seed, dtype_of(config))
    check_labels(plan.split, task)
    check_rows(plan.split, plan.indices, task)
    return plan


def dtype_of(config: ScoringChoices) -> str | None:
    """Return the name of the dtype that models are scored in, if one is asked for.

    Raises:
        PortError: autocast has no such dtype.
    """
    if config.score_dtype not in (None, *HALVES):
        raise PortError(f"{setting('score_dtype')} = {config.score_dtype!r}: autocast takes {' or '.join(HALVES)}")
    return config.score_dtype


def _with_labels(dataset: HubDataset, task: Task, names: Sequence[str]) -> str:
    """Return the first of some splits that has labels; those of competitions' test splits are often withheld.

    Raises:
        PortError: a split lacks the task's columns, or none has labels.
    """
    for number, name in enumerate(names):
        split = dataset.split(name)
        check_columns(split, name, task.columns)
        column = class_column(split, task)
        if column is None or number + 1 == len(names) or set(split.column(column)) - set(UNLABELLED):
            return name
        note(f"no row of the split {name!r} is labelled: scores are taken on {names[number + 1]!r}")
    raise ValueError("no split is given")


def scored_split(dataset: HubDataset, name: str, task: Task, n: int | None) -> Split:
    """Return the rows of a split that can be scored.

    Args:
        n: how many are scored; None: all, so that the files are fetched whole.
    """
    return labelled(dataset.split(name, whole=n is None), name, task)
