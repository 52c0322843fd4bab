"""A classifier's head on the new base: carried through the map of its input, or fitted to the samples in closed form.

A fine-tune's new head is not in its base, so there is no τ to move; the head itself is carried, or made anew.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn

from hf_bico.core.chain import fill
from hf_bico.core.collect import Batch, Loss, Side, frozen, samples_in
from hf_bico.core.errors import PortError, listed, setting
from hf_bico.core.gains import Gain, into_head
from hf_bico.core.low_rank import as_dense
from hf_bico.core.moments import CrossMoment, Statistics
from hf_bico.core.taps import taps
from hf_bico.core.types import Fit, Pair, Signal, Site, Stream, Tensors, Wanted
from hf_bico.families.feeding import Encoded
from hf_bico.families.fitting import Fitting, solved

LAST = "head"
"""Role of a classifier's last layer; its outputs are the classes."""
CUT = 1e-6
"""`rtol` of the map at a head's input; smaller than a task vector's, for a head is used as it is, not as a change."""


class HeadKind(StrEnum):
    """The head that a port's target answers with."""

    TRANSPORT = "transport"
    """The fine-tune's classifier, carried through the map of its input."""
    RIDGE = "ridge"
    """A classifier fitted to the samples in closed form."""
    PROBE = "probe"
    """The same beside a feature model: used for scoring, not a part of the model."""
    ZERO_SHOT = "zero-shot"
    """Text features of the classes."""
    LM = "lm"
    """The target's own language-model head."""
    COSINE = "cosine"
    """None: the model's features are compared by their cosines."""
    NONE = "none"
    """None: the model outputs features."""
    OWN = "own"
    """The target's own classifier, as it is."""

    @property
    def is_fitted(self) -> bool:
        """Whether it is fitted to the calibration samples, so that its scores there are no measure of confidence."""
        return self in (HeadKind.RIDGE, HeadKind.PROBE)


