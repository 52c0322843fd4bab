"""What is known of a port before any weight is read: every input pinned, every choice checked."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hf_bico.core.errors import PortError, listed, setting
from hf_bico.core.method import Method
from hf_bico.core.methods import method_of
from hf_bico.core.pairing import Matching, by_index, read_matching, subset
from hf_bico.core.search import AUTO
from hf_bico.core.transport import check_scale
from hf_bico.families import Library, Purpose, PurposeKind, Transformers
from hf_bico.families.beside import MOVING, groups_of
from hf_bico.families.heads import HeadKind
from hf_bico.families.new_tokens import require_moving
from hf_bico.families.riders import LINEAR
from hf_bico.io.adapter import one_kind
from hf_bico.io.aside import new_tokens_of, no_place, note_aside
from hf_bico.io.base_names import base_of
from hf_bico.io.changes.forms import Form, Storage
from hf_bico.io.checkpoints import pick_device
from hf_bico.io.fits import check_models
from hf_bico.io.hub import Hub
from hf_bico.io.maps.stored import StoredMaps, naming_the_maps, open_maps
from hf_bico.io.models import PortModels, RepoModel, head_layers_of, pair_models, repo_models
from hf_bico.io.reference import Lineage, Pinned, require_new_target
from hf_bico.io.writer import require_apart, require_room
from hf_bico.tasks.columns import parse_columns
from hf_bico.tasks.requirements import check_search, head_of, read_bank, require_task
from hf_bico.tasks.samples import Task, check_draw, classes_of
from hf_bico.tasks.splits import HubDataset, Split
from hf_bico.tasks.strategies import Calibration
from hf_bico.workflows.announce import check_announcement
from hf_bico.workflows.choices import (
    CKA,
    INDEX,
    FormChoices,
    MatchingChoices,
    OutputChoices,
    PrecisionChoices,
    SamplingChoices,
)
from hf_bico.workflows.config import PortConfig, TaskChoices
from hf_bico.workflows.destination import Destination, destination_of, is_wanted, purport_of
from hf_bico.workflows.early import require_choices
from hf_bico.workflows.elsewhere import Other, elsewhere_of
from hf_bico.workflows.polish import polish_of
from hf_bico.workflows.reading import dataset_of, parts_of, read_split
from hf_bico.workflows.scored import ScoringPlan, scoring_of
from hf_bico.workflows.unlabelled import Unlabelled, unlabelled_of

STORED = "stored"
"""The dtype of a model's files."""
OF_TEXT = frozenset(
    {
        PurposeKind.TEXT_CLASSES,
        PurposeKind.TOKEN_CLASSES,
        PurposeKind.SPANS,
        PurposeKind.MASKED_LM,
        PurposeKind.CAUSAL_LM,
        PurposeKind.SEQ2SEQ,
    }
)
"""Models that are shown numbers of tokens, which have no dtype to agree with the weights'."""
DEFAULT_N = 100
"""Calibration samples unless told otherwise."""


@dataclass(frozen=True)
class SamplePlan:
    """Which samples will pass through the models, and how."""

    dataset: HubDataset
    name: str
    """Name of the split that they are drawn from."""
    split: Split
    labels: np.ndarray
    """(rows,) the class of every row of the split; zeros where the strategy does not go by class."""
    task: Task
    calibration: Calibration
    bank: tuple[str, ...]
    """General texts for gradients without labels; empty where no method takes them."""
    max_length: int
    """The most tokens of a text."""
    size: int
    """Samples in a batch."""

    @property
    def n(self) -> int:
        """How many samples are drawn."""
        return self.calibration.size(len(self.task.class_names))


