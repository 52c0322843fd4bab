"""Any model with numbered blocks (`--family generic`): its plain linear layers pair by name."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from torch import nn

from hf_bico.core.errors import PortError
from hf_bico.core.gains import Gain
from hf_bico.core.riders import Rider
from hf_bico.core.types import Site, Slice
from hf_bico.families.layout import COMMON, HEAD, SINGLE, TEXT

HEADS = ("classifier", "score", "head")
"""Names of a classifier that is a single linear layer outside the blocks."""
LEFT = {
    **COMMON,
    r"\.\d+\.(.+\.)?(weight|bias)$": "--family generic moves plain linear layers alone",
    r"": "--family generic moves nothing outside the numbered blocks",
}


class Place(NamedTuple):
    """Where a linear layer lies, by its name `tower`.`depth`.`role`."""

    tower: str
    depth: int
    role: str


class Generic:
    """The family in which every `nn.Linear` inside a numbered block is a site, and its name in the block its role.

    It knows nothing of what layers do: a fused projection is moved as one map, every layer has an input map of its
    own, no heads or units are permuted, and rows meet as tokens of one text, or one to one.
    """

    name = "generic"

    def knows(self, model: nn.Module) -> bool:
        return any(True for _ in _linears(model))

    def sites(self, model: nn.Module, *, every: bool = False) -> tuple[Site, ...]:
        """Return the plain linear layers in numbered blocks as sites.

        Raises:
            PortError: no linear layer lies in a numbered block.
        """
        linears = list(_linears(model))
        if not linears:
            raise PortError(f"{type(model).__name__} has no nn.Linear inside numbered blocks: nothing pairs by name")
        stacks = {place.tower for _, place, _ in linears}
        return tuple(
            _site(name, Place("" if len(stacks) == 1 else place.tower, *place[1:]), layer)
            for name, place, layer in linears
        )

    def riders(self, model: nn.Module) -> tuple[Rider, ...]:
        return ()

    def gains(self, model: nn.Module) -> tuple[Gain, ...]:
        return ()

    def head_sites(self, model: nn.Module) -> tuple[Site, ...]:
        """Return the first linear layer outside the blocks that is named like a classifier; empty without one."""
        found = [(name, layer) for name, layer in model.named_children() if name in HEADS and type(layer) is nn.Linear]
        return tuple(
            Site(HEAD, HEAD, None, *_slices(name, layer), layer.out_features, layer.in_features, HEAD, SINGLE)
            for name, layer in found[:1]
        )

    def on_top(self, model: nn.Module) -> frozenset[str]:
        return frozenset(s.key for site in self.head_sites(model) for s in site.slices)

    def head_gains(self, model: nn.Module) -> tuple[str, ...]:
        return ()

    def left_reason(self, key: str) -> str:
        """Return why a tensor that belongs to no site stays behind; there is always a reason."""
        return next(reason for pattern, reason in LEFT.items() if re.search(pattern, key))


def _linears(model: nn.Module) -> Iterator[tuple[str, Place, nn.Linear]]:
    """Yield (name, place, layer) of the linear layers in blocks; the first number in a name is its block's."""
    for name, layer in model.named_modules():
        found = re.fullmatch(r"(?:(.*?)\.)??(\d+)\.(.+)", name)
        if found and type(layer) is nn.Linear:
            yield name, Place(found[1] or "", int(found[2]), found[3]), layer


def _site(name: str, place: Place, layer: nn.Linear) -> Site:
    own = f"{place.tower} block {place.depth} {place.role}".strip()
    return Site(
        own,
        place.role,
        place.depth,
        *_slices(name, layer),
        layer.out_features,
        layer.in_features,
        own,
        TEXT,
        tower=place.tower,
    )


def _slices(name: str, layer: nn.Linear) -> tuple[Slice, Slice | None]:
    return Slice(f"{name}.weight"), None if layer.bias is None else Slice(f"{name}.bias")
