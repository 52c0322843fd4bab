"""What a ledger says of a task: before it is run, and by what came of it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hf_bico.workflows.fleet.ledger import Entry, State
from hf_bico.workflows.fleet.tasks import Task

ROWS = ("source", "zero_shot", "naive", "ported")
"""What is scored in a port."""


def fresh(task: Task, before: Entry | None = None) -> Entry:
    """Return the entry of a task that is to be run.

    Args:
        before: its entry so far: the folder that it has made is still its own.
    """
    config, output = task.config, before.output if before else None
    said = (task.key, task.kind, task.source, config.target, task.method, task.command)
    return Entry(*said, dataset=config.dataset, output=output, repo=config.push_to)


def failed(entry: Entry, error: str, code: int | None = None) -> Entry:
    """Return the entry of a task that failed, with the reason in one line."""
    return replace(entry, state=State.FAILED, error=" ".join(error.split()), code=code, stage=None)


def done(entry: Entry, report: Mapping[str, Any], output: str | None, url: str | None) -> Entry:
    """Return the entry of a task that was done, with what its report says."""
    scored = replace(entry, state=State.DONE, code=0, error=None, output=output, url=url, stage=None)
    return with_scores(scored, report)


def with_scores(entry: Entry, report: Mapping[str, Any]) -> Entry:
    """Return an entry with the scores of a port's report; of another report it stays as it is."""
    found = report.get("evaluation")
    if not found:
        return entry
    return replace(
        entry,
        metric=found["ported"]["metric"],
        scores={row: found[row]["value"] for row in ROWS},
        recovered=found["recovered"],
        verdict=report["verdict"]["word"],
    )


def reason(lines: Sequence[str], code: int) -> str:
    """Return why a command failed, by what it said last."""
    if code < 0:
        return f"it was killed by signal {-code}" + (": perhaps the memory is full" if code == -9 else "")
    said = [line.strip() for line in lines if line.strip()]
    told = [line.removeprefix("Error: ") for line in said if line.startswith("Error: ")]
    return told[-1] if told else said[-1] if said else f"it ended with exit code {code} and said nothing"


def is_done(task: Task, entry: Entry | None, pushes: bool) -> bool:
    """Return whether a task needs not be done again: it was, with the same settings, and what was made is there.

    Args:
        pushes: whether what it makes is needed on the Hub; else it is in a folder.
    """
    if entry is None or entry.state is not State.DONE or entry.key != task.key:
        return False
    on_hub = task.config.push_to is not None and entry.url is not None
    place = task.config.output
    return on_hub or (not pushes and place is not None and place.is_dir())
