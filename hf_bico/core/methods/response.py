"""Responses carried over: what a fine-tune does to the samples, reproduced layer by layer in closed form."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, NamedTuple

from torch import Tensor, nn

from hf_bico.core.collect import frozen
from hf_bico.core.errors import PortError
from hf_bico.core.linalg import polar_factor
from hf_bico.core.low_rank import Delta, LowRank
from hf_bico.core.method import FORWARD, Job, Passes, Track, untracked
from hf_bico.core.methods.two_sided import TwoSided
from hf_bico.core.moments import Statistics
from hf_bico.core.ridge import HeldOut
from hf_bico.core.side_by_side import SideBySide
from hf_bico.core.transport import Moved, Transported, part_of
from hf_bico.core.types import BilinearMap, Fit, Pair, Signal, Wanted

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
        "the calibration samples change as the fine-tune changed those of its own base, turned by the orthogonal map of "
        "BiCo: a ridge regression in closed form, drawn to R_out τ R_inᵀ. Nothing is trained."
    )
    left: ClassVar[Signal] = Signal.OUTPUT_GRADIENT
    right: ClassVar[Signal] = Signal.INPUT

    maps: Literal["both", "gradient", "output"] = "both"
    """What R_out is the orthogonal map of: the loss's gradients at the outputs, the centred outputs, which need no
    labels, or the two moments together, each divided by its nuclear norm."""
    ridge: Literal["auto"] | float = "auto"
    """λ; auto chooses for every layer what predicts the responses of held-out samples best."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ridge != "auto" and not 0 < self.ridge < float("inf"):
            raise PortError(f"ridge = {self.ridge}: give a number above 0, or auto")
        if self.completion != "cut":
            raise PortError("response has no completion: what the samples do not determine is left to the ridge")

    @property
    def wanted(self) -> Wanted:
        return Wanted(frozenset({Signal.INPUT, *SIGNALS[self.maps]}))

    @property
    def why_not_storable(self) -> str | None:
        return "it reproduces what one fine-tune does to the samples"

    def passes(self, a: float, b: float) -> Passes:
        usual = super().passes(a, b)
        return replace(usual, flops=usual.flops + 2 * FORWARD * (a + b), solved=2)

    def _side(self, pair: Pair, seen: Statistics, signal: Signal | None) -> tuple[Tensor | None, Fit | None]:
        if signal is not Signal.OUTPUT_GRADIENT:
            return super()._side(pair, seen, signal)
        try:
            moments = [seen[pair, each] for each in SIGNALS[self.maps]]
            moments = [each.centred() if each is seen[pair, Signal.OUTPUT] else each for each in moments]
            found = [(each, polar_factor(each.cross, rtol=self.rtol, removed=each.removed)) for each in moments]
            if len(found) == 1:
                return moments[0].procrustes(rtol=self.rtol)
            total = sum(each.cross / polar.nuclear for each, polar in found)
            factor, rank, _ = polar_factor(total, rtol=self.rtol)
        except ValueError as error:
            raise PortError(f"{pair.target.name}, {signal.value}: {error}") from error
        first = moments[0]
        match = float((factor * first.cross).sum()) ** 2 / (first.energy_a * first.energy_b)
        return factor, Fit(rank, min(factor.shape), min(1.0, max(0.0, 1.0 - match)))

    def carry(self, job: Job, seen: Statistics, track: Track = untracked) -> Transported:
        delta, moved, maps = Delta(job.weights), [], _Maps(self.plan(job.pairs, seen))
        with ExitStack() as stack:
            for model in (job.base.model, job.target.model):
                stack.enter_context(frozen(model))
            passes = stack.enter_context(SideBySide(job, seen))
            weights = len({pair.target.weight.key for pair in job.pairs})
            for sites in track(passes, f"Carrying responses ({self.name})", weights):
                for site in sites:
                    pair, map_ = maps.of(site.name)
                    change, ridge = self._change(_moved_by(map_, pair, job), pair, map_, passes)
                    passes.add(site, change.of)
                    delta.write(site.weight, change.weight)
                    if change.bias is not None:
                        delta.write(site.bias, change.bias)
                    moved.append(_told(job, pair, map_, change, ridge))
        return Transported(delta, moved)

    def _change(self, anchor: "Change", pair: Pair, map_: BilinearMap, passes: SideBySide) -> tuple["Change", float]:
        """Return the ridge regression onto the responses that are wanted, drawn to the anchor; and its λ."""
        sums = HeldOut(one_more=anchor.bias is not None)
        for rows in passes.rows(pair):
            wanted = rows.response if map_.left is None else rows.response @ map_.left.T.to(rows.response)
            sums.add(rows.x, rows.before + wanted - rows.now - anchor.of(rows.x), rows.sample)
        more, ridge = sums.solved(None if self.ridge == "auto" else self.ridge)
        d_in = anchor.weight.shape[1]
        return Change(
            anchor.weight + more[:, :d_in], None if anchor.bias is None else anchor.bias + more[:, d_in]
        ), ridge


class Change(NamedTuple):
    """What a layer changes by."""

    weight: Tensor
    """(d_out, d_in)"""
    bias: Tensor | None
    """(d_out,); None for a layer that has no bias."""

    def of(self, x: Tensor) -> Tensor:
        """Return what it adds to the outputs of rows x (…, d_in)."""
        return nn.functional.linear(x, self.weight.to(x), None if self.bias is None else self.bias.to(x))


class _Maps:
    """A plan whose maps are made as they are asked for, in whatever order."""

    def __init__(self, plan: Iterator[tuple[Pair, BilinearMap]]) -> None:
        self.plan = plan
        self.waiting: dict[str, tuple[Pair, BilinearMap]] = {}

    def of(self, name: str) -> tuple[Pair, BilinearMap]:
        while name not in self.waiting:
            pair, map_ = next(self.plan)
            self.waiting[pair.target.name] = pair, map_
        return self.waiting.pop(name)


def _moved_by(map_: BilinearMap, pair: Pair, job: Job) -> Change:
    """Return R_out τ R_inᵀ of one layer."""
    base, target = pair
    tau = part_of(job.tau, base.weight)
    weight = map_.weight(tau.dense() if isinstance(tau, LowRank) else tau)
    if target.bias is None:
        return Change(weight, None)
    bias = weight.new_zeros(target.d_out) if base.bias is None else map_.bias(base.bias.of(job.tau[base.bias.key]))
    return Change(weight, bias.to(weight))


def _told(job: Job, pair: Pair, map_: BilinearMap, change: Change, ridge: float) -> Moved:
    norm = float(part_of(job.tau, pair.base.weight).norm())
    kept = (float(change.weight.norm()) / norm) ** 2 if norm else 1.0
    return Moved(pair.base.name, pair.target.name, norm, kept, 1.0, map_.output_fit, map_.input_fit, ridge)