@dataclass(frozen=True)
class Plan:
    """What is known of a port before any weight is read."""

    lineage: Lineage
    models: PortModels
    samples: SamplePlan
    method: Method
    scoring: ScoringPlan | None = None
    maps: StoredMaps | None = None
    """The method, where its maps were made before."""
    storage: Storage = Storage()
    licenses: tuple[str, ...] = ()
    """Licences of the target, then of the source, each once."""
    languages: tuple[str, ...] = ()
    destination: Destination | None = None
    left: Mapping[str, str] = field(default_factory=dict)
    """Tower → why its layers have no maps, where bases alone are aligned."""
    trusted: bool = False
    """Whether the base is taken for the source's whatever their weights say."""
    unlabelled: Unlabelled | None = None
    """Which samples without labels are taken beside the others, if any."""
    others: tuple[Other, ...] = ()
    """Other datasets that a port is scored on."""

    @property
    def scored(self) -> ScoringPlan:
        """What models are scored on; a ValueError where bases alone are aligned, which are not scored."""
        if self.scoring is None:
            raise ValueError("bases that are aligned are not scored")
        return self.scoring


def make_port_plan(config: PortConfig, hub: Hub) -> Plan:
    """Return the plan of a port, checked as far as that needs no weights: families, pairs, shapes, data, destination.

    Raises:
        PortError: whatever is wrong, before any heavy work.
    """
    require_choices(config)
    maps = maps_of(config, hub)
    method = maps or method_of(config.method, config.method_options)
    check_alpha(config.alpha)
    plan = make_plan(
        config,
        hub,
        {method.name: method},
        calibration_of(config),
        bank=config.bank,
        maps=maps,
        adding=config.add_tokens,
    )
    with naming_the_maps(maps, plan.lineage.base, plan.lineage.target):
        method.check(plan.models.pairs)
    check_search(config.alpha, plan.models.head)
    check_announcement(config, plan.lineage.source)
    polish_of(config, plan.models)
    samples = plan.samples
    more = unlabelled_of(config, hub, samples.dataset, samples.name, samples.task.columns, plan.models.purpose, method)
    if config.output is not None:
        require_room(config.output, 0, overwrite=config.overwrite)
    storage = storage_of(config, plan.models.library)
    plan = replace(plan, models=replace(plan.models, stored=_as_stored(config, plan.models)))
    plan = _held(plan, storage, config.only)
    if config.add_tokens:
        plan = replace(plan, models=_with_new_tokens(plan.models, storage, hub))
    if storage.form is not Form.MODEL and plan.lineage.target.folder is not None and is_wanted(config):
        raise PortError(
            f"{setting('form')} {storage.form} of a folder cannot be opened by others: push {plan.lineage.target.name} "
            f"and name its repo with {setting('target')}, or push the port {setting('form')} model"
        )
    destination = destination_of(purport_of(plan.lineage, hub, storage.form), hub, config)
    cards = [hub.card(pinned) for pinned in (plan.lineage.target, plan.lineage.source)]
    return replace(
        plan,
        storage=storage,
        licenses=_said(card.license for card in cards),
        languages=_said(card.language for card in cards),
        destination=destination,
        unlabelled=more,
        others=elsewhere_of(config, hub, plan.models, plan.lineage.dataset),
    )


def make_plan(
    config: TaskChoices,
    hub: Hub,
    methods: Mapping[str, Method],
    calibration: Calibration,
    *,
    bank: Path | None,
    maps: StoredMaps | None = None,
    adding: bool = False,
) -> Plan:
    """Return the plan that a port, a check and a comparison share; its method is the first of the methods.

    Args:
        adding: whether tokens are to be added to the target's tokenizer.

    Raises:
        PortError: whatever is wrong, before any heavy work. Pairs are left to the `check` of each method.
    """
    method = next(iter(methods.values()))
    device, named = pick_device(config.device), parse_columns(config.columns)
    lineage = resolve(config, hub)
    if isinstance(config, OutputChoices) and config.output is not None:  # a card may name a folder as its base
        require_apart(config.output, (each.folder for each in lineage.models))
    library, purpose, models = repo_models(lineage.models, hub, config.family)
    dataset = dataset_of(config, hub, lineage.dataset)
    parts = parts_of(dataset, config.split, config.eval_split)
    split, task = read_split(config, dataset, parts.drawn, named, purpose)
    head = head_of(config.head, purpose, task)
    for each in methods.values():
        require_task(purpose, task, lineage, each)
    prompts = read_bank(bank, methods, library, purpose, task)
    calibration, labels = drawn_from(split, parts.drawn, task, calibration)
    samples = SamplePlan(
        dataset, parts.drawn, split, labels, task, calibration, prompts, config.max_length, config.batch_size
    )
    scoring = scoring_of(config, parts.scored, dataset, task, calibration.seed)
    note_aside(models, purpose.kind, hub, adding=adding)
    with naming_the_maps(maps, lineage.base, lineage.target):
        found = paired(
            library, purpose, models, head, matching_of(config, method.matching), device, groups_of(config.only)
        )
    return Plan(lineage, found, samples, method, scoring, maps, trusted=config.trust_base)


