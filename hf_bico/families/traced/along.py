"""What of a traced model moves beside its linear maps: diagonal maps, and convolutions of the image itself."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from hf_bico.core.gains import Gain
from hf_bico.core.riders import Kind, Rider
from hf_bico.core.types import At, Site
from hf_bico.families.riders import NORMS, PATCHES
from hf_bico.families.traced.confirming import Beside
from hf_bico.families.traced.kin import kin
from hf_bico.families.traced.places import outside, placed
from hf_bico.families.traced.reading import Reading

ROLES = {"q": "attention", "k": "attention", "v": "attention", "MLP up": "MLP", "MLP gate": "MLP"}
"""Role of a linear map → what it reads is called in the tables' roles of norms."""


@dataclass(frozen=True)
class Found:
    """A diagonal map of a model, or a convolution of the image itself, and the side of a linear map that it lies at."""

    name: str
    own: Beside
    on: Site
    side: At
    block: str
    """Beginning of the names in its block; "" outside the blocks."""
    readers: tuple[Site, ...] = ()
    """The linear maps that can tell its change."""

    @property
    def role(self) -> str:
        """What it is; partners have the same role."""
        bias = " bias" if self.own.kind is Kind.VECTORS else ""
        if self.side == "in":
            return f"norm before {ROLES.get(self.on.role, self.on.role)}{bias}"
        if self._of_heads:
            return f"norm of {self.on.role}{bias}"
        return f"{'scale of' if self.own.scales else 'norm after'} {self.on.role}{bias}"

    @property
    def _of_heads(self) -> bool:
        return self.side == "out" and self.own.width < self.on.d_out

    def rider(self, role: str) -> Rider:
        """Return it as what the linear map carries along."""
        width = self.on.d_out if self.side == "out" else self.on.d_in
        kind = Kind.UNITS if self._of_heads and self.own.kind is Kind.GAIN else self.own.kind
        return Rider(
            role,
            PATCHES if self.own.of_kernel else NORMS,
            self.name,
            kind,
            self.on.name,
            self.side,
            0 if kind is Kind.KERNEL else -1,
            width=width,
            heads=width // self.own.width,
            tower=self.on.tower,
            depth=self.on.depth if self.block else None,
        )

    def gain(self, bias: str | None) -> Gain:
        """Return it as a gain that linear maps can tell."""
        weights = tuple(dict.fromkeys(site.weight for site in self.readers))
        biases = tuple(site.bias for site in self.readers if site.bias is not None and self.side == "out")
        return Gain(self.name, self.side, weights, biases, bias, self.own.offset)


def riders_of(model: nn.Module, reading: Reading) -> tuple[Rider, ...]:
    """Return what the linear maps of a model carry along, as a trace shows it."""
    found = list(_found(model, reading))
    counts = Counter((each.role, each.on.name) for each in found)
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    made = []
    for each in found:
        norm = each.block and each.own.kind in (Kind.GAIN, Kind.VECTORS) and counts[each.role, each.on.name] == 1
        made.append(each.rider(each.role if norm else each.name.removeprefix(each.block).removeprefix(prefix)))
    return tuple(made)


def gains_of(model: nn.Module, reading: Reading) -> tuple[Gain, ...]:
    """Return the gains of a model whose change its linear maps can tell, as a trace shows it."""
    found = list(_found(model, reading))
    like = kin(model, reading.copy)
    biases = {(each.block, each.own.gain): each.name for each in found if each.own.kind is Kind.VECTORS}
    return tuple(
        each.gain(biases.get((each.block, like[each.name])))
        for each in found
        if each.own.kind is Kind.GAIN and each.readers
    )


def _found(model: nn.Module, reading: Reading) -> Iterator[Found]:
    """Yield what lies beside the linear maps, in the order of the model's parameters."""
    like = kin(model, reading.copy)
    sites = placed(model, reading)
    blocks = sorted({block for block, _ in sites}, key=len, reverse=True)
    every = (*(site for _, site in sites), *outside(model, reading))
    taken = {part.key for site in every for part in site.slices}
    for name, parameter in model.named_parameters():
        known = None if name in taken else _beside(reading, like.get(name, ""), parameter.ndim)
        if known is None or (known[0].kind is Kind.DEPTHWISE and parameter.shape[1] != 1):
            continue
        width = len(parameter) if known[0].kind in (Kind.DEPTHWISE, Kind.KERNEL) else parameter.numel()
        own, place = (replace(each, width=width) for each in known)
        block = next((block for block in blocks if name.startswith(block)), "")
        near = [site for at, site in sites if at == block] if block else every
        found = _at(place, {site.name: like.get(site.weight.key, "") for site in near}, near, whole=bool(block))
        if found is not None:
            yield Found(name, own, found[0], found[1], block, found[2])


def _beside(reading: Reading, name: str, axes: int) -> tuple[Beside, Beside] | None:
    """Return what is known of a parameter of the tiny copy beside its linear maps, and of what it lies with: a norm's
    bias with its gain; None of others.
    """
    weight = re.sub(r"bias$", "weight", name)
    kernel = reading.maps.get(weight)
    if kernel is not None and kernel.plain and not kernel.behind and kernel.grid:
        readers = [other for other, each in reading.maps.items() if weight in each.behind]
        stem = Beside(Kind.VECTORS if axes == 1 else Kind.KERNEL, reads=_widest(reading, readers), of_kernel=True)
        return stem, stem
    own = reading.beside.get(name)
    if own is None:
        return None
    place = reading.beside[own.gain] if own.gain else own
    place = replace(place, reads=_widest(reading, place.reads))
    if any(each.scales in place.after[:1] for each in reading.beside.values()):
        # behind a scale a map's outputs are not the stream's coordinates, but what the last maps read is
        reads = [each for each in reversed(list(reading.maps)) if reading.maps[each].behind & {*place.after}]
        place = replace(place, reads=[*place.reads, *reads], after=(), top=True)
    return own, place


def _widest(reading: Reading, names: Sequence[str]) -> list[str]:
    """Return linear maps by how many rows they read, those of most first."""
    return sorted(names, key=lambda name: -reading.maps[name].rows)


def _at(
    own: Beside, like: Mapping[str, str], near: Sequence[Site], *, whole: bool
) -> tuple[Site, At, tuple[Site, ...]] | None:
    """Return the linear map and its side that a diagonal map lies at, and those that can tell its change; None where
    there is none.
    """
    before = [site for site in near if like[site.name] in own.before and site.d_in == own.width]
    if whole and before and {like[site.name] for site in before} == own.before:
        return before[0], "in", tuple(before)
    scaled = [site for site in near if like[site.name] == own.scales and site.d_out == own.width]
    if whole and len(scaled) == 1:
        return scaled[0], "out", tuple(scaled)
    last = near if whole else near[::-1]
    after = next((site for name in own.after for site in last if like[site.name] == name and _fits(own, site)), None)
    near = last if own.top else near
    reads = next(
        (site for name in own.reads for site in near if like[site.name] == name and site.d_in == own.width), None
    )
    if after is not None and (reads is None or (whole and not own.apart)):
        return after, "out", ()
    return None if reads is None else (reads, "in", ())


def _fits(own: Beside, site: Site) -> bool:
    """Return whether a diagonal map is as wide as a linear map's outputs, or as each of their heads."""
    return site.d_out == own.width or (site.role in ("q", "k") and own.width > 1 and site.d_out % own.width == 0)
