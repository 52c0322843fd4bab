"""What is known of two bases before any weight is read, where they are to be aligned without a fine-tune."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from hf_bico.core.errors import PortError
from hf_bico.core.methods import method_of
from hf_bico.core.types import Signal
from hf_bico.families import Library, Purpose
from hf_bico.families.heads import PROBE, RIDGE
from hf_bico.io.hub import Hub
from hf_bico.io.maps.files import MAPS_FILE
from hf_bico.io.maps.stored import require_maps
from hf_bico.io.models import bases, optional_towers
from hf_bico.io.reference import Lineage, Pinned
from hf_bico.io.writer import require_room
from hf_bico.tasks.columns import SampleKind
from hf_bico.tasks.requirements import head_of, read_bank, require_task
from hf_bico.tasks.samples import Task
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.destination import Destination, push_is_wanted, repo_to_push_to
from hf_bico.workflows.plan import Sampled, asked, check_options, drawing, outline_of

CLASSIFIERS = {
    SampleKind.IMAGE: "ForImageClassification",
    SampleKind.TEXT: "ForSequenceClassification",
    SampleKind.PAIR: "ForSequenceClassification",
}
"""Labelled samples → the end of the name of the class that tells them apart."""


@dataclass(frozen=True)
class Plan:
    """What is known of an alignment before any weight is read."""

    sampled: Sampled
    """Its source is the base itself."""
    left: dict[str, str]
    """Tower → why its layers have no maps."""
    destination: Destination | None


def draft(config: PortConfig, hub: Hub) -> Plan:
    """Everything that can be checked without weights.

    Raises:
        PortError: whatever is wrong, before any heavy work.
    """
    method = method_of(config.method, config.method_options)
    require_maps(method)
    if config.output is None:
        raise PortError("maps are kept in a folder: name it with --output")
    check_options(config)
    a, b = (hub.resolve(name) for name in (config.source, config.target))
    lineage = Lineage(a, a, b, hub.resolve(config.dataset, "dataset"))
    dataset, split, task = asked(config, hub, lineage.dataset)
    library, purpose, models = bases((a, b), hub, config.family, partial(purpose_of, config.head, task))
    head = base_head(config.head, purpose, task)
    require_task(purpose, task, lineage, method)
    bank = read_bank(config.bank, {config.method: method}, library, purpose, task)
    calibration, labels = drawing(config, split, task)
    require_room(config.output, 0)
    found = outline_of(config, library, purpose, (models[0], *models), head, method, tuned=False)
    if head == RIDGE:
        top = models[0].family.head_sites(models[0].skeleton)
        found = replace(found, head_layers=replace(found.head_layers, fresh=top[len(found.head_layers.moved) :]))
    sampled = Sampled(
        **vars(found),
        lineage=lineage,
        calibration=calibration,
        bank=bank,
        dataset=dataset,
        split=split,
        labels=labels,
        task=task,
        max_length=config.max_length,
    )
    sampled, left = _reachable(sampled)
    return Plan(sampled, left, _destination(config, lineage, hub))


def purpose_of(head: str | None, task: Task, library: Library, folder: Path) -> Purpose:
    """What a base is opened for: what its config says, but a classifier of the dataset's classes where it can be one.

    Args:
        head: that was asked for; a probe is for the model of features as it is.
    """
    said = library.purpose(folder)
    if said.kind == "masked-lm" and not task.class_names:
        return library.adapted(folder, "FEATURE_EXTRACTION", None)
    encoder = said.kind in ("features", "masked-lm") or said.kind.endswith("classification")
    alone = (said.architecture or "").endswith("EncoderModel")
    if not encoder or alone or head == PROBE or not task.class_names or task.columns.kind not in CLASSIFIERS:
        return said
    wanted = library.adapted(folder, None, CLASSIFIERS[task.columns.kind], len(task.class_names))
    wanted = replace(wanted, labels=task.class_names)
    try:
        library.skeleton(folder, wanted)
    except PortError:  # a tower of images or texts that there is no classifier for
        return said
    return wanted


def base_head(named: str | None, purpose: Purpose, task: Task) -> str:
    """The head that gradients are taken under.

    Raises:
        PortError: it is not one for this model.
    """
    if not purpose.kind.endswith("classification"):
        return head_of(named, purpose, task)
    if named not in (None, RIDGE):
        raise PortError(
            f"--head {named} is not for two bases: no fine-tune brings a head, so one is fitted to both ({RIDGE})"
        )
    return RIDGE


def _reachable(plan: Sampled) -> tuple[Sampled, dict[str, str]]:
    """Without towers that need not run and whose layers cannot be paired, or are not run; and why."""
    left = dict(plan.unpaired)
    if Signal.LABEL_FREE_GRADIENT in plan.method.signals:
        left |= dict.fromkeys(optional_towers(plan), "gradients without labels are not taken of it")
    return replace(plan, pairs=tuple(pair for pair in plan.pairs if pair.target.tower not in left)), left


def _destination(config: PortConfig, lineage: Lineage, hub: Hub) -> Destination | None:
    """Where to push maps; onto nothing but earlier maps of the same two bases."""
    if not push_is_wanted(config.push, config.push_to, config.private, config.create_pr, config.commit_message):
        return None
    names = [pinned.name for pinned in (lineage.base, lineage.target)]

    def is_mine(head: Pinned) -> bool:
        said = hub.json(head, MAPS_FILE)
        return [said.get(role, {}).get("name") for role in ("source", "target")] == names

    default = "-to-".join(name.split("/")[-1] for name in names) + "-maps"
    return repo_to_push_to(
        hub,
        config.push_to,
        default,
        private=config.private,
        create_pr=config.create_pr,
        is_mine=is_mine,
        what=f"maps from {names[0]} to {names[1]}",
    )