def resolve(config: TaskChoices, hub: Hub) -> Lineage:
    """Return source, base, target and dataset as commits. The base is the one named, else that of the source's card.

    Raises:
        PortError: any of them cannot be found, or no base is known.
    """
    source, base, target = resolve_models(config, hub)
    return Lineage(source, base, target, hub.resolve(config.dataset, "dataset"))


def resolve_models(config: TaskChoices, hub: Hub) -> tuple[Pinned, Pinned, Pinned]:
    """Return source, base and target as commits.

    Raises:
        PortError: any of them cannot be found, or no base is known; the target is one of the other two.
    """
    whole = hub.resolve(config.source)
    source = one_kind(whole, config.source_kind, config.subfolder)
    base = config.base or base_of(source, hub, whole.inside(config.subfolder) if config.subfolder else whole)
    found = source, hub.resolve(base), hub.resolve(config.target)
    require_new_target(*found)
    return found


def maps_of(config: PortConfig, hub: Hub) -> StoredMaps | None:
    """Return the maps that were asked for, if any; of their files the JSON alone is read.

    Raises:
        PortError: there are choices of how maps are made, and these are made already.
    """
    if config.maps is None:
        return None
    given = {"method_options": config.method_options, "bank": config.bank, "matching": config.matching != INDEX}
    odd = [setting(name) for name, value in given.items() if value]
    if odd:
        raise PortError(f"{setting('maps')} brings maps that are made already: leave out {listed(odd)}")
    found = open_maps(config.maps, hub)
    if config.method not in (found.name, PortConfig.method):  # what is meant where none is named
        raise PortError(
            f"{found.where} were made by {found.name}, not by {config.method}: leave out {setting('method')}"
        )
    return found


def _held(plan: Plan, storage: Storage, only: str | None) -> Plan:
    """Return the plan without what its form cannot hold: PEFT's adapters hold linear maps alone.

    Raises:
        PortError: something else is asked for, or there are experts in stacks.
    """
    if storage.form is Form.MODEL or not isinstance(plan.models.library, Transformers):
        return plan
    if any(pair.target.weight.at is not None for pair in plan.models.pairs):
        raise PortError(
            f"a {storage.form} of transformers holds linear layers alone, and a layer's experts are one parameter; "
            f"write {setting('form')} model"
        )
    others = plan.models.groups - {LINEAR}
    if only is not None and others:
        raise PortError(
            f"{setting('only')} {only}: a {storage.form} of transformers holds linear maps alone; write "
            f"{setting('form')} model for {', '.join(sorted(others))}"
        )
    return replace(plan, models=replace(plan.models, groups=frozenset({LINEAR})))


def _with_new_tokens(models: PortModels, storage: Storage, hub: Hub) -> PortModels:
    """Return the models with the tokens that the target is to be given.

    Raises:
        PortError: there are none, or the form or the kinds of tensors that move have no place for them.
    """
    if storage.form is not Form.MODEL:
        raise PortError(no_place(storage.form))
    require_moving(models.groups)
    return replace(models, new=new_tokens_of(models, hub))


