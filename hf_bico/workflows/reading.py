"""Which split samples are drawn from and which is scored, and what the samples are asked."""

from collections.abc import Mapping
from dataclasses import dataclass

from hf_bico.core.errors import PortError, setting
from hf_bico.core.notes import note
from hf_bico.families import Purpose
from hf_bico.io.hub import Hub
from hf_bico.io.reference import Pinned
from hf_bico.tasks.labels import READ_WHOLE
from hf_bico.tasks.samples import EVAL_SPLITS, Task, read_task
from hf_bico.tasks.slices import HELD, REST, Part
from hf_bico.tasks.splits import HubDataset, Split
from hf_bico.tasks.usable import labelled
from hf_bico.workflows.choices import ReadingChoices


@dataclass(frozen=True)
class Parts:
    """The split that samples are drawn from, and those that may be scored, the first that has labels."""

    drawn: str
    scored: tuple[str, ...]


def dataset_of(config: ReadingChoices, hub: Hub, pinned: Pinned) -> HubDataset:
    """Return the dataset as a config reads it; no rows are read yet."""
    return HubDataset(hub, pinned, config.config, streaming=config.streaming)


def parts_of(dataset: HubDataset, drawn: str, scored: str | None) -> Parts:
    """Return the splits that are meant. Where there is none to score beside the one that samples are drawn from, some
    rows of that are held out; said.

    Args:
        drawn: the split that samples are to be drawn from.
        scored: the one to score on, if one is named.

    Raises:
        PortError: both are one split, or a slice is all there is.
    """
    base = Part.of(drawn)
    if scored is not None:
        if scored == drawn:
            raise PortError(
                f"{setting('eval_split')} {scored} is what the calibration samples are drawn from: leave it out, so "
                "that rows are held out where there is no other split, or name another part of it, such as "
                f"{base.base}[80%:] beside {setting('split')} {base.base}[:80%]"
            )
        return Parts(drawn, (scored,))
    if base.part == REST:
        return Parts(drawn, (str(Part(base.base, HELD)),))
    if found := _evaluated(dataset, base.base):
        return Parts(drawn, found)
    if base.part is not None:
        raise PortError(
            f"no split to evaluate on beside {drawn!r}: name one with {setting('eval_split')}, such as the rest of "
            f"{base.base!r} as a slice; {dataset.pinned} has {', '.join(dataset.splits)}"
        )
    return Parts(str(Part(drawn, REST)), (_held_out(dataset, drawn, "eval_split"),))


def scored_parts(dataset: HubDataset, named: str | None) -> tuple[str, ...]:
    """Return the splits of which the first that has labels is scored, of a model that is not calibrated: those that a
    port would be scored on.

    Args:
        named: the one that is asked for, if any.

    Raises:
        PortError: none is named, and it is not plain which is meant.
    """
    if named is not None:
        return (named,)
    if found := _evaluated(dataset, None):
        return found
    name = task_split(dataset)
    if name != "train" and len(dataset.splits) > 1:
        raise PortError(
            f"{dataset.pinned} has no test or validation split: name one with {setting('split')}; it has "
            f"{', '.join(dataset.splits)}"
        )
    return (_held_out(dataset, name, "split"),)


def _evaluated(dataset: HubDataset, drawn: str | None) -> tuple[str, ...]:
    return tuple(name for name in EVAL_SPLITS if name in dataset.splits and name != drawn)


def _held_out(dataset: HubDataset, name: str, chooses: str) -> str:
    """Return the part of a split that is scored where there is no other, and say so.

    Args:
        chooses: the setting that names another.
    """
    held = str(Part(name, HELD))
    others = [each for each in dataset.splits if each != name]
    mend = f"; {setting(chooses)} names another split ({', '.join(others)})" if others else ""
    if name in dataset.splits:  # else it is refused where it is read
        beside = "no test or validation split" + (f" beside {name!r}" if name in EVAL_SPLITS else "")
        note(f"{dataset.pinned} has {beside}: one in five rows of {name!r} is held out to score on ({held}){mend}")
    return held


def task_split(dataset: HubDataset) -> str:
    """Return the split that a task is read from where none is named: the training split, or the first there is."""
    return "train" if "train" in dataset.splits or not dataset.splits else dataset.splits[0]


def read_split(
    config: ReadingChoices, dataset: HubDataset, name: str, named: Mapping[str, str], purpose: Purpose | None = None
) -> tuple[Split, Task]:
    """Return the rows of a split that samples can be drawn from, and the task.

    Args:
        named: role → column, where the user says so.
        purpose: what the model is for, where that is known.

    Raises:
        PortError: there is no such split, or it holds no task.
    """
    split = dataset.split(name)
    task = asked_of(config, dataset, name, split, named, purpose)
    return labelled(split, name, task), task


def asked_of(
    config: ReadingChoices,
    dataset: HubDataset,
    name: str,
    split: Split,
    named: Mapping[str, str],
    purpose: Purpose | None = None,
) -> Task:
    """Return the task of a split. Its classes are those of the whole split, of which a part may have fewer; see
    `read_split` for the arguments.

    Args:
        split: the rows of the split, or of the part, called `name`.
    """
    part = Part.of(name)
    whole = split if part.part is None or config.streaming else dataset.split(part.base)
    return read_task(dataset, whole if whole.num_rows <= READ_WHOLE else split, named, config.templates, purpose)
