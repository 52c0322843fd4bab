"""What models look like inside: the only place with layer names."""

from torch import nn

from hf_bico.core.errors import PortError
from hf_bico.families.open_clip import OpenClip
from hf_bico.families.protocol import Family, Loaded
from hf_bico.families.t5 import T5Encoder

FAMILIES: tuple[Family, ...] = (OpenClip(),)
"""Those whose repos are opened."""
LIVE = (*FAMILIES, T5Encoder())
"""Those that are known as live modules."""

__all__ = ["FAMILIES", "Family", "Loaded", "family_of"]


def family_of(model: nn.Module) -> Family:
    """The family that knows this live model.

    Raises:
        PortError: none does.
    """
    for family in LIVE:
        if family.knows(model):
            return family
    known = ", ".join(family.name for family in LIVE)
    raise PortError(f"{type(model).__name__} is of no known family; known: {known}")
