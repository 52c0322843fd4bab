"""What models look like inside: the only place with layer names."""

from collections.abc import Collection

from torch import Tensor, nn

from hf_bico.core.device import device_of
from hf_bico.core.errors import PortError, setting
from hf_bico.families.hf import Transformers
from hf_bico.families.open_clip import OPEN_CLIP, OpenClip
from hf_bico.families.protocol import Answer, Contrastive, Family, Library, Loaded, Purpose, PurposeKind, similarity
from hf_bico.families.tables import TABLES
from hf_bico.families.traced import Traced

GENERIC = "generic"
"""The name by which the traced family is asked for."""
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
    "told_of",
]


def family_of(model: nn.Module, named: str | None = None) -> Family:
    """Return the family that knows a model: a table, or else what a traced forward pass of a tiny copy shows.

    Args:
        named: "generic" for the traced pass whatever tables there are; a model of which no copy runs then pairs by
            names.

    Raises:
        PortError: no table knows the model, and it cannot be traced; or `named` is something else.
    """
    if named not in (None, GENERIC):
        raise PortError(f"{setting('family')} {named}: families are found by themselves; only {GENERIC} can be named")
    if named is None:
        for family in FAMILIES:
            if family.knows(model):
                return family
    traced = Traced(named=named is not None)
    if named is None:
        traced.require_known(model)
    return traced


def told_of(*each: tuple[Family, nn.Module]) -> tuple[str, ...] | None:
    """Return what is to be said of how the roles of models were found, each once; None where tables say all of them."""
    found = dict.fromkeys(family.told(model) for family, model in each if isinstance(family, Traced))
    return tuple(found) or None


def library_of(files: Collection[str]) -> Library | None:
    """Return the library that opens a repo with these files; None if there is none."""
    return next((library for library in LIBRARIES if library.config_file in files), None)


def logits(model: nn.Module, inputs: Tensor, head: Tensor) -> Tensor:
    """Return a CLIP-like model's scores (n, K) of preprocessed images (n, 3, h, w) under unit text features (K, d)."""
    library: Contrastive = OpenClip() if OPEN_CLIP.knows(model) else Transformers()
    device = device_of(model)
    return similarity(model, library.image_features(model, inputs.to(device)), head.to(device))