@dataclass(frozen=True)
class HeadLayers:
    """What becomes of the layers on top of the blocks."""

    moved: tuple[Pair, ...] = ()
    """Layers that both bases were pre-trained with: they have a τ like any other."""
    carried: tuple[Pair, ...] = ()
    """Layers that are carried whole: the first that either base lacks and all after it; the last one always."""
    made: tuple[Site, ...] = ()
    """The target's layers that are fitted, not carried."""
    fresh: tuple[Site, ...] = ()
    """The base's layers that are fitted too, where no fine-tune brings a head."""
    gains: tuple[tuple[str, str], ...] = ()
    """(base, target) names of norms' gains in the head that either base lacks."""

    @property
    def tuned_keys(self) -> set[str]:
        """Names of the fine-tune's tensors that are carried whole."""
        return {s.key for pair in self.carried for s in pair.base.slices} | {a for a, _ in self.gains}

    @property
    def target_keys(self) -> set[str]:
        """Names of the target's tensors that are carried whole or made."""
        sites = (*(pair.target for pair in self.carried), *self.made)
        return {s.key for site in sites for s in site.slices} | {b for _, b in self.gains}

    def told(self, final: Gain | None, tuned: Tensors, base: Tensors) -> dict[str, Tensor]:
        """Return the fine-tune's tensors that are others where the head that is carried tells what was learnt of the
        norm before it; see `into_head`.

        Args:
            final: the gain that gives to the head's first layer, if one is known.
        """
        if final is None or not self.carried or self.carried[0].base.weight not in final.weights:
            return {}
        known = {final.key, *([] if final.bias is None else [final.bias])}
        needed = known | {part.key for part in (*final.weights, *final.biases)}
        alike = known <= base.keys() and needed <= tuned.keys() and tuned[final.key].shape == base[final.key].shape
        return into_head(tuned, base, final) if alike else {}

    def gain(self, head: Tensors, shapes: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the target's gains by name, float32: the fine-tune's where shapes agree, else a fresh norm's."""
        made = {}
        for a, b in self.gains:
            shape = tuple(shapes[b].shape)
            made[b] = head[a].float() if tuple(head[a].shape) == shape else fresh(b, shape)
        return made


def fresh(name: str, shape: Sequence[int]) -> Tensor:
    """Return a norm's initial gain (ones) or bias (zeros)."""
    return torch.zeros(*shape) if name.endswith("bias") else torch.ones(*shape)


def head_layers(
    base: Sequence[Site], target: Sequence[Site], in_base: Iterable[str], in_target: Iterable[str], kind: HeadKind
) -> HeadLayers:
    """Return which layers of a head move, and which are carried or made.

    Args:
        base, target: the heads' layers in order.
        in_base, in_target: names of the tensors in the bases' files.

    Raises:
        PortError: a head is to be carried, and the target's has other layers.
    """
    in_base, in_target = set(in_base), set(in_target)
    roles = [[site.role for site in side] for side in (base, target)]
    if kind is not HeadKind.RIDGE and roles[0] != roles[1]:
        raise PortError(
            f"the source's head ({listed(roles[0]) or 'none'}) is built unlike the target's "
            f"({listed(roles[1]) or 'none'}): fit one with {setting('head')} ridge"
        )
    pairs = [Pair(*each) for each in zip(base, target, strict=False)]
    new = next(
        (
            i
            for i, (a, b) in enumerate(pairs)
            if a.role != b.role or a.role == LAST or a.weight.key not in in_base or b.weight.key not in in_target
        ),
        len(pairs),
    )
    if kind is HeadKind.RIDGE:
        return HeadLayers(tuple(pairs[:new]), made=tuple(target[new:]))
    return HeadLayers(tuple(pairs[:new]), tuple(pairs[new:]))


def carried(
    links: Sequence[Pair], head: Tensors, base: Side, target: Side, batches: Iterable[Batch]
) -> tuple[dict[str, Tensor], Fit]:
    """Return the target's head by tensor name, and the fit of its map: the fine-tune's head with its input mapped.

    R is the Procrustes map of the inputs of the first layer in A and B, and W_B = s W_A Rᵀ with s = ‖X_A‖/‖X_B‖,
    for a head reads features as they are, and these may be longer in one model than in the other. A layer between
    keeps its units: the target's extra units are zero, and stay so through tanh, GELU and ReLU; where there are fewer,
    those with the largest weights after them are kept.

    Args:
        links: the layers, in order.
        head: the fine-tune's tensors.
        base, target: the two bases, the base with the fine-tune's head.

    Raises:
        PortError: the samples determine nothing at the head's input.
    """
    first = links[:1]
    with torch.no_grad():
        seen = fill(Statistics(first, Wanted(frozenset({Signal.INPUT}))), base, target, first, batches)
    reads, fit = _reads(seen[links[0], Signal.INPUT])
    made: dict[str, Tensor] = {}
    for (a, b), after in zip(links, [*links[1:], None], strict=True):
        weight = a.weight.of(head[a.weight.key]).float()
        keep = (
            torch.eye(b.d_out, a.d_out)
            if after is None
            else _units(after.base.weight.of(head[after.base.weight.key]), b.d_out)
        )
        made[b.weight.key] = keep @ weight @ reads.to(weight).T
        if b.bias is not None:
            made[b.bias.key] = keep @ (a.bias.of(head[a.bias.key]).float() if a.bias else torch.zeros(a.d_out))
        reads = keep
    return made, fit


def _reads(moment: CrossMoment) -> tuple[Tensor, Fit]:
    """Return s R (d_B, d_A) of the rows that a head reads.

    Raises:
        PortError: they determine nothing.
    """
    try:
        factor, fit = moment.procrustes(rtol=CUT)
    except ValueError as error:
        raise PortError(f"the head's input: {error}") from error
    return (moment.energy_a / moment.energy_b) ** 0.5 * as_dense(factor), fit


def carried_layer(weight: Tensor, moment: CrossMoment) -> tuple[Tensor, Fit]:
    """Return a single layer's weight (d_out, d_B), carried as `carried` does, and the fit of its map.

    Args:
        weight: (d_out, d_A)
        moment: of its input.

    Raises:
        PortError: the samples determine nothing there.
    """
    reads, fit = _reads(moment)
    return weight @ reads.to(weight).T, fit


def _units(after: Tensor, wanted: int) -> Tensor:
    """Return a 0/1 matrix (wanted, d) that keeps a layer's units, those with the largest weights in `after` (·, d)."""
    d = after.shape[1]
    chosen = torch.arange(d) if wanted >= d else after.float().norm(dim=0).topk(wanted).indices.sort().values
    keep = torch.zeros(wanted, d)
    keep[torch.arange(len(chosen)), chosen] = 1
    return keep


def fitted(
    sites: Sequence[Site], model: nn.Module, loss: Loss, batches: Iterable[Encoded], fitting: Fitting
) -> dict[str, Tensor]:
    """Return a head fitted to the model as it is, by tensor name: the last layer by ridge, those before it identities.

    The layers before the last are also written into the model.

    Args:
        sites: the head's layers, in order.
        loss: runs the model on a batch.

    Raises:
        PortError: the features are all alike.
    """
    made: dict[str, Tensor] = {}
    for site in sites[:-1]:
        made[site.weight.key] = torch.eye(site.d_out, site.d_in)
        if site.bias:
            made[site.bias.key] = torch.zeros(site.d_out)
    place(model, made)
    last, rows, labels = sites[-1], [], []
    for batch in batches:
        seen: dict[Stream, Tensor] = {}
        with (
            torch.no_grad(),
            frozen(model),
            taps(model, [last], [Signal.INPUT], seen.__setitem__, samples_in(batch)),
        ):
            loss(model, batch)
        x, y = fitting.rows(seen[last.stream(Signal.INPUT)], batch)
        rows.append(x.cpu())
        labels.append(y.cpu())
    weight, bias = solved(fitting, torch.cat(rows), torch.cat(labels))
    made[last.weight.key] = weight
    if last.bias:
        made[last.bias.key] = bias
    return made


def place(model: nn.Module, tensors: Tensors) -> None:
    """Write tensors into a live model, by state-dict name."""
    state = model.state_dict()
    with torch.no_grad():
        for key, tensor in tensors.items():
            state[key].copy_(tensor)
