"""Where a port is told of beside its own repo: the page of the fine-tune that it takes the place of, and the
leaderboard of a benchmark.
"""

from pathlib import Path
from typing import Any

from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml, metadata_update
from yaml import safe_dump

from hf_bico.core.errors import PortError, setting
from hf_bico.core.notes import note
from hf_bico.io.cards import CARD
from hf_bico.io.hub import Hub
from hf_bico.io.outside import parse_yaml
from hf_bico.io.reference import Pinned, errors_about
from hf_bico.reports.report import PortReport
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.destination import is_wanted

TASKS = "eval.yaml"
"""Where the repo of a benchmark says what its tasks are."""


def check_announcement(config: PortConfig, source: Pinned) -> None:
    """Refuse an announcement that cannot be made.

    Raises:
        PortError: nothing is pushed, or the fine-tune is no repo.
    """
    if not config.announce:
        return
    if not is_wanted(config):
        raise PortError(f"{setting('announce')} tells of what was pushed: add {setting('push')}")
    if source.folder is not None:
        raise PortError(
            f"{setting('announce')} is a pull request to the fine-tune's repo, and {source.name} is a folder"
        )


def announce(hub: Hub, source: Pinned, repo: str) -> str | None:
    """Propose to the owner of a fine-tune that its page names the port as its new version, and return the URL of the
    pull request; None where the page names one already.

    Raises:
        PortError: the Hub refuses.
    """
    said = hub.card(source).new_version if CARD in source.files else None
    if said:
        note(f"{source.name} names {said} as its new version already: it was not told of {repo}")
        return None
    with hub.hub_errors_as_one_line(source.name, source.name, "model"):
        made: Any = metadata_update(
            source.name,
            {"new_version": repo},
            create_pr=True,
            commit_message=f"Name {repo} as the new version",
            commit_description=f"{repo} is this fine-tune carried over to a new base model by hf-bico.",
            token=hub.token,
        )
    return str(made.pr_url)


def write_benchmark(folder: Path, hub: Hub, dataset: Pinned, report: PortReport) -> None:
    """Write the score for the leaderboard of a benchmark, where the Hub lists the dataset as one and it has exactly one
    task of this configuration and split.
    """
    scores = report.evaluation
    if scores is None or dataset.folder is not None or TASKS not in dataset.files:
        return
    if "benchmark:official" not in hub.about(dataset).tags:
        return
    with errors_about(dataset):
        said = parse_yaml((hub.fetch(dataset, (TASKS,)) / TASKS).read_text(encoding="utf-8"), TASKS)
    tasks = said.get("tasks") if isinstance(said, dict) else None
    asked = (report.calibration.config, scores.split)
    mine = [
        each["id"]
        for each in tasks or ()
        if isinstance(each, dict)
        and isinstance(each.get("id"), str)
        and (each.get("config"), each.get("split")) == asked
    ]
    if len(mine) != 1:
        return
    entry = EvalResultEntry(
        dataset_id=dataset.name,
        task_id=mine[0],
        value=round(scores.ported.value, 6),
        dataset_revision=dataset.commit,
        date=report.created,
    )
    place = folder / ".eval_results" / f"{dataset.name.split('/')[-1]}.yaml"
    place.parent.mkdir()
    place.write_text(safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False), encoding="utf-8")
