"""The models of a port, by their configs and the headers of their files: what opens them, and which layers pair."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from hf_bico.core.errors import PortError, listed
from hf_bico.core.pairing import Matching, pair_sites
from hf_bico.core.types import Pair, Site
from hf_bico.families import Family, Library, Purpose, family_of, library_of
from hf_bico.heads import Chain, chain
from hf_bico.io.checkpoints import Named, Shapes, check_shapes, require_weights, shards
from hf_bico.io.hub import Hub
from hf_bico.io.reference import Pinned, about


@dataclass(frozen=True)
class Anatomy:
    """A model's insides, from its config and the headers of its files."""

    pinned: Pinned
    family: Family
    skeleton: nn.Module
    shapes: Named
    """Of the stored tensors, by their names in the model."""

    def sites(self, *, every: bool = False) -> tuple[Site, ...]:
        return self.family.sites(self.skeleton, every=every)


def anatomies(pinned: Iterable[Pinned], hub: Hub, family: str | None
              ) -> tuple[Library, Purpose, tuple[Anatomy, ...]]:
    """The models' insides; what the first is for is what all of them are opened as.

    Raises:
        PortError: a repo that nothing opens, of another library than the others, or without safe weights; an
            architecture that no family knows; weights that are not its config's.
    """
    pinned = list(pinned)
    libraries = [library_of(each.files) for each in pinned]
    for each, library in zip(pinned, libraries, strict=True):
        if library is None and "adapter_config.json" in each.files:
            raise PortError(f"{each} is a PEFT adapter, not a whole model: merge it into its base first (peft's "
                            "merge_and_unload, then save_pretrained)")
        if library is None:
            raise PortError(f"{each} is no model that can be opened: it has neither open_clip_config.json nor "
                            "config.json")
        if library is not libraries[0]:
            raise PortError(f"{each} is of {library.name}, {pinned[0]} of {libraries[0].name}: a port is between "
                            "models of one library")
        require_weights(each, library)
    library = libraries[0]
    folders = [hub.fetch(each, (library.config_file,)) for each in pinned]
    with about(pinned[0]):
        purpose = library.purpose(folders[0])
    return library, purpose, tuple(_anatomy(*each, hub, library, purpose, family)
                                   for each in zip(pinned, folders, strict=True))


def _anatomy(pinned: Pinned, folder: Path, hub: Hub, library: Library, purpose: Purpose, family: str | None) -> Anatomy:
    with about(pinned):
        skeleton = library.skeleton(folder, purpose)
        known = family_of(skeleton, family)
        stored = Shapes(hub, pinned, shards(library, pinned))
        return Anatomy(pinned, known, skeleton, Named(stored, library.names(skeleton, stored)))


def chain_of(models: tuple[Anatomy, ...], head: str, purpose: Purpose) -> Chain:
    """What becomes of the layers on top of a classifier; other models have none that is theirs to make."""
    _, base, target = models
    tops = [each.family.head_sites(each.skeleton) for each in (base, target)]
    if not purpose.kind.endswith("classification"):
        return Chain()
    gains = zip(*(each.family.head_gains(each.skeleton) for each in (base, target)), strict=False)
    lacking = tuple((a, b) for a, b in gains if a not in base.shapes or b not in target.shapes)
    return replace(chain(*tops, base.shapes, target.shapes, head), gains=lacking)


def check_models(library: Library, models: tuple[Anatomy, ...]) -> None:
    """Refuse weights that are not those of their config; the layers on top need be in the source alone, the first."""
    source = models[0]
    for each in models:
        top = each.family.on_top(each.skeleton) if each is not source else frozenset()
        unknown = [key for key in each.shapes.stored if key not in each.shapes.used]
        check_shapes(each.pinned, each.shapes.without(top), each.skeleton, top, unknown)
    for each in models if library.exact else models[:1]:
        lost = [key for key in each.shapes.stored if key not in each.shapes.used
                and (library.exact or not each.family.left_reason(key))]
        if lost:
            raise PortError(f"the weights of {each.pinned} do not fit its config: {listed(lost)} is unknown")


def pair_models(models: tuple[Anatomy, ...], matching: Matching) -> tuple[tuple[Pair, ...], dict[str, str]]:
    """Pairs of the base's and the target's layers; of towers that need not move, why they could not."""
    _, base, target = models
    pairs = list(pair_sites(base.sites(), target.sites(), matching))
    main = {site.tower for site in base.sites()}
    unpaired: dict[str, str] = {}
    sides = [[site for site in each.sites(every=True) if site.tower not in main] for each in (base, target)]
    for tower in dict.fromkeys(site.tower for site in sides[0]):
        try:
            pairs += pair_sites(*([site for site in side if site.tower == tower] for side in sides), matching)
        except PortError as error:
            unpaired[tower] = str(error)
    return tuple(pairs), unpaired
