"""Other datasets on which the target is scored without and with a port, to see what it may have broken."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hf_bico.core.errors import PortError, setting
from hf_bico.families.heads import HeadKind
from hf_bico.io.hub import Hub
from hf_bico.io.models import PortModels
from hf_bico.io.reference import Pinned
from hf_bico.tasks.asked import Asked, check_answers, class_order, objective_of
from hf_bico.tasks.embeddings import Embedding
from hf_bico.tasks.requirements import head_of
from hf_bico.tasks.samples import Task
from hf_bico.tasks.splits import HubDataset
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.reading import read_split, scored_parts
from hf_bico.workflows.scored import ScoringPlan, scoring_of


@dataclass(frozen=True)
class Other:
    """Another dataset, and what of it is scored."""

    pinned: Pinned
    config: str | None
    task: Task
    scoring: ScoringPlan

    def key(self) -> list[object]:
        """Return what tells its samples from all others."""
        scoring = self.scoring
        return [self.pinned.name, self.pinned.commit, self.config, scoring.name, scoring.n, scoring.seed]

    def asks(self, asked: Asked, models: PortModels, max_length: int) -> Asked:
        """Return a target with what it is asked of these samples; a zero-shot head is made of it as it is."""
        made = objective_of(asked.loaded, models.library, models.purpose, self.task, max_length, text_moves=False)
        if isinstance(made, Embedding) and isinstance(asked.objective, Embedding):
            made = replace(made, dense=asked.objective.dense)
        return replace(asked, objective=made)


def elsewhere_of(config: PortConfig, hub: Hub, models: PortModels, own: Pinned) -> tuple[Other, ...]:
    """Return the other datasets that were asked for.

    Args:
        own: the port's own dataset.

    Raises:
        PortError: one cannot be read, or is the port's own, or the port's model cannot be asked of it.
    """
    return tuple(_opened(name, config, hub, models, own) for name in config.also)


def _opened(name: str, config: PortConfig, hub: Hub, models: PortModels, own: Pinned) -> Other:
    if models.head in (HeadKind.PROBE, HeadKind.NONE):
        raise PortError(
            f"{setting('also')} {name}: a model of features has no score of its own there; leave it out, or give "
            f"a {setting('dataset')} of pairs"
        )
    pinned = hub.resolve(name, "dataset")
    if (pinned.name, pinned.commit, pinned.folder) == (own.name, own.commit, own.folder):
        raise PortError(f"{setting('also')} {name}: the port is scored on it anyway: name another dataset")
    dataset = HubDataset(hub, pinned, streaming=config.streaming)
    parts = scored_parts(dataset, None)
    _, task = read_split(replace(config, templates=None), dataset, parts[0], {}, models.purpose)
    if head_of(None, models.purpose, task) is HeadKind.PROBE:
        raise PortError(
            f"{setting('also')} {name}: samples of {task.columns.kind} have no score for a model of features"
        )
    if task.class_names and models.purpose.labels and models.head is not HeadKind.ZERO_SHOT:
        class_order(task.class_names, models.purpose.labels)
    scoring = scoring_of(config, parts, dataset, task, config.seed)
    return Other(pinned, dataset.config, task, scoring)


def check_elsewhere(asked: Asked, others: Sequence[Other]) -> None:
    """Refuse rows of which nothing can be asked; see `check_answers`."""
    for other in others:
        scoring = other.scoring
        check_answers(asked, scoring.split, scoring.name, scoring.indices, other.task)
