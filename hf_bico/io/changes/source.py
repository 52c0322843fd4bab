"""A port's task vector: fetched, read tensor by tensor, checked, and accounted for."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from hf_bico.core.errors import PortError
from hf_bico.core.transport import Account, Difference, account, check_fine_tune, part_of
from hf_bico.core.types import Tensors
from hf_bico.families import Library, Purpose
from hf_bico.families.heads import LAST
from hf_bico.io.adapter import CONFIG, WEIGHTS, is_adapter
from hf_bico.io.changes.adapter_source import Adapted, AdapterChange, open_adapted
from hf_bico.io.checkpoints import Named, SafeTensors, require_finite
from hf_bico.io.hub import Hub
from hf_bico.io.models import Outline, RepoModel, optional_towers
from hf_bico.io.reference import Pinned, errors_about


class SourceChange(NamedTuple):
    """A task vector, read and checked."""

    plan: Outline
    """Without the towers that τ leaves as they are."""
    tuned: Named | Adapted
    target: Named
    tau: Difference | AdapterChange
    ratio: float
    """‖τ‖/‖θ_A‖"""
    account: Account


def read_change(plan: Outline, folders: Sequence[Path]) -> SourceChange:
    """τ, what of it moves, and the tensors that it is made of and goes to.

    Raises:
        PortError: weights that are broken, or cannot be a fine-tune and its base; a tower that moves and cannot.
    """
    tuned, base = open_source(plan.library, plan.purpose, plan.models, folders)
    target = open_model(plan.library, plan.models[2], folders[2])
    whole = only_in_source(plan)
    tau = change_of(tuned.without(whole), base.without(whole))
    require_finite(plan.models[2].pinned, target)
    ratio = check_fine_tune(tau, base, [site for site in plan.source_sites if site.weight.key in tau])
    plan = _without_unchanged_towers(plan, tau)
    ledger = account(tau, plan.pairs, plan.models[1].family.left_reason, plan.source_sites)
    return SourceChange(plan, tuned, target, tau, ratio, ledger)


def only_in_source(plan: Outline) -> set[str]:
    """Names of what has no τ, for the base has it not or not so: layers of the source's head that do not move."""
    source, base, _ = plan.models
    moved = {s.key for pair in plan.head_layers.moved for s in pair.source.slices}
    new = {key for key in source.family.on_top(source.skeleton) if key not in base.shapes}
    last = {s.key for site in source.family.head_sites(source.skeleton) if site.role == LAST for s in site.slices}
    return (plan.head_layers.source_keys | new | last) - moved


def unchanged_towers(plan: Outline, tau: Tensors) -> set[str]:
    """Optional towers that τ leaves as they are."""
    towers = optional_towers(plan)
    changed = {
        site.tower
        for site in plan.source_sites
        if site.tower in towers and any(float(part_of(tau, s).norm()) > 0 for s in site.slices)
    }
    return towers - changed


def _without_unchanged_towers(plan: Outline, tau: Tensors) -> Outline:
    """Without the towers that τ leaves as they are.

    Raises:
        PortError: τ changes a tower whose layers cannot be paired.
    """
    dropped = unchanged_towers(plan, tau)
    stuck = [why for tower, why in plan.unpaired.items() if tower not in dropped]
    if stuck:
        raise PortError("; ".join(stuck))
    return replace(plan, pairs=tuple(pair for pair in plan.pairs if pair.target.tower not in dropped))


def fetch(plan: Outline, pinned: Pinned, hub: Hub) -> Path:
    """The folder of a model, with all that opens it, or of an adapter."""
    return hub.fetch(pinned, opening_files(plan.library, pinned))


def opening_files(library: Library, pinned: Pinned) -> tuple[str, ...]:
    """What opens a repo."""
    adapter = (CONFIG, WEIGHTS) if is_adapter(pinned) else ()
    return (library.config_file, *library.weights(pinned.files), *library.extra(pinned.files), *adapter)


def open_source(
    library: Library, purpose: Purpose, models: Sequence[RepoModel], folders: Sequence[Path]
) -> tuple[Named | Adapted, Named]:
    """The fine-tune's tensors and its base's, the first two of `models`; those of an adapter are the base's with it."""
    base = open_model(library, models[1], folders[1])
    if models[0].adapter is None:
        return open_model(library, models[0], folders[0]), base
    with errors_about(models[0].pinned):
        return open_adapted(library, purpose, models[0], base, models[1].shapes, folders), base


def change_of(tuned: Named | Adapted, base: Named) -> Difference | AdapterChange:
    """τ, one tensor at a time."""
    return AdapterChange(tuned, base) if isinstance(tuned, Adapted) else Difference(tuned, base)


def open_model(library: Library, model: RepoModel, folder: Path) -> Named:
    with errors_about(model.pinned):
        return Named(SafeTensors.of(library, model.pinned, folder), model.shapes.names)
