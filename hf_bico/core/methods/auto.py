"""The choice among all methods, by samples that are held out."""

from dataclasses import dataclass, replace
from typing import ClassVar

from hf_bico.core.choice import ALPHAS, Chosen, choose
from hf_bico.core.errors import PortError, setting
from hf_bico.core.method import FORWARD, Job, Method, Passes, Track, union, untracked
from hf_bico.core.methods.bico import BiCo
from hf_bico.core.methods.naive import Naive
from hf_bico.core.methods.response import Response
from hf_bico.core.methods.weighted import Weighted
from hf_bico.core.moments import Folded, Statistics
from hf_bico.core.types import Wanted

CANDIDATES: tuple[Method, ...] = (
    Naive(),
    BiCo(),
    Weighted(),
    Response(),
    Response(ridge=1.0),
    Response(ridge=10.0),
    Response(maps="output"),
    Response(maps="output", ridge=1.0),
)
"""What is tried, simple things first: of equals the first is taken."""
FOLDS = 2


@dataclass(frozen=True)
class Auto(Method):
    """Make a port from either half of the samples with every candidate, and take what does best on the other half.

    The samples pass once; every candidate is made from the same sums, and tried at every scale of `ALPHAS` by the
    target's loss. The one that is taken is made anew from all samples.
    """

    name: ClassVar[str] = "auto"
    citation: ClassVar[str] = "after arXiv:2605.28444"
    summary: ClassVar[str] = (
        "Several training-free methods are tried on the calibration samples: made from one half of them, each at "
        "several scales, and scored by the new base's loss on the other half. The best is made anew from all of them."
    )

    @property
    def wanted(self) -> Wanted:
        return replace(union(CANDIDATES), folded=True)

    @property
    def needs_loss(self) -> bool:
        return True

    @property
    def why_not_storable(self) -> str | None:
        return "what it takes depends on the fine-tune"

    def passes(self, a: float, b: float) -> Passes:
        each = [method.passes(a, b) for method in CANDIDATES]
        further = sum(passes.flops for passes in each) - len(each) * each[1].flops
        tried = len(CANDIDATES) * len(ALPHAS) * FORWARD * b
        usual = super().passes(a, b)
        solved = sum(passes.solved for passes in each)
        return replace(usual, flops=usual.flops + max(further, 0.0) + tried, solved=(FOLDS + 1) * solved)

    def carry(self, job: Job, seen: Statistics, track: Track = untracked) -> Chosen:
        if not isinstance(seen, Folded):
            raise PortError(
                f"auto chooses on samples that are held out, and there are too few to part: give more, or "
                f"name a {setting('method')}"
            )
        method, choice = choose(job, CANDIDATES, seen, track)
        result = method.carry(job, seen.whole(job.pairs), track)
        return Chosen(result.delta.scaled(choice.chosen.alpha), result.moved, method, choice)