def _as_stored(config: PrecisionChoices, models: PortModels) -> bool:
    """Return whether models are held in the dtype of their files.

    Raises:
        PortError: no such choice, or models that are shown numbers, which would have to be of that dtype too.
    """
    if config.model_dtype not in (STORED, PrecisionChoices.model_dtype):
        raise PortError(f"{setting('model_dtype')} {config.model_dtype!r}: give float32 or {STORED}")
    stored = config.model_dtype == STORED
    if stored and not (isinstance(models.library, Transformers) and models.purpose.kind in OF_TEXT):
        raise PortError(f"{setting('model_dtype')} {STORED} is of models of text alone: leave it out")
    return stored


def storage_of(config: FormChoices, library: Library) -> Storage:
    """Return how a port is written.

    Raises:
        PortError: it cannot be written so.
    """
    return Storage.of(config.form, config.rank, config.energy, config.dtype, library.name)


def calibration_of(config: SamplingChoices) -> Calibration:
    """Return how samples are drawn.

    Raises:
        PortError: choices that do not go together.
    """
    return Calibration(config.n, config.per_class, config.strategy, config.seed)


def drawn_from(split: Split, name: str, task: Task, calibration: Calibration) -> tuple[Calibration, np.ndarray]:
    """Return how samples are drawn from a split, and the class of every row, (rows,), where the strategy goes by it.

    Raises:
        PortError: the split cannot give them.
    """
    if calibration.n is None and calibration.per_class is None:  # the default, or all there are
        calibration = replace(calibration, n=min(DEFAULT_N, split.num_rows))
    labels = classes_of(split, task, calibration)
    check_draw(name, labels, task, calibration)
    return calibration, labels


def paired(
    library: Library,
    purpose: Purpose,
    models: tuple[RepoModel, ...],
    head: HeadKind,
    matching: Matching,
    device: str,
    groups: frozenset[str] = frozenset(MOVING),
) -> PortModels:
    """Return what moves where between the models.

    Args:
        models: the fine-tune, the base and the target; the base in the fine-tune's place where there is none.
        groups: kinds of tensors that move.

    Raises:
        PortError: weights that do not fit, layers without a partner.
    """
    tuned, base, target = models
    layers = head_layers_of(base, target, head, purpose)
    check_models(library, models, tuned is not base, headed=purpose.kind is not PurposeKind.FEATURES)
    pairs, unpaired = pair_models(base, target, matching)
    return PortModels(
        library=library,
        purpose=purpose,
        tuned=tuned,
        base=base,
        target=target,
        head=head,
        layers=layers,
        pairs=(*pairs, *layers.moved),
        unpaired=unpaired,
        device=device,
        groups=groups,
    )


def matching_of(config: MatchingChoices, found: Matching | None = None) -> Matching:
    """Return the layer matching by the rule, the file, or what was found, without the blocks that are left out."""
    rule = found or (by_index if config.matching in (INDEX, CKA) else read_matching(Path(config.matching)))
    return subset(rule, config.layers, config.skip)


def matching_record(config: MatchingChoices, found: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the rule by which blocks were matched, a file by its name alone, and what CKA found."""
    return {"rule": Path(config.matching).name, "layers": config.layers, "skip": config.skip} | dict(found or {})


def check_alpha(alpha: float | str) -> None:
    """Refuse an α that is neither a finite number nor "auto"."""
    if not isinstance(alpha, str):
        check_scale(alpha)
    elif alpha != AUTO:
        raise PortError(f"{setting('alpha')} is a number or {AUTO}, not {alpha!r}")


def _said(entries: Iterable[Any]) -> tuple[str, ...]:
    """Return the names that cards give for something, a name or a list of them each, every name once."""
    each = [str(name) for entry in entries for name in (entry if isinstance(entry, list) else [entry]) if name]
    return tuple(dict.fromkeys(each))
