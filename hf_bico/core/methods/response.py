"""Responses carried over: what a fine-tune does to the samples, reproduced layer by layer in closed form."""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from hf_bico.core.collect import frozen
from hf_bico.core.errors import PortError
from hf_bico.core.kernels import as_matrix, as_taps
from hf_bico.core.linalg import polar_factor
from hf_bico.core.low_rank import Delta, Factor, LowRank
from hf_bico.core.merging import rank_limit
from hf_bico.core.method import FORWARD, Job, Passes, Track, require_one_mlp, untracked
from hf_bico.core.methods.two_sided import TwoSided
from hf_bico.core.moments import CrossMoment, Statistics
from hf_bico.core.riders import Ride, Rode, along, by_site
from hf_bico.core.ridge import Regression
from hf_bico.core.side_by_side import SideBySide
from hf_bico.core.transport import Moved, Transported, move, require_finite
from hf_bico.core.types import BilinearMap, Fit, Pair, Signal, Site, Tensors, Wanted

SIGNALS = {
    "both": (Signal.OUTPUT_GRADIENT, Signal.OUTPUT),
    "gradient": (Signal.OUTPUT_GRADIENT,),
    "output": (Signal.OUTPUT,),
}
"""What R_out is made of."""


@dataclass(frozen=True)
class Response(TwoSided):
    """Reproduce on the target what the fine-tune does to the outputs of every layer on the calibration samples.

    With X_B, Y_B the target's inputs and outputs, Y_A and Y_ft those of the source's layer before and after its
    fine-tune, and X_B′ the target's inputs as they are once the layers below have changed, for one layer after the
    other in the order of the forward pass:

        want = Y_B + (Y_ft − Y_A) R_outᵀ
        ΔW   = argmin ‖X_B′ (W_B + ΔW)ᵀ − want‖² + λ m ‖ΔW − R_out τ R_inᵀ‖²

    R_out and R_in are orthogonal maps as BiCo's, m is the mean of the diagonal of X_B′ᵀX_B′, and a bias is a column of
    ones. λ → ∞ is BiCo under this R_out. The cost beside BiCo's is two forward passes of either base.
    """

    name: ClassVar[str] = "response"
    citation: ClassVar[str] = "after arXiv:2605.28444"
    summary: ClassVar[str] = (
        "Layer by layer, in the order of the forward pass, the new base's weights are changed so that its outputs on "
        "the calibration samples change as the fine-tune changed those of its own base, turned by BiCo's orthogonal "
        "map: a ridge regression in closed form, drawn to R_out τ R_inᵀ. Nothing is trained."
    )
    left: ClassVar[Signal] = Signal.OUTPUT_GRADIENT
    right: ClassVar[Signal] = Signal.INPUT

    maps: Literal["both", "gradient", "output"] = "both"
    """What R_out is the orthogonal map of: the loss's gradients at the outputs, the centred outputs, which need no
    labels, or the two moments together, each divided by what a perfect match would give."""
    ridge: Literal["auto"] | float = "auto"
    """λ; auto chooses for every layer what predicts the responses of held-out samples best."""

    views: int = 0
    """How often the samples are seen again, changed a little, for the maps and the regressions; the time grows with
    it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.views < 0:
            raise PortError(f"views = {self.views}: give 0 or more")
        if self.ridge != "auto" and not 0 < self.ridge < float("inf"):
            raise PortError(f"ridge = {self.ridge}: give a number above 0, or auto")
        if self.completion != "cut":
            raise PortError("response has no completion: what the samples do not determine is left to the ridge")

    @property
    def wanted(self) -> Wanted:
        return Wanted(frozenset({Signal.INPUT, *SIGNALS[self.maps]}), views=self.views, mlp=self.mlp)

    @property
    def why_not_storable(self) -> str | None:
        return "it reproduces what one fine-tune does to the samples"

    @property
    def by_layer(self) -> bool:
        return False

    def check(self, pairs: Sequence[Pair]) -> None:
        require_one_mlp(self.name, pairs)
        super().check(pairs)

    def passes(self, a: float, b: float) -> Passes:
        usual = super().passes(a, b)
        return replace(usual, flops=usual.flops + (1 + self.views) * 2 * FORWARD * (a + b), solved=2)

    def _map(self, pair: Pair, seen: Statistics, signal: Signal) -> tuple[Factor, Fit]:
        if signal is not Signal.OUTPUT_GRADIENT:
            return super()._map(pair, seen, signal)
        moments = [
            seen[pair, each].centred() if each is Signal.OUTPUT else seen[pair, each] for each in SIGNALS[self.maps]
        ]
        limit = rank_limit(pair, signal, self.mlp)
        return (
            moments[0].procrustes(rtol=self.rtol, limit=limit)
            if len(moments) == 1
            else together(moments, self.rtol, limit)
        )

    def carry(self, job: Job, seen: Statistics, track: Track = untracked) -> Transported:
        moved: list[Moved] = []
        delta, maps = Delta(job.weights), _Maps(self.plan(job.pairs, seen))
        with ExitStack() as stack:
            for model in (job.base.model, job.target.model):
                stack.enter_context(frozen(model))
            passes = stack.enter_context(SideBySide(job, seen, self.views))
            weights = len({pair.target.weight.key for pair in job.pairs})
            riding = _Riding(job, maps, passes, delta)
            for sites in track(passes, f"Carrying responses ({self.name})", weights):
                layers = [maps.of(site.name) for site in sites]
                anchors, told = zip(*(_anchor(job.tau, *layer) for layer in layers), strict=True)
                changes, ridge = self._changes(layers, anchors, passes)
                moved += [replace(each, ridge=ridge) for each in told]
                for site, change in zip(sites, changes, strict=True):
                    passes.add(site, change.of)
                    delta.write(site.weight, change.taps(site))
                    if site.bias is not None and change.bias is not None:
                        delta.write(site.bias, change.bias)
                riding.after(dict(zip((site.name for site in sites), (map_ for _, map_ in layers), strict=True)))
        require_finite(delta)
        return Transported(delta, moved, rode=riding.rode)

    def _changes(
        self, layers: Sequence[tuple[Pair, BilinearMap]], anchors: Sequence["Change"], passes: SideBySide
    ) -> tuple[list["Change"], float]:
        """Return the ridge regressions of the layers in one weight onto the responses that are wanted, drawn to their
        anchors; and the λ that they share.
        """
        sums = Regression(None if self.ridge == "auto" else self.ridge, one_more=anchors[0].bias is not None)
        for rows in passes.rows([pair for pair, _ in layers]):
            each = zip(rows.before, rows.now, rows.responses, layers, strict=True)
            wanted = [before - now + map_.outputs(response) for before, now, response, (_, map_) in each]
            sums.add(rows.x, wanted[0] if len(wanted) == 1 else torch.cat(wanted, dim=1), rows.sample)
        try:
            solved, ridge = sums.solved(torch.cat([anchor.whole for anchor in anchors]))
        except (ValueError, torch.linalg.LinAlgError) as error:
            raise PortError(f"{layers[0][0].target.name}: the samples give no regression: {error}") from error
        parts = torch.split(solved, [len(anchor.weight) for anchor in anchors])
        return [anchor.replaced(part) for anchor, part in zip(anchors, parts, strict=True)], ridge


def together(moments: Sequence[CrossMoment], rtol: float, limit: int | None = None) -> tuple[Factor, Fit]:
    """Return the orthogonal map of several cross-moments of the same coordinates, each over ‖A‖ ‖B‖ of its rows.

    That is what its nuclear norm would be if the two sides matched perfectly. The fit's residual is that of the first
    under this map. `limit` is as for `polar_factor`.
    """
    crosses = [moment.cross for moment in moments if moment.cross is not None]
    if not crosses:
        raise ValueError("there are no calibration samples")
    energies = [(moment.energy_a, moment.energy_b) for moment in moments]
    sizes = [math.sqrt(a * b) if min(a, b) > 0 else math.inf for a, b in energies]
    mixed = torch.stack([cross / size for cross, size in zip(crosses, sizes, strict=True)]).sum(0)
    rows = sum(moment.greatest_rank for moment in moments)
    found = polar_factor(mixed, rtol=rtol, rows=rows, limit=limit)
    return found.small, moments[0].fit(found.rank, float(((found.left.T @ crosses[0]) * found.right).sum()))


class Change(NamedTuple):
    """What a layer changes by."""

    weight: Tensor
    """(d_out, d_in); of a convolution (d_out, d_in · taps), as its patches are."""
    bias: Tensor | None
    """(d_out,); None for a layer that has no bias."""

    def taps(self, site: Site) -> Tensor:
        """Return the weight as a site has it: a convolution's as a matrix a tap."""
        return self.weight if site.window is None else as_taps(self.weight, site.window)

    @property
    def whole(self) -> Tensor:
        """(d_out, d_in), and one more column for the bias where there is one."""
        return self.weight if self.bias is None else torch.cat([self.weight, self.bias[:, None]], dim=1)

    def replaced(self, whole: Tensor) -> "Change":
        """Return the change of the same form that is `whole`."""
        whole = whole.to(self.weight)
        return Change(whole, None) if self.bias is None else Change(whole[:, :-1], whole[:, -1])

    def of(self, x: Tensor) -> Tensor:
        """Return what it adds to the outputs of rows x (…, d_in)."""
        return nn.functional.linear(x, self.weight.to(x), None if self.bias is None else self.bias.to(x))


