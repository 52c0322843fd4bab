"""The models of a port, from their configs and file headers alone: what opens them, and which layers pair."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from hf_bico.core.errors import PortError, listed, setting
from hf_bico.core.pairing import Matching, pair_sites
from hf_bico.core.types import Pair, Site
from hf_bico.families import Family, Library, Purpose, PurposeKind, Transformers, family_of, library_of
from hf_bico.families.heads import LAST, HeadKind, HeadLayers, head_layers
from hf_bico.families.protocol import Stored
from hf_bico.families.sentences import said_in, sentence_of
from hf_bico.io.adapter import CONFIG, WEIGHTS, AdapterConfig, is_adapter, stripped
from hf_bico.io.checkpoints import Named, Shapes, check_shapes, require_weights, shards
from hf_bico.io.hub import Hub
from hf_bico.io.reference import Pinned, errors_about


@dataclass(frozen=True)
class RepoModel:
    """A model's insides, from its config and the headers of its files, without weights."""

    pinned: Pinned
    family: Family
    skeleton: nn.Module
    shapes: Named
    """Shapes of the stored tensors, by their names in the model."""
    adapter: AdapterConfig | None = None
    """Set for an adapter, whose family, skeleton and shapes are those of its base with the adapter in it."""

    def sites(self, *, every: bool = False) -> tuple[Site, ...]:
        """Return the model's sites; see `Family.sites`."""
        return self.family.sites(self.skeleton, every=every)


@dataclass(frozen=True, kw_only=True)
class PortModels:
    """What is known about a port's three models from their configs and the headers of their files."""

    library: Library
    purpose: Purpose
    tuned: RepoModel
    """The fine-tune; the base again where only two bases are aligned."""
    base: RepoModel
    target: RepoModel
    head: HeadKind
    layers: HeadLayers
    """What becomes of a classifier's layers."""
    pairs: tuple[Pair, ...]
    """The pairs of all towers that can be paired; those of towers that τ does not change are dropped once τ is read."""
    unpaired: Mapping[str, str]
    """Optional tower → why its layers cannot be paired; an error only if τ changes it."""
    device: str

    @property
    def each(self) -> tuple[RepoModel, RepoModel, RepoModel]:
        """The fine-tune, the base and the target."""
        return self.tuned, self.base, self.target

    @property
    def base_sites(self) -> tuple[Site, ...]:
        """All sites of the base, including those on top that it has weights for."""
        base, new = self.base, {pair.base.weight.key for pair in self.layers.carried}
        top = base.family.head_sites(base.skeleton)
        return (*base.sites(every=True), *(site for site in top if site.weight.key in base.shapes.keys() - new))

    @property
    def optional_towers(self) -> set[str]:
        """Names of the towers that move only if τ changes them."""
        return {site.tower for site in self.base.sites(every=True)} - {site.tower for site in self.base.sites()}

    def without(self, towers: Collection[str]) -> "PortModels":
        """Return the same models without the pairs of some towers."""
        return replace(self, pairs=tuple(pair for pair in self.pairs if pair.target.tower not in towers))


def bases(
    pinned: Sequence[Pinned], hub: Hub, family: str | None, purpose_of: Callable[[Library, Path], Purpose]
) -> tuple[Library, Purpose, tuple[RepoModel, ...]]:
    """Return the library, purpose and insides of models none of which is a fine-tune.

    Args:
        purpose_of: (library, folder of the first) → the purpose that all are opened for.

    Raises:
        PortError: as for `repo_models`.
    """
    library = _library(pinned)
    folders = [hub.fetch(each, (library.config_file,)) for each in pinned]
    with errors_about(pinned[0]):
        purpose = _with_sentence(purpose_of(library, folders[0]), pinned[0], hub)
    return (
        library,
        purpose,
        tuple(_repo_model(*each, hub, library, purpose, family) for each in zip(pinned, folders, strict=True)),
    )


