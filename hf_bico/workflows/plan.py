"""What is known of a port before any weight is read: every input pinned, every choice checked."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hf_bico.core.errors import PortError
from hf_bico.core.methods import Method
from hf_bico.core.pairing import Matching, by_index, read_matching, subset
from hf_bico.core.search import AUTO
from hf_bico.core.transport import check_scale
from hf_bico.families import Library, Purpose
from hf_bico.io.changes.forms import MODEL, check_form
from hf_bico.io.checkpoints import pick_device
from hf_bico.io.hub import Hub
from hf_bico.io.maps.stored import StoredMaps, method_for, naming_the_maps
from hf_bico.io.models import (
    Outline,
    RepoModel,
    base_of,
    check_models,
    head_layers_of,
    optional_towers,
    pair_models,
    repo_models,
)
from hf_bico.io.reference import Lineage, Pinned
from hf_bico.io.writer import require_room
from hf_bico.reports.estimate import Estimate, Work, estimate
from hf_bico.tasks.columns import parse_columns
from hf_bico.tasks.requirements import check_search, head_of, read_bank, require_task
from hf_bico.tasks.samples import EVAL_SPLITS, Task, check_columns, check_draw, choose, classes_of, read_task
from hf_bico.tasks.splits import HubDataset, Split
from hf_bico.tasks.strategies import Calibration
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.destination import Destination, destination_of

CKA = "cka"
DEFAULT_N = 100


@dataclass(frozen=True, kw_only=True)
class Sampled(Outline):
    """An outline with the samples that will pass through the models."""

    lineage: Lineage
    calibration: Calibration
    bank: tuple[str, ...]
    """General texts for gradients without labels; empty where the method takes none."""
    dataset: HubDataset
    split: Split
    labels: np.ndarray
    """The class of every row of the split; zeros where the strategy does not ask."""
    task: Task
    max_length: int


@dataclass(frozen=True, kw_only=True)
class Blueprint(Sampled):
    """What is known of a port before any weight is read."""

    eval_name: str
    eval_split: Split
    licenses: tuple[str, ...]
    """Of the target, then of the source, each once."""
    destination: Destination | None


def resolve(config: PortConfig, hub: Hub) -> Lineage:
    """Source, base, target and dataset as commits. The base is the one named, else that of the source's card.

    Raises:
        PortError: any of them is not to be had, or no base is known.
    """
    source = hub.resolve(config.source)
    return Lineage(
        source,
        hub.resolve(config.base or base_of(source, hub)),
        hub.resolve(config.target),
        hub.resolve(config.dataset, "dataset"),
    )


def draft(config: PortConfig, hub: Hub) -> Blueprint:
    """Everything that can be checked without weights: families, pairs, shapes, data, destination.

    Raises:
        PortError: whatever is wrong, before any heavy work.
    """
    method = method_for(config.maps, config.method, config.method_options, config.bank, config.matching, hub)
    check_alpha(config.alpha)
    check_options(config)
    lineage = resolve(config, hub)
    library, purpose, models = repo_models(lineage.models, hub, config.family)
    check_form(config.form, config.rank, config.energy, config.dtype, library.name)
    dataset, split, task = asked(config, hub, lineage.dataset)
    head = head_of(config.head, purpose, task)
    check_search(config.alpha, head)
    require_task(purpose, task, lineage, method)
    bank = read_bank(config.bank, {config.method: method}, library, purpose, task)
    calibration, labels = drawing(config, split, task)
    eval_name = _eval_name(config, dataset)
    eval_split = dataset.split(eval_name)
    check_columns(eval_split, eval_name, task.columns)
    choose(eval_split, eval_name, eval_size(config, eval_split), config.seed)
    if config.output is not None:
        require_room(config.output, 0)
    with naming_the_maps(method, lineage.base, lineage.target):
        found = outline_of(config, library, purpose, models, head, method)
    if config.form != MODEL and lineage.target.folder is not None and (config.push or config.push_to):
        raise PortError(
            f"--as {config.form} of a folder cannot be opened by others: push {lineage.target.name} and "
            "name its repo with --to, or push the port --as model"
        )
    destination = destination_of(
        lineage,
        hub,
        push=config.push,
        push_to=config.push_to,
        private=config.private,
        create_pr=config.create_pr,
        commit_message=config.commit_message,
        form=config.form,
    )
    return Blueprint(
        **vars(found),
        lineage=lineage,
        calibration=calibration,
        bank=bank,
        dataset=dataset,
        split=split,
        labels=labels,
        task=task,
        max_length=config.max_length,
        eval_name=eval_name,
        eval_split=eval_split,
        licenses=_licenses(lineage, hub),
        destination=destination,
    )


def check_options(config: PortConfig) -> None:
    """Refuse options that are wrong whatever the models and the data are."""
    Calibration(config.n, config.per_class, config.strategy, config.seed)
    pick_device(config.device)
    parse_columns(config.columns)


def asked(config: PortConfig, hub: Hub, pinned: Pinned) -> tuple[HubDataset, Split, Task]:
    """The dataset, the split that samples are drawn from, and what they are asked."""
    dataset = HubDataset(hub, pinned, config.config, streaming=config.streaming)
    split = dataset.split(config.split)
    return dataset, split, read_task(dataset, split, parse_columns(config.columns), config.templates)


def drawing(config: PortConfig, split: Split, task: Task) -> tuple[Calibration, np.ndarray]:
    """How samples are drawn, and the class of every row where that asks for it.

    Raises:
        PortError: the split cannot give them.
    """
    calibration = Calibration(config.n, config.per_class, config.strategy, config.seed)
    if config.n is None and config.per_class is None:  # the default, or all there are
        calibration = replace(calibration, n=min(DEFAULT_N, split.num_rows))
    labels = classes_of(split, task, calibration)
    check_draw(config.split, labels, task, calibration)
    return calibration, labels


def outline_of(
    config: PortConfig,
    library: Library,
    purpose: Purpose,
    models: tuple[RepoModel, ...],
    head: str,
    method: Method,
    tuned: bool = True,
) -> Outline:
    """What moves where between the models.

    Args:
        tuned: whether the first is a fine-tune, and not the base itself.

    Raises:
        PortError: weights that do not fit, layers without a partner, a method that cannot serve the pairs.
    """
    links = head_layers_of(models, head, purpose)
    check_models(library, models, tuned)
    pairs, unpaired = pair_models(
        models, matching_of(config, method.matching if isinstance(method, StoredMaps) else None)
    )
    pairs = (*pairs, *links.moved)
    method.check(pairs)
    return Outline(
        library=library,
        purpose=purpose,
        models=models,
        head=head,
        head_layers=links,
        pairs=pairs,
        unpaired=unpaired,
        method=method,
        device=pick_device(config.device),
    )


def matching_of(config: PortConfig, found: Matching | None = None) -> Matching:
    """Which block takes from which: by the rule, the file, or what CKA found; less what is skipped."""
    rule = found or (by_index if config.matching in ("index", CKA) else read_matching(Path(config.matching)))
    return subset(rule, config.layers, config.skip)


def matching_record(config: PortConfig, found: Mapping[str, Any] | None) -> dict[str, Any]:
    """By which rule blocks were matched, and what CKA found; a file by its name alone."""
    return {"rule": Path(config.matching).name, "layers": config.layers, "skip": config.skip} | dict(found or {})


def check_alpha(alpha: float | str) -> None:
    """Refuse an α that is neither a finite number nor "auto"."""
    if isinstance(alpha, str) and alpha != AUTO:
        raise PortError(f"--alpha is a number or {AUTO}, not {alpha!r}")
    if alpha != AUTO:
        check_scale(alpha)


def _licenses(lineage: Lineage, hub: Hub) -> tuple[str, ...]:
    found = [hub.card(pinned).license for pinned in (lineage.target, lineage.source)]
    each = [str(name) for entry in found for name in (entry if isinstance(entry, list) else [entry]) if name]
    return tuple(dict.fromkeys(each))


def eval_size(config: PortConfig, split: Split) -> int:
    return split.num_rows if config.eval_n is None else config.eval_n


def _eval_name(config: PortConfig, dataset: HubDataset) -> str:
    found = [config.eval_split] if config.eval_split else [name for name in EVAL_SPLITS if name in dataset.splits]
    found = [name for name in found if name != config.split]
    if not found or found[0] not in dataset.splits:
        raise PortError(
            f"no split to evaluate on beside {config.split!r}: name one with --eval-split; "
            f"{dataset.pinned} has {', '.join(dataset.splits)}"
        )
    return found[0]


def dry_run(config: PortConfig, hub: Hub) -> tuple[Blueprint, Estimate]:
    """The blueprint and what the port would cost; reads the headers of the weights, not the weights."""
    plan = draft(config, hub)
    return plan, cost(config, plan)


def cost(config: PortConfig, plan: Blueprint) -> Estimate:
    """What a port will take, as far as is known before τ is read: of towers that may move or not, not."""
    n, scored = plan.calibration.size(len(plan.task.class_names)), eval_size(config, plan.eval_split)
    return estimate(work_of(config, plan, n, scored), plan.device)


def work_of(config: PortConfig, plan: Outline, n: int, scored: int) -> Work:
    """A port of n samples, scored on so many others."""
    optional = optional_towers(plan)
    main = [pair for pair in plan.pairs if pair.target.tower not in optional]
    sites = [site for site in plan.source_sites if site.tower not in optional]
    heads = [getattr(each.skeleton, "get_output_embeddings", lambda: None)() for each in plan.models[1:]]
    on_top = tuple(head.weight.numel() if head is not None and hasattr(head, "weight") else 0 for head in heads)
    return Work(
        main,
        sites,
        plan.method,
        n,
        [each.shapes for each in plan.models[1:]],
        config.max_length,
        on_top,
        scored,
        config.alpha == AUTO,
        config.batch_size,
    )
