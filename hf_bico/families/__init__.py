"""What models look like inside: the only place with layer names."""

from collections.abc import Collection

from torch import Tensor, nn

from hf_bico.core.errors import PortError, setting
from hf_bico.families.generic import Generic
from hf_bico.families.hf import Transformers
from hf_bico.families.open_clip import OPEN_CLIP, OpenClip
from hf_bico.families.protocol import Contrastive, Family, Library, Loaded, Purpose, PurposeKind, similarity
from hf_bico.families.tables import TABLES

FAMILIES: tuple[Family, ...] = (OPEN_CLIP, *TABLES)
"""What is known of the insides of models."""
LIBRARIES: tuple[Library, ...] = (OpenClip(), Transformers())
"""How repos are opened; the first whose config file is there."""

__all__ = [
    "FAMILIES",
    "LIBRARIES",
    "Contrastive",
    "Family",
    "Library",
    "Loaded",
    "Purpose",
    "PurposeKind",
    "Transformers",
    "family_of",
    "library_of",
    "logits",
]


def family_of(model: nn.Module, named: str | None = None) -> Family:
    """Return the family that knows this live model; or "generic", for any, if it is named.

    Raises:
        PortError: none does, or no such family.
    """
    if named == "generic":
        return Generic()
    if named is not None:
        raise PortError(f"{setting('family')} {named}: families are found by themselves; only generic can be asked for")
    for family in FAMILIES:
        if family.knows(model):
            return family
    kind = getattr(getattr(model, "config", None), "model_type", None)
    known = ", ".join(dict.fromkeys(family.name for family in FAMILIES))
    raise PortError(
        f"{type(model).__name__}{f' ({kind})' if kind else ''} is of no known family; known: {known}. "
        f"{setting('family')} generic pairs its plain linear layers by name"
    )


def library_of(files: Collection[str]) -> Library | None:
    """Return how a repo with these files is opened, None if nothing knows."""
    return next((library for library in LIBRARIES if library.config_file in files), None)


def logits(model: nn.Module, inputs: Tensor, head: Tensor) -> Tensor:
    """Return (n, K) class scores of a CLIP-like model under text features (K, d)."""
    library: Contrastive = OpenClip() if OPEN_CLIP.knows(model) else Transformers()
    return similarity(model, library.image_features(model, inputs.to(head.device)), head)