def repo_models(
    pinned: Iterable[Pinned], hub: Hub, family: str | None
) -> tuple[Library, Purpose, tuple[RepoModel, ...]]:
    """Return the library, the purpose of the first model, for which all are opened, and the insides of all.

    Args:
        pinned: the first may be an adapter of the second.

    Raises:
        PortError: a repo that no library opens, of another library than the others, or without safe weights; an
            architecture that no family knows; an adapter that cannot be read.
    """
    pinned = list(pinned)
    adapter = _adapter(pinned, hub)
    opened = [pinned[1], *pinned[1:]] if adapter else pinned
    library = _library(opened)
    folders = [hub.fetch(each, (library.config_file,)) for each in opened]
    with errors_about(pinned[0]):
        purpose = (
            _adapted_purpose(adapter, pinned[0], library, hub, folders[0]) if adapter else library.purpose(folders[0])
        )
        purpose = _with_sentence(purpose, pinned[0], hub)
    found = [_repo_model(*each, hub, library, purpose, family) for each in zip(opened, folders, strict=True)]
    if adapter:
        with errors_about(pinned[0]):
            found[0] = with_adapter(found[0], adapter, pinned[0], Shapes(hub, pinned[0], (WEIGHTS,)), library)
    return library, purpose, tuple(found)


def _with_sentence(purpose: Purpose, pinned: Pinned, hub: Hub) -> Purpose:
    """Return the purpose of a model of features with what sentence-transformers put behind it, if anything.

    Raises:
        PortError: there is a module that is not known.
    """
    names = said_in(pinned.files) if purpose.kind is PurposeKind.FEATURES else ()
    return replace(purpose, sentence=sentence_of(hub.fetch(pinned, names))) if names else purpose


def base_of(source: Pinned, hub: Hub) -> str:
    """Return the base that the source's adapter_config.json (with its revision) or else its card names.

    Raises:
        PortError: none is named, or several are.
    """
    if is_adapter(source):
        with errors_about(source):
            config = AdapterConfig.read(hub.fetch(source, (CONFIG,)), source.files)
        if config.base and (Path(config.base).is_dir() or re.fullmatch(r"[\w.-]+(/[\w.-]+)?", config.base)):
            return config.base + (f"@{config.revision}" if config.revision else "")
    named = hub.card(source).base_model
    names = [name for name in (named if isinstance(named, list) else [named]) if isinstance(name, str)]
    if len(names) != 1:
        what = "names no base_model" if not names else f"names several base models ({', '.join(names)})"
        raise PortError(f"the card of {source} {what}: say which model it was fine-tuned from with {setting('base')}")
    return f"hf://{names[0]}"


def _library(pinned: Sequence[Pinned]) -> Library:
    """Return the one library of all repos; refuse repos of several, or without safe weights."""
    first = _library_of(pinned[0])
    for each in pinned:
        library = _library_of(each)
        if library is not first:
            raise PortError(
                f"{each} is of {library.name}, {pinned[0]} of {first.name}: a port is between models of one library"
            )
        require_weights(each, library)
    return first


def _library_of(pinned: Pinned) -> Library:
    library = library_of(pinned.files)
    if library is None:
        what = "is not a model that can be opened: it has neither open_clip_config.json nor config.json"
        if is_adapter(pinned):
            what = "is a PEFT adapter; only SOURCE may be one"
        elif any(name.startswith("delta") and name.endswith(".safetensors") for name in pinned.files):
            what = "is a delta of open_clip: make a model of it with `hf-bico apply` first"
        raise PortError(f"{pinned} {what}")
    return library


def _adapter(pinned: Sequence[Pinned], hub: Hub) -> AdapterConfig | None:
    """Return the config of the first repo if it is an adapter and its base comes next; else None."""
    if len(pinned) < 2 or not is_adapter(pinned[0]):
        return None
    with errors_about(pinned[0]):
        return AdapterConfig.read(hub.fetch(pinned[0], (CONFIG,)), pinned[0].files)


def _adapted_purpose(adapter: AdapterConfig, pinned: Pinned, library: Library, hub: Hub, base: Path) -> Purpose:
    """Return an adapter's purpose by its own config.json if it has one, else by its task type and the head it brings.

    Args:
        base: the base's folder.

    Raises:
        PortError: the base is not a transformers model, or the task is not known.
    """
    if not isinstance(library, Transformers):
        raise PortError(f"adapters are read on models of transformers, not of {library.name}")
    if library.config_file in pinned.files:
        return library.purpose(hub.fetch(pinned, (library.config_file,)))
    purpose = library.adapted(base, adapter.task, adapter.cls)
    skeleton = library.skeleton(base, purpose)
    last = {site.weight.key for site in family_of(skeleton).head_sites(skeleton) if site.role == LAST}
    stored = Shapes(hub, pinned, (WEIGHTS,))
    classes = {stored[key].shape[0] for key in stored if stripped(key) in last}
    return library.adapted(base, adapter.task, adapter.cls, classes.pop()) if classes else purpose


