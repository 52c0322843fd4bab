"""The choice among all methods, by samples that are held out."""

from dataclasses import dataclass, replace
from typing import ClassVar

from hf_bico.core.choice import Chosen, Made, choose
from hf_bico.core.errors import PortError, setting
from hf_bico.core.method import FORWARD, Job, Method, Passes, Track, union, untracked
from hf_bico.core.methods.bico import BiCo
from hf_bico.core.methods.blend import Blend
from hf_bico.core.methods.naive import Naive
from hf_bico.core.methods.response import Response
from hf_bico.core.methods.weighted import Weighted
from hf_bico.core.moments import Statistics
from hf_bico.core.types import Wanted

VIEWS = 4
"""How often the samples are seen again by the candidates that look again."""
TRIED = 3.5
"""Scales that a candidate is tried at, as a guess: three, and up to five where the best is not 1."""
CANDIDATES: tuple[Method, ...] = (
    Naive(),
    BiCo(),
    Weighted(),
    Response(),
    Blend(),
    Response(views=VIEWS),
    Blend(views=VIEWS),
)
"""What is tried, simple things first: of equals the first is taken."""


@dataclass(frozen=True)
class Auto(Method):
    """Make a port from either half of the samples with every candidate, and take what does best on the other half.

    What moves beside the linear maps is taken too if that does no harm there. Each half's samples pass once; every
    candidate is made from the same sums, and tried at scales of `ALPHAS`, downhill from 1, by the target's loss. The
    one that is taken is made anew from the sums of both halves.
    """

    name: ClassVar[str] = "auto"
    citation: ClassVar[str] = "after arXiv:2605.28444"
    summary: ClassVar[str] = (
        "Several training-free methods are tried on the calibration samples: made from one half of them, each at "
        "several scales, and scored by the new base's loss on the other half. The best is made anew from all of them."
    )

    @property
    def wanted(self) -> Wanted:
        return union(method for method in CANDIDATES if not method.wanted.views)

    @property
    def collected(self) -> Wanted:
        return Wanted()  # either half's sums are, and make those of all samples

    @property
    def needs_loss(self) -> bool:
        return True

    @property
    def why_not_storable(self) -> str | None:
        return "what it takes depends on the fine-tune"

    def passes(self, a: float, b: float) -> Passes:
        """Return passes while τ is moved: of the folds, with all candidates tried on them."""
        each = [method.passes(a, b) for method in CANDIDATES]
        usual = super().passes(a, b)
        walked = sum(max(passes.flops - usual.flops, 0.0) for passes in each)
        tried = len(CANDIDATES) * TRIED * FORWARD * b
        solved = 2 * sum(passes.solved for passes in each)  # on either half; and once more what is taken
        return replace(usual, flops=usual.flops + walked + tried, before=0, moving=1, solved=solved)

    def carry(self, job: Job, seen: Statistics, track: Track = untracked) -> Chosen:
        if not job.folds:
            raise PortError(
                "auto chooses on samples that are held out, and there are too few to part, or there is no loss to go "
                f"by: give more, or name a {setting('method')}"
            )
        made = Made(job, CANDIDATES)
        method, choice = choose(made, track)
        result = method.carry(job if choice.beside else replace(job, rides=()), made.whole(method), track)
        return Chosen(
            result.delta.scaled(choice.chosen.alpha),
            result.moved,
            rode=result.rode,
            method=method,
            choice=choice,
            made=made,
        )
