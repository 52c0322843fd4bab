"""What is known of two bases, to be aligned without a fine-tune, before any weight is read."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from hf_bico.core.errors import PortError, setting
from hf_bico.core.method import Method
from hf_bico.core.methods import METHODS, method_of
from hf_bico.core.types import Signal
from hf_bico.families import Answer, Library, Purpose, PurposeKind, Transformers
from hf_bico.families.heads import HeadKind
from hf_bico.families.purposes import kind_of
from hf_bico.io.checkpoints import pick_device
from hf_bico.io.hub import Hub
from hf_bico.io.maps.files import MAPS_FILE
from hf_bico.io.models import PortModels, bases
from hf_bico.io.outside import at
from hf_bico.io.reference import Lineage, Pinned
from hf_bico.io.writer import require_room
from hf_bico.tasks.columns import SampleKind, parse_columns
from hf_bico.tasks.requirements import head_of, read_bank, require_task
from hf_bico.tasks.samples import Task
from hf_bico.workflows.config import AlignConfig
from hf_bico.workflows.destination import Purport, destination_of
from hf_bico.workflows.early import require_choices
from hf_bico.workflows.plan import Plan, SamplePlan, calibration_of, drawn_from, matching_of, paired
from hf_bico.workflows.reading import dataset_of, read_split

CLASSIFIERS = {
    SampleKind.IMAGE: "ForImageClassification",
    SampleKind.TEXT: "ForSequenceClassification",
    SampleKind.PAIR: "ForSequenceClassification",
    SampleKind.TAGS: "ForTokenClassification",
    SampleKind.SPAN: "ForQuestionAnswering",
    SampleKind.SOUND: "ForAudioClassification",
}
"""Kind of labelled samples → how the name of a model class that answers them ends."""
PROBLEMS = {
    Answer.CLASS: "single_label_classification",
    Answer.CLASSES: "multi_label_classification",
    Answer.NUMBER: "regression",
}
"""What labels mean → what transformers calls that in a config."""


def make_bases_plan(config: AlignConfig, hub: Hub) -> Plan:
    """Return the plan of an alignment, checked as far as that needs no weights; its source is the base itself.

    Raises:
        PortError: whatever is wrong, before any heavy work.
    """
    method = method_of(config.method, config.method_options)
    require_storable(method)
    require_choices(config)
    device, named, calibration = pick_device(config.device), parse_columns(config.columns), calibration_of(config)
    a, b = (hub.resolve(name) for name in (config.base, config.target))
    lineage = Lineage(a, a, b, hub.resolve(config.dataset, "dataset"))
    dataset = dataset_of(config, hub, lineage.dataset)
    split, task = read_split(config, dataset, config.split, named, _seeing(a, hub))
    library, purpose, models = bases((a, b), hub, config.family, partial(purpose_of, config.head, task))
    head = base_head(config.head, purpose, task)
    require_task(purpose, task, lineage, method)
    bank = read_bank(config.bank, {config.method: method}, library, purpose, task)
    calibration, labels = drawn_from(split, config.split, task, calibration)
    require_room(config.output, 0, overwrite=config.overwrite)
    found = paired(library, purpose, (models[0], *models), head, matching_of(config), device)
    method.check(found.pairs)
    if any(pair.target.expert is not None for pair in found.pairs):
        raise PortError(
            "the maps of experts cannot be kept: which of them meet is found anew by every port; port at once"
        )
    if head is HeadKind.RIDGE:
        top = models[0].family.head_sites(models[0].skeleton)
        found = replace(found, layers=replace(found.layers, fresh=top[len(found.layers.moved) :]))
    samples = SamplePlan(
        dataset, config.split, split, labels, task, calibration, bank, config.max_length, config.batch_size
    )
    left = unreachable(found, method)
    destination = destination_of(_purport(lineage, hub), hub, config)
    return Plan(lineage, found.without(left), samples, method, destination=destination, left=left)


def _seeing(base: Pinned, hub: Hub) -> Purpose | None:
    """Return the purpose of a base that answers texts with images in them, which says what its samples are; else None,
    for what others are opened for depends on their samples.
    """
    names = hub.json(base, Transformers.config_file).get("architectures") or [""]
    return Purpose(PurposeKind.IMAGE_TEXT) if kind_of(str(names[0])) is PurposeKind.IMAGE_TEXT else None


def require_storable(method: Method) -> None:
    """Refuse a method whose maps cannot be kept.

    Raises:
        PortError: the method has no maps, or they depend on τ.
    """
    if method.why_not_storable is not None:
        able = [name for name, kind in METHODS.items() if kind().why_not_storable is None]
        raise PortError(
            f"the maps of {method.name} cannot be kept: {method.why_not_storable}; take one of {', '.join(able)}"
        )


def purpose_of(head: str | None, task: Task, library: Library, folder: Path) -> Purpose:
    """Return what a base is opened for: what its config says, but a classifier of the dataset's classes if it can be.

    Args:
        head: the one asked for; under a probe the model of features stays as it is.
    """
    said = library.purpose(folder)
    if not isinstance(library, Transformers):
        return said
    if said.kind is PurposeKind.MASKED_LM and not task.columns.labels:
        return library.adapted(folder, "FEATURE_EXTRACTION", None)
    encoder = said.kind in (PurposeKind.FEATURES, PurposeKind.MASKED_LM) or said.kind.has_head
    alone = (said.architecture or "").endswith("EncoderModel")
    probed = head == HeadKind.PROBE
    if not encoder or alone or probed or not task.columns.labels or task.columns.kind not in CLASSIFIERS:
        return said
    labels = task.class_names or (("LABEL_0",) if task.labels.answer is Answer.NUMBER else ())
    wanted = library.adapted(folder, None, CLASSIFIERS[task.columns.kind], len(labels))
    problem = {"problem_type": PROBLEMS[task.labels.answer]} if task.labels.answer in PROBLEMS else {}
    wanted = replace(wanted, labels=labels, config={**wanted.config, **problem})
    try:
        library.skeleton(folder, wanted)
    except PortError:  # a tower of images or texts that there is no classifier for
        return said
    return wanted


def base_head(named: str | None, purpose: Purpose, task: Task) -> HeadKind:
    """Return the kind of head that gradients are taken under.

    Raises:
        PortError: the one named is not for this model.
    """
    if not purpose.kind.has_head:
        return head_of(named, purpose, task)
    if purpose.kind is PurposeKind.CTC:
        raise PortError(
            f"two bases for {PurposeKind.CTC} have no letters in common, and none can be fitted without a fine-tune: "
            "align them under classes of sounds, or port a fine-tune"
        )
    if named not in (None, HeadKind.RIDGE):
        raise PortError(
            f"{setting('head')} {named} is not for two bases: no fine-tune brings a head, so one is fitted to both "
            f"({HeadKind.RIDGE})"
        )
    return HeadKind.RIDGE


def unreachable(models: PortModels, method: Method) -> dict[str, str]:
    """Return the optional towers that get no maps, each with the reason: layers without partners, or not run."""
    left = dict(models.unpaired)
    if Signal.LABEL_FREE_GRADIENT in method.wanted.signals:
        left |= dict.fromkeys(models.optional_towers, "gradients without labels are not taken of it")
    return left


def _purport(lineage: Lineage, hub: Hub) -> Purport:
    """Return what the push of maps claims to be; it may replace nothing but earlier maps of the same two bases."""
    names = [pinned.name for pinned in (lineage.base, lineage.target)]

    def is_mine(head: Pinned) -> bool:
        said = hub.json(head, MAPS_FILE)
        return [at(said, role, "name") for role in ("source", "target")] == names

    default = "-to-".join(name.split("/")[-1] for name in names) + "-maps"
    return Purport(f"maps from {names[0]} to {names[1]}", default, f"Maps from {names[0]} to {names[1]}", is_mine)
