"""A port's task vector: fetched, read tensor by tensor, checked, and accounted for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from hf_bico.core.account import Account, account
from hf_bico.core.difference import Compared, Difference
from hf_bico.core.errors import PortError, listed
from hf_bico.core.gains import Folded, told
from hf_bico.core.notes import note
from hf_bico.core.riders import Vocabularies
from hf_bico.core.rounding import narrowest
from hf_bico.core.transport import check_fine_tune, part_of
from hf_bico.core.types import Tensors
from hf_bico.families import Library, Purpose
from hf_bico.families.heads import LAST
from hf_bico.families.new_tokens import roomy
from hf_bico.io.changes.adapter_source import Adapted, AdapterChange, open_adapted
from hf_bico.io.checkpoints import Named, SafeTensors, opening_files, require_finite
from hf_bico.io.fits import borrowed
from hf_bico.io.hub import Hub
from hf_bico.io.models import PortModels, RepoModel
from hf_bico.io.reference import Pinned, errors_about


@dataclass(frozen=True)
class SourceChange:
    """A fine-tune's task vector, read and checked."""

    tuned: Named | Adapted
    """The fine-tune's tensors."""
    base: Named
    """Its base's tensors, without a head that has no τ."""
    tau: Compared
    ratio: float
    """‖τ‖/‖θ_A‖"""
    account: Account
    adapter: dict[str, Any] | None
    """The adapter's type and rank, and how it was read, for reports; None for a whole model."""

    def accounted(self, models: PortModels, vocabularies: Vocabularies | None = None) -> "SourceChange":
        """Return the same change with its account, for the models' pairs and what moves beside them; all of τ is read.

        Raises:
            PortError: nothing accounts for some tensors of τ.
        """
        rides = models.beside(vocabularies).rides
        ledger = account(self.tau, models.pairs, models.base.family.left_reason, models.base_sites, rides)
        note_rounding(self.tau)  # all of τ has been read
        return replace(self, account=ledger)


def read_change(
    models: PortModels, folders: Sequence[Path], *, trusted: bool = False
) -> tuple[PortModels, SourceChange, Named]:
    """Return the models without the towers that τ does not change, the source's change, not yet `accounted`, and the
    target's tensors.

    Args:
        folders: those of the fine-tune, the base and the target.
        trusted: whether the base is taken for the fine-tune's whatever their weights say. An adapter's always is: its
            fine-tune is made of it.

    Raises:
        PortError: weights are broken or cannot be a fine-tune and its base; τ changes a tower that cannot be paired.
    """
    tuned, base = open_source(models.library, models.purpose, models.each, folders)
    target = open_model(models.library, models.target, folders[2])
    base, target = (
        weights.holding(roomy(side, weights)) for side, weights in zip(models.insides, (base, target), strict=True)
    )
    for each, other, whose in (
        (models.tuned, models.base, "its base's"),
        (models.base, models.tuned, "its fine-tune's"),
    ):
        if lacking := sorted(borrowed(each, other)):
            note(f"{each.pinned} was saved without {listed(lacking)}: {whose} is taken")
    if not isinstance(tuned, Adapted):
        tuned = tuned.holding(models.layers.told(models.base.family.final_gain(models.base.skeleton), tuned, base))
    whole = only_in_source(models)
    tau: Compared = change_of(tuned.without(whole), base.without(whole), models.must)
    if not isinstance(tuned, Adapted):
        after, before, gains = tuned.without(whole), base.without(whole), models.beside().gains
        tau = told(tau, lambda: Difference(Folded(after, before, gains), before, models.must, stored=False), gains)
    require_finite(models.target.pinned, target)
    sites = [site for site in models.base_sites if site.weight.key in tau]
    head = [key for key in sorted(whole) if key in tuned and not _same(tuned, base, key)]
    ratio = check_fine_tune(tau, base, sites, trusted=trusted or isinstance(tuned, Adapted), head=head)
    models = _without_unchanged_towers(models, tau)
    config, adapter = models.tuned.adapter, None
    if config and isinstance(tuned, Adapted):
        adapter = {"type": config.kind, "rank": config.data.get("r"), "read": tuned.read}
    return models, SourceChange(tuned, base.without(whole), tau, ratio, Account(0.0, []), adapter), target


def _same(tuned: Tensors, base: Tensors, key: str) -> bool:
    """Return whether a fine-tune has a tensor of its base as it is."""
    if key not in base or tuned[key].shape != base[key].shape:
        return False
    return torch.equal(tuned[key].float(), base[key].float())


def only_in_source(models: PortModels) -> set[str]:
    """Return the names of the head's tensors without a τ, which the base lacks or has otherwise."""
    tuned = models.tuned
    moved = {s.key for pair in models.layers.moved for s in pair.base.slices}
    new = {key for key in tuned.family.on_top(tuned.skeleton) if key not in models.base.shapes}
    last = {s.key for site in tuned.family.head_sites(tuned.skeleton) if site.role == LAST for s in site.slices}
    return (models.layers.tuned_keys | new | last) - moved


def _without_unchanged_towers(models: PortModels, tau: Tensors) -> PortModels:
    """Return the models without the towers that τ does not change.

    Raises:
        PortError: τ changes a tower whose layers cannot be paired.
    """
    optional = models.optional_towers
    changed = {
        site.tower
        for site in models.base_sites
        if site.tower in optional and any(float(part_of(tau, s).norm()) > 0 for s in site.slices)
    }
    stuck = [why for tower, why in models.unpaired.items() if tower in changed]
    if stuck:
        raise PortError("; ".join(stuck))
    return models.without(optional - changed)


def fetch(library: Library, pinned: Pinned, hub: Hub) -> Path:
    """Fetch a model or adapter with all the files that it opens with, and return the folder."""
    return hub.fetch(pinned, opening_files(library, pinned))


def open_source(
    library: Library, purpose: Purpose, models: Sequence[RepoModel], folders: Sequence[Path]
) -> tuple[Named | Adapted, Named]:
    """Return the tensors of the fine-tune and of its base, the first two of `models`.

    An adapter's are the base's with the adapter in them.
    """
    base = open_model(library, models[1], folders[1])
    if models[0].adapter is None:
        return open_model(library, models[0], folders[0]), base
    with errors_about(models[0].pinned):
        return open_adapted(library, purpose, models[0], base, models[1].shapes, folders), base


def change_of(tuned: Named | Adapted, base: Named, must: Iterable[str]) -> Difference | AdapterChange:
    """Return τ, to be read one tensor at a time.

    Args:
        must: names of the tensors that both must have in one shape; others that differ are left out of τ.

    Raises:
        PortError: such tensors differ, so that the one is no fine-tune of the other.
    """
    return AdapterChange(tuned, base, must) if isinstance(tuned, Adapted) else Difference(tuned, base, must)


def note_rounding(tau: Compared) -> None:
    """Say which tensors of a task vector that was read differ by rounding alone."""
    if tau.rounded:
        one = next(iter(tau.rounded))
        kinds = narrowest(tau.tuned[one]), tau.base[one].dtype
        dtypes = " and ".join(str(kind).removeprefix("torch.") for kind in kinds)
        note(
            f"{len(tau.rounded)} of {len(tau)} tensors differ from the base's by no more than the rounding between "
            f"{dtypes} (at most {max(tau.rounded.values()):.2g}): that is no fine-tuning, and left out"
        )


def open_model(library: Library, model: RepoModel, folder: Path) -> Named:
    """Return a model's tensors in a folder, by their names in the model."""
    with errors_about(model.pinned):
        return Named(SafeTensors.of(library, model.pinned, folder), model.shapes.names)
