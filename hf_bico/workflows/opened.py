"""A model that answers by itself, in whatever form it comes: whole, or as a delta or an adapter, open over its base."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from hf_bico.core.transport import added
from hf_bico.families import Library, Loaded, Purpose, PurposeKind
from hf_bico.families.heads import place
from hf_bico.families.tokenizing import fit_vocabulary
from hf_bico.io.adapter import is_adapter, one_kind
from hf_bico.io.base_names import base_of
from hf_bico.io.changes.adapter_source import Adapted
from hf_bico.io.changes.delta import StoredDelta, open_base, open_delta
from hf_bico.io.changes.source import fetch, open_model, open_source
from hf_bico.io.changes.vectors import is_delta
from hf_bico.io.checkpoints import OpenedBase
from hf_bico.io.fits import check_models
from hf_bico.io.hub import Hub
from hf_bico.io.models import RepoModel, repo_models, with_sentence
from hf_bico.io.reference import Pinned
from hf_bico.tasks.requirements import TOKENIZERS

Load = Callable[[str], Loaded]
"""device → the model, live."""


@dataclass(frozen=True)
class Known:
    """A model that answers by itself, before its weights are read."""

    pinned: Pinned
    form: str
    """Either "model", "delta" or "adapter"."""
    library: Library
    purpose: Purpose
    load: Load = field(repr=False)
    base: Pinned | None = None
    """What a delta or an adapter is opened over."""

    @property
    def whole(self) -> Pinned:
        """The repo that has the files which a whole model opens with."""
        return self.base or self.pinned


def known(reference: str, base: str | None, hub: Hub) -> Known:
    """Return what a reference stands for.

    Args:
        base: where the base of a delta or an adapter is now; None: what that names, at the commit that it names.

    Raises:
        PortError: there is no such repo or folder, it is no model that can be opened, or its base is another.
    """
    pinned = one_kind(hub.resolve(reference))
    if is_delta(pinned, hub):
        return _delta(pinned, base, hub)
    if is_adapter(pinned):
        return _adapter(pinned, hub.resolve(base or base_of(pinned, hub)), hub)
    library, purpose, (model,) = repo_models((pinned,), hub, None)
    check_models(library, (model, model), headed=purpose.kind is not PurposeKind.FEATURES)
    return Known(pinned, "model", library, purpose, partial(_load_whole, library, purpose, model, hub))


def _load_whole(library: Library, purpose: Purpose, model: RepoModel, hub: Hub, device: str) -> Loaded:
    folder = fetch(library, model.pinned, hub)
    state = open_model(library, model, folder) if model.own_way else None
    return library.load(folder, device, purpose, state=state, feeds=_feeds(purpose, model.pinned, folder))


def _feeds(purpose: Purpose, pinned: Pinned, folder: Path) -> Path | None:
    """Return the folder whose tokenizer says how a model of speech writes: its own, as in a port."""
    speaks = purpose.kind in (PurposeKind.CTC, PurposeKind.SPEECH) and TOKENIZERS & set(pinned.files)
    return folder if speaks else None


def _adapter(pinned: Pinned, base: Pinned, hub: Hub) -> Known:
    library, purpose, found = repo_models((pinned, base), hub, None)
    check_models(library, found, headed=purpose.kind is not PurposeKind.FEATURES)
    return Known(pinned, "adapter", library, purpose, partial(_load_adapter, library, purpose, found, hub), base)


def _load_adapter(library: Library, purpose: Purpose, models: tuple[RepoModel, ...], hub: Hub, device: str) -> Loaded:
    folders = [fetch(library, each.pinned, hub) for each in models]
    tuned, _ = open_source(library, purpose, models, folders)
    assert isinstance(tuned, Adapted)  # the first of the models is an adapter
    state = open_model(library, models[1], folders[1]) if models[1].own_way else None
    loaded = library.load(folders[1], device, purpose, state=state, feeds=folders[0])
    fit_vocabulary(loaded.model, tuned.own)
    place(loaded.model, tuned.own)
    return loaded


def _delta(pinned: Pinned, base: str | None, hub: Hub) -> Known:
    delta = open_delta(hub, pinned)
    found = open_base(hub, delta.record, [delta], base, full=False)
    purpose = with_sentence(delta.record.purpose, pinned, hub)
    return Known(
        pinned, "delta", found.library, purpose, partial(_load_delta, delta, found, purpose, hub), found.pinned
    )


def _load_delta(delta: StoredDelta, base: OpenedBase, purpose: Purpose, hub: Hub, device: str) -> Loaded:
    """Return the base with a delta in it; sums are rounded to the base's own dtype, as those of a whole port are."""
    library, own = base.library, TOKENIZERS & set(delta.pinned.files)
    folder = hub.fetch(delta.pinned, library.extra(delta.pinned.files)) if own else None
    loaded = library.load(base.folder, device, purpose, feeds=folder)
    state = loaded.model.state_dict()
    with torch.no_grad():
        for key, tensor in added(base.weights, delta.changes(base.weights)):
            state[key].copy_(tensor)
    place(loaded.model, delta.head)
    return loaded
