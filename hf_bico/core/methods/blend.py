"""The mean of two changes that are wrong in different ways; not from a paper."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from hf_bico.core.low_rank import Delta
from hf_bico.core.method import Job, Method, Passes, Track, union, untracked
from hf_bico.core.methods.response import Response
from hf_bico.core.methods.weighted import Weighted
from hf_bico.core.moments import Statistics
from hf_bico.core.transport import Transported
from hf_bico.core.types import Pair, Wanted


@dataclass(frozen=True)
class Blend(Method):
    """(Δ of `weighted` + Δ of `response`) / 2.

    One moves τ by maps, the other asks what τ does to the samples. Few samples leave either with errors of its own, of
    which the mean keeps half, and with a signal in common, which it keeps whole.
    """

    name: ClassVar[str] = "blend"
    citation: ClassVar[str] = "after arXiv:2605.28444"
    summary: ClassVar[str] = (
        "The mean of two changes: τ moved by two orthogonal maps a layer, from weighted gradients and activations, and "
        "a change in closed form that does to the samples what the fine-tune does to them, a layer after the other."
    )

    views: int = 0
    """How often the samples are seen again, changed a little; the time grows with it."""

    @property
    def parts(self) -> tuple[Method, ...]:
        return Weighted(views=self.views), Response(views=self.views)

    @property
    def wanted(self) -> Wanted:
        return union(self.parts)

    @property
    def why_not_storable(self) -> str | None:
        return "one half of it reproduces what one fine-tune does to the samples"

    def check(self, pairs: Sequence[Pair]) -> None:
        for part in self.parts:
            part.check(pairs)

    def passes(self, a: float, b: float) -> Passes:
        weighted, response = (part.passes(a, b) for part in self.parts)
        return replace(response, solved=weighted.solved + response.solved)

    def carry(self, job: Job, seen: Statistics, track: Track = untracked) -> Transported:
        results = [part.carry(job, seen, track) for part in self.parts]
        return replace(results[-1], delta=self.combined([result.delta for result in results]))

    def combined(self, deltas: Sequence[Delta]) -> Delta:
        return mean(deltas)


def mean(deltas: Sequence[Delta]) -> Delta:
    """Return the mean of changes of the same tensors, dense."""
    keys = dict.fromkeys(key for delta in deltas for key in delta)
    return Delta.of(
        {key: torch.stack([delta[key] for delta in deltas if key in delta]).sum(0) / len(deltas) for key in keys}
    )