def with_adapter(
    base: RepoModel, adapter: AdapterConfig, pinned: Pinned, stored: Mapping, library: Library
) -> RepoModel:
    """Return the insides of a base with an adapter in it: tensors that the adapter holds whole replace the base's.

    Args:
        stored: the adapter's tensors, or anything with their shapes, by their names in its file.
    """
    whole = {name: key for key in stored if (name := stripped(key))}
    own = library.names(base.skeleton, whole)
    names = dict(base.shapes.names) | {name: Stored(whole[found.key], found.part) for name, found in own.items()}
    both = {
        found.key: (base.shapes.stored if found.key in base.shapes.used else stored)[found.key]
        for found in names.values()
    }
    return RepoModel(pinned, base.family, base.skeleton, Named(both, names), adapter)


def _repo_model(
    pinned: Pinned, folder: Path, hub: Hub, library: Library, purpose: Purpose, family: str | None
) -> RepoModel:
    with errors_about(pinned):
        skeleton = library.skeleton(folder, purpose)
        known = family_of(skeleton, family)
        stored = Shapes(hub, pinned, shards(library, pinned))
        return RepoModel(pinned, known, skeleton, Named(stored, library.names(skeleton, stored)))


def head_layers_of(base: RepoModel, target: RepoModel, head: HeadKind, purpose: Purpose) -> HeadLayers:
    """Return what becomes of a classifier's layers on top; empty for models without a head of their own."""
    own, theirs = (each.family.head_sites(each.skeleton) for each in (base, target))
    if not purpose.kind.has_head:
        return HeadLayers()
    gains = zip(*(each.family.head_gains(each.skeleton) for each in (base, target)), strict=False)
    lacking = tuple((a, b) for a, b in gains if a not in base.shapes or b not in target.shapes)
    return replace(head_layers(own, theirs, base.shapes, target.shapes, head), gains=lacking)


def check_models(library: Library, models: tuple[RepoModel, ...], tuned: bool = True, *, headed: bool = True) -> None:
    """Refuse weights that do not fit their config. Only the source, the first, needs the layers on top.

    Args:
        tuned: whether the first is a fine-tune; if not, no model needs them.
        headed: whether anything reads them; a model of features may lack its pooler.

    Raises:
        PortError: tensors of a model are missing, of another shape, or unknown; all of them listed.
    """
    source = models[0] if tuned and headed else None
    for each in models:
        top = each.family.on_top(each.skeleton) if each is not source else frozenset()
        unknown = [key for key in each.shapes.stored if key not in each.shapes.used]
        check_shapes(each.pinned, each.shapes.without(top), each.skeleton, top, unknown)
    for each in models if library.exact else models[:1] if tuned else ():
        lost = [
            key
            for key in each.shapes.stored
            if key not in each.shapes.used and (library.exact or not each.family.left_reason(key))
        ]
        if lost:
            raise PortError(f"the weights of {each.pinned} do not fit its config: {listed(lost)} is unknown")


def pair_models(base: RepoModel, target: RepoModel, matching: Matching) -> tuple[tuple[Pair, ...], dict[str, str]]:
    """Return the pairs of the two models' layers, and {optional tower: why its layers cannot be paired}.

    Raises:
        PortError: layers of a tower that is not optional cannot be paired.
    """
    pairs = list(pair_sites(base.sites(), target.sites(), matching))
    main = {site.tower for site in base.sites()}
    unpaired: dict[str, str] = {}
    own, theirs = ([site for site in each.sites(every=True) if site.tower not in main] for each in (base, target))
    for tower in dict.fromkeys(site.tower for site in own):
        try:
            a, b = ([site for site in side if site.tower == tower] for side in (own, theirs))
            pairs += pair_sites(a, b, matching)
        except PortError as error:
            unpaired[tower] = str(error)
    return tuple(pairs), unpaired
