"""The models of a port, from their configs and file headers alone: what opens them, and which layers pair."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from hf_bico.core.errors import PortError
from hf_bico.core.pairing import Matching, pair_sites
from hf_bico.core.riders import Vocabularies
from hf_bico.core.types import Pair, Site
from hf_bico.families import Family, Library, Purpose, PurposeKind, Transformers, family_of, library_of
from hf_bico.families.beside import MOVING, Beside, Insides, beside
from hf_bico.families.heads import LAST, HeadKind, HeadLayers, head_layers
from hf_bico.families.new_tokens import NewTokens
from hf_bico.families.sentences import said_in, sentence_of
from hf_bico.families.word_heads import WORD_DENSE
from hf_bico.io.adapter import CONFIG, WEIGHTS, AdapterConfig, is_adapter, stripped
from hf_bico.io.bounds import require_sound, within
from hf_bico.io.checkpoints import Named, Shapes, gguf, inside, require_weights, shards
from hf_bico.io.hints import said_of
from hf_bico.io.hub import Hub
from hf_bico.io.names import adapter_names, names_in
from hf_bico.io.outside import read_object
from hf_bico.io.quantised import ADAPTER_MENDS, MEND, MENDS, require_filled, require_float, require_merged
from hf_bico.io.reference import Pinned, errors_about

PREPROCESSOR = "preprocessor_config.json"


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
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Its config, with all defaults where its library knows them."""
    own_way: bool = False
    """Whether its library would not open it with these tensors by itself: a wrapper left its mark on their names, or
    an adapter lies beside them."""

    def sites(self, *, every: bool = False) -> tuple[Site, ...]:
        """Return the model's sites; see `Family.sites`. A head that scores words may be missing, and is borrowed."""
        found = self.family.sites(self.skeleton, every=every)
        return tuple(site for site in found if site.role != WORD_DENSE or site.weight.key in self.shapes)


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
    groups: frozenset[str] = frozenset(MOVING)
    """Kinds of tensors that move."""
    stored: bool = False
    """Whether live models are held in the dtype of their files, not in float32."""
    new: NewTokens | None = None
    """Tokens that are added to the target's vocabulary."""

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
    def must(self) -> set[str]:
        """Names of the tensors that a fine-tune must have like its base: those of the linear maps that can move."""
        sites = (*self.base.sites(every=True), *(pair.base for pair in self.layers.moved))
        return {s.key for site in sites for s in site.slices}

    @property
    def optional_towers(self) -> set[str]:
        """Names of the towers that move only if τ changes them."""
        return {site.tower for site in self.base.sites(every=True)} - {site.tower for site in self.base.sites()}

    def beside(self, vocabularies: Vocabularies | None = None) -> Beside:
        """Return what moves beside the pairs, and the gains that they tell.

        Args:
            vocabularies: those of the base and of the target; None: embeddings meet row by row where both have as many.
        """
        return beside(*self.insides, self.pairs, self.groups, vocabularies)

    @property
    def insides(self) -> tuple[Insides, Insides]:
        """The insides of the base and of the target, with the rows that added tokens have."""
        rooms = self.new.rooms if self.new else (None, None)
        base, target = (
            Insides(each.family, each.skeleton, room)
            for each, room in zip((self.base, self.target), rooms, strict=True)
        )
        return base, target

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
    folders = [_config_of(each, hub, library) for each in pinned]
    with errors_about(pinned[0]):
        purpose = with_sentence(purpose_of(library, folders[0]), pinned[0], hub)
    return (
        library,
        purpose,
        tuple(
            repo_model(each, folder, hub, library, purpose, family, mend)
            for each, folder, mend in zip(pinned, folders, MENDS[1:], strict=False)
        ),
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
    folders = [_config_of(each, hub, library) for each in opened]
    with errors_about(pinned[0]):
        purpose = (
            _adapted_purpose(adapter, pinned, library, hub, folders[0]) if adapter else library.purpose(folders[0])
        )
        purpose = with_sentence(purpose, pinned[0], hub)
    mends = ADAPTER_MENDS if adapter else MENDS if len(opened) > 1 else (MEND,)
    found = [
        repo_model(each, folder, hub, library, purpose, family, mend)
        for each, folder, mend in zip(opened, folders, mends, strict=False)
    ]
    if adapter:
        stored = adapter_names(Shapes(hub, pinned[0], (WEIGHTS,)), str(pinned[0]))
        require_filled(pinned[0], stored)
        with errors_about(pinned[0]):
            found[0] = with_adapter(found[0], adapter, pinned[0], stored, library)
    return library, purpose, tuple(found)


def _config_of(pinned: Pinned, hub: Hub, library: Library) -> Path:
    """Fetch a model's config and return its folder; refuse one that cannot be that of its weights.

    Raises:
        PortError: it cannot; see `hf_bico.io.bounds.require_sound`.
    """
    names = (library.config_file, PREPROCESSOR) if PREPROCESSOR in pinned.files else (library.config_file,)
    folder = hub.fetch(pinned, names)
    tensors = len(Shapes(hub, pinned, shards(library, pinned)))
    with errors_about(pinned):
        for name in names:
            require_sound(read_object(folder / name), name, tensors)
    return folder


def with_sentence(purpose: Purpose, pinned: Pinned, hub: Hub) -> Purpose:
    """Return the purpose of a model of features with what sentence-transformers put behind it, if anything.

    Raises:
        PortError: there is a module that is not known.
    """
    names = said_in(pinned.files) if purpose.kind is PurposeKind.FEATURES else ()
    return replace(purpose, sentence=sentence_of(hub.fetch(pinned, names))) if names else purpose


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
        elif why := gguf(pinned):
            raise PortError(why)
        elif said := said_of(pinned.files):
            what = said
        elif there := inside(pinned):
            what += there
        elif any(name.startswith("delta") and name.endswith(".safetensors") for name in pinned.files):
            made = f"`hf-bico apply {pinned.name} --to BASE --output MODEL`"
            what = f"is a delta of open_clip: make a model of it first, with {made}"
        raise PortError(f"{pinned} {what}")
    return library


def _adapter(pinned: Sequence[Pinned], hub: Hub) -> AdapterConfig | None:
    """Return the config of the first repo if it is an adapter and its base comes next; else None."""
    if len(pinned) < 2 or not is_adapter(pinned[0]):
        return None
    with errors_about(pinned[0]):
        return AdapterConfig.read(hub.fetch(pinned[0], (CONFIG,)), pinned[0].files)


def _adapted_purpose(adapter: AdapterConfig, both: Sequence[Pinned], library: Library, hub: Hub, base: Path) -> Purpose:
    """Return an adapter's purpose by its own config.json if it has one, else by its task type and the head it brings.

    Args:
        both: the adapter and its base.
        base: the base's folder.

    Raises:
        PortError: the base is not a transformers model, or the task is not known.
    """
    if not isinstance(library, Transformers):
        raise PortError(f"adapters are read on models of transformers, not of {library.name}")
    pinned = both[0]
    if library.config_file in pinned.files:
        folder = hub.fetch(pinned, (library.config_file,))
        require_sound(read_object(folder / library.config_file), library.config_file)
        return library.purpose(folder)
    purpose = library.adapted(base, adapter.task, adapter.cls)
    with errors_about(both[1]), within(Shapes(hub, both[1], shards(library, both[1]))):
        skeleton = library.skeleton(base, purpose)
    last = {site.weight.key for site in family_of(skeleton).head_sites(skeleton) if site.role == LAST}
    stored = adapter_names(Shapes(hub, pinned, (WEIGHTS,)), str(pinned))
    classes = {stored[key].shape[0] for key in stored if stripped(key) in last}
    return library.adapted(base, adapter.task, adapter.cls, classes.pop()) if classes else purpose


def with_adapter(
    base: RepoModel, adapter: AdapterConfig, pinned: Pinned, stored: Mapping, library: Library
) -> RepoModel:
    """Return the insides of a base with an adapter in it: tensors that the adapter holds whole replace the base's.

    Args:
        stored: the adapter's tensors, or anything with their shapes, by their names in its file.
    """
    # Embeddings that were saved with modules_to_save have two names.
    twice = sorted(stored, key=lambda key: ".modules_to_save." not in key)
    whole = {name: key for key in twice if (name := stripped(key))}
    own = library.names(base.skeleton, whole)
    names = dict(base.shapes.names) | {name: found.renamed(whole.__getitem__) for name, found in own.items()}
    both = {
        key: (base.shapes.stored if key in base.shapes.used else stored)[key]
        for found in names.values()
        for key in found.keys
    }
    return replace(base, pinned=pinned, shapes=Named(both, names), adapter=adapter)


def repo_model(
    pinned: Pinned,
    folder: Path,
    hub: Hub,
    library: Library,
    purpose: Purpose,
    family: str | None,
    mend: str = MEND,
) -> RepoModel:
    """Return a model's insides.

    Args:
        mend: what to do if its weights are quantised.
    """
    stored = Shapes(hub, pinned, shards(library, pinned))
    require_float(pinned, hub.json(pinned, library.config_file), stored, mend)
    require_filled(pinned, stored)
    require_merged(pinned, stored)
    with errors_about(pinned):
        with within(stored):
            skeleton = library.skeleton(folder, purpose)
        known = family_of(skeleton, family)
        names, marked = names_in(library, skeleton, stored, str(pinned))
        beside = (folder / CONFIG).exists()
        config: Any = getattr(skeleton, "config", None)
        settings = config.to_dict() if config is not None else hub.json(pinned, library.config_file)
        return RepoModel(pinned, known, skeleton, Named(stored, names), settings=settings, own_way=marked or beside)


def head_layers_of(base: RepoModel, target: RepoModel, head: HeadKind, purpose: Purpose) -> HeadLayers:
    """Return what becomes of a classifier's layers on top; empty for models without a head of their own."""
    own, theirs = (each.family.head_sites(each.skeleton) for each in (base, target))
    if not purpose.kind.has_head:
        return HeadLayers()
    gains = zip(*(each.family.head_gains(each.skeleton) for each in (base, target)), strict=False)
    lacking = tuple((a, b) for a, b in gains if a not in base.shapes or b not in target.shapes)
    return replace(head_layers(own, theirs, base.shapes, target.shapes, head), gains=lacking)


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
