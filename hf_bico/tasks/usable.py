"""Which rows of a split can be used, and whether all that will be used are right, before any heavy work."""

from collections.abc import Sequence

from hf_bico.core.errors import PortError
from hf_bico.core.notes import note
from hf_bico.families import Answer
from hf_bico.tasks.columns import SampleKind
from hf_bico.tasks.labels import single
from hf_bico.tasks.samples import Task, classes_of, samples_of
from hf_bico.tasks.splits import Kept, Split
from hf_bico.tasks.strategies import Calibration

UNLABELLED = (None, -1)
"""What datasets give a row for a label where nobody labelled it, as in the test splits of competitions."""


def class_column(split: Split, task: Task) -> str | None:
    """Return the column with the class of a row; None where a row has none, or more than one, or a number."""
    name = task.columns.names.get("label")
    return name if name in split.features and task.labels.answer is Answer.CLASS else None


def labelled(split: Split, name: str, task: Task) -> Split:
    """Return a split without the rows that nobody labelled; how many these are is said.

    Args:
        name: the split's.

    Raises:
        PortError: no row is labelled.
    """
    column = class_column(split, task)
    if column is None:
        return split
    values = split.column(column)
    kept = [index for index, value in enumerate(values) if single(value) not in UNLABELLED]
    if len(kept) == len(values):
        return split
    if not kept:
        raise PortError(f"no row of the split {name!r} is labelled (all are −1 or empty): name another split")
    note(f"{len(values) - len(kept)} of {len(values)} rows of the split {name!r} have no label (−1 or empty): left out")
    return Kept(split, kept)


def check_labels(split: Split, task: Task) -> None:
    """Refuse a split with a label that is none of the classes.

    Raises:
        PortError: there is one; its row is named.
    """
    if class_column(split, task) is not None:
        classes_of(split, task, Calibration(per_class=1))


def check_rows(split: Split, indices: Sequence[int], task: Task) -> None:
    """Refuse rows that cannot be samples: empty texts, chats without a turn to ask for. Images are not decoded.

    Raises:
        PortError: there is one; it is named.
    """
    if task.columns.kind is not SampleKind.IMAGE:
        for _ in samples_of(split, indices, task):
            pass
