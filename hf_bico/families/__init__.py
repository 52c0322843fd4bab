"""What models look like inside: the only place with layer names."""

from collections.abc import Collection

from torch import Tensor, nn

from hf_bico.core.errors import PortError, setting
from hf_bico.families.generic import Generic
from hf_bico.families.hf import Transformers
from hf_bico.families.open_clip import OPEN_CLIP, OpenClip
from hf_bico.families.protocol import Answer, Contrastive, Family, Library, Loaded, Purpose, PurposeKind, similarity
from hf_bico.families.tables import TABLES

FAMILIES: tuple[Family, ...] = (OPEN_CLIP, *TABLES)
"""All families known, tried in this order; the first that knows a model describes it."""
LIBRARIES: tuple[Library, ...] = (OpenClip(), Transformers())
"""Ways to open a repo, tried in this order; the first whose config file is there opens it."""

__all__ = [
    "FAMILIES",
    "LIBRARIES",
    "Answer",
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
    """Return the family that knows this live model, or the generic one, which takes any, if `named` is "generic".

    Raises:
        PortError: no family knows the model, or `named` is something else.
    """
    if named == "generic":
        return Generic()
    if named is not None:
        raise PortError(f"{setting('family')} {named}: families are found by themselves; only generic can be named")
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
    """Return the library that opens a repo with these files; None if there is none."""
    return next((library for library in LIBRARIES if library.config_file in files), None)


def logits(model: nn.Module, inputs: Tensor, head: Tensor) -> Tensor:
    """Return a CLIP-like model's scores (n, K) of preprocessed images (n, 3, h, w) under unit text features (K, d)."""
    library: Contrastive = OpenClip() if OPEN_CLIP.knows(model) else Transformers()
    return similarity(model, library.image_features(model, inputs.to(head.device)), head)