class _Maps:
    """A plan whose maps are made as they are asked for, in whatever order."""

    def __init__(self, plan: Iterator[tuple[Pair, BilinearMap]]) -> None:
        self.plan = plan
        self.waiting: dict[str, tuple[Pair, BilinearMap]] = {}

    def of(self, name: str) -> tuple[Pair, BilinearMap]:
        found = self.ahead(name)
        del self.waiting[name]
        return found

    def ahead(self, name: str) -> tuple[Pair, BilinearMap]:
        """Return a map that will be asked for again."""
        while name not in self.waiting:
            pair, map_ = next(self.plan)
            self.waiting[pair.target.name] = pair, map_
        return self.waiting[name]


class _Riding:
    """What moves beside the linear maps, put into the changed passes before they come to it.

    What is made by a map's input side comes before the map runs, what by its output side after; of the first block,
    that which no block has (embeddings) comes first of all.
    """

    def __init__(self, job: Job, maps: _Maps, passes: SideBySide, delta: Delta) -> None:
        self.job, self.maps, self.passes, self.delta = job, maps, passes, delta
        self.riding = by_site(job.rides)
        self.order = [pair.target for pair in job.pairs]
        self.place = {site.name: i for i, site in enumerate(self.order)}
        self.rode: list[Rode] = []
        for site in self.order:
            early = [ride for ride in self.riding[site.name] if ride.target.depth is None and site.depth == 0]
            if early:
                self._ride(site.name, early, maps.ahead(site.name)[1])
        self._before(self.order[:1])

    def after(self, done: dict[str, BilinearMap]) -> None:
        """Go on from sites that the passes are at, whose maps these are, to the next."""
        for name, map_ in done.items():
            self._ride(name, self.riding[name], map_)
        last = max(self.place[name] for name in done)
        self._before(self.order[last + 1 : last + 2])

    def _before(self, sites: Sequence[Site]) -> None:
        for site in sites:
            rides = [ride for ride in self.riding[site.name] if ride.target.side == "in"]
            if rides:
                self._ride(site.name, rides, self.maps.ahead(site.name)[1])

    def _ride(self, name: str, rides: Sequence[Ride], map_: BilinearMap) -> None:
        for key, change, told in along(self.job.tau, rides, map_, self.job.weights):
            self.delta.put(key, change)
            self.passes.replace(key, change)
            self.rode.append(told)
        self.riding[name] = [ride for ride in self.riding[name] if ride not in rides]


def _anchor(tau: Tensors, pair: Pair, map_: BilinearMap) -> tuple[Change, Moved]:
    """Return R_out τ R_inᵀ of one layer, dense and with a bias where the target has one; and what is told of it."""
    weight, bias, told = move(tau, pair, map_)
    dense = weight.dense() if isinstance(weight, LowRank) else as_matrix(weight)
    if pair.target.bias is not None:
        bias = dense.new_zeros(len(dense)) if bias is None else bias.to(dense)
    return Change(dense, bias), told
