"""A port that is trained further, towards the fine-tune's own answers."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal

from hf_bico.core.chain import within_memory
from hf_bico.core.errors import PortError, setting
from hf_bico.core.learn import RATES, Lesson, learn
from hf_bico.core.learnt import LoRA, Scales
from hf_bico.core.method import BACKWARD, FORWARD, UPDATE, Job, Method, Passes, Track, untracked
from hf_bico.core.moments import Statistics
from hf_bico.core.transport import Transported
from hf_bico.core.types import Map, Pair, Wanted

RATES_OF_SCALES, RATE_OF_SCALES = (0.01, 0.03, 0.1, 0.3), 0.03
"""The rates that are tried for coefficients, which are near 1 whatever the model; and the one where none can be."""


@dataclass(frozen=True)
class Polish:
    """How a port is trained further; after 0 steps it is as it was."""

    steps: int = 0
    """Steps of AdamW, each on all samples."""
    rank: int | None = None
    """Rank of a LoRA beside the port that is trained in place of the weights."""
    scales: int | None = None
    """How many singular directions of a matrix's change get a coefficient, trained in place of the weights."""
    rate: Literal["auto"] | float = "auto"
    """AdamW's first rate; auto: that of a grid with the least loss on held-out samples."""

    def __post_init__(self) -> None:
        counts = {"polish": self.steps, "polish_rank": self.rank, "scales": self.scales}
        for name, count in counts.items():
            if count is not None and count < (name != "polish"):
                raise PortError(f"{setting(name)} {count} is too few: give {int(name != 'polish')} or more")
        if self.rank is not None and self.scales is not None:
            raise PortError(f"{setting('polish_rank')} and {setting('scales')} both say what is trained: give one")
        if not self.steps and (self.rank, self.scales) != (None, None):
            name = "scales" if self.rank is None else "polish_rank"
            raise PortError(f"{setting(name)} is of a polish, and there is none: give {setting('polish')} STEPS too")

    def lesson(self, job: Job) -> Lesson:
        """Return what a target learns: the fine-tune's own answers, or the labels where it has none to give."""
        soft = None not in (job.base.answers, job.target.answers)
        lesson = Lesson(max(self.steps, 1), self.rate, soft=soft, labels=not soft)
        if self.scales is not None:
            made = Scales(self.scales)
            return replace(lesson, make=made, rates=RATES_OF_SCALES, default=RATE_OF_SCALES, decay=0.0)
        return lesson if self.rank is None else replace(lesson, make=LoRA(self.rank))


@dataclass(frozen=True)
class Polished(Method):
    """A method's port, trained further."""

    name: ClassVar[str] = "polish"
    citation: ClassVar[str] = "arXiv:1503.02531"
    summary: ClassVar[str] = "A port is trained further, towards the fine-tune's own answers on the samples."

    method: Method
    polish: Polish

    @property
    def wanted(self) -> Wanted:
        return self.method.wanted

    @property
    def collected(self) -> Wanted:
        return self.method.collected

    @property
    def held(self) -> int:
        return self.method.held

    @property
    def needs_loss(self) -> bool:
        return self.method.needs_loss

    @property
    def takes_unlabelled(self) -> bool:
        return True

    @property
    def options(self) -> dict[str, Any]:
        return self.method.options | {"polish": asdict(self.polish)}

    def passes(self, a: float, b: float) -> Passes:
        own, lessons = self.method.passes(a, b), 1 + len(RATES)
        step = FORWARD * a + (FORWARD + BACKWARD + UPDATE) * b
        if not own.flops:
            return Passes(step, before=0, moving=self.polish.steps * lessons, solved=own.solved)
        return replace(own, moving=own.moving + round(self.polish.steps * lessons * step / own.flops))

    def check(self, pairs: Sequence[Pair]) -> None:
        self.method.check(pairs)

    def plan(self, pairs: Sequence[Pair], seen: Statistics) -> Iterator[tuple[Pair, Map]]:
        return self.method.plan(pairs, seen)

    def carry(self, job: Job, seen: Statistics, track: Track = untracked) -> Transported:
        return polished(self.method.carry(job, seen, track), job, self.polish, track)


def polished(port: Transported, job: Job, polish: Polish, track: Track = untracked) -> Transported:
    """Return a port trained further; after 0 steps the port itself.

    Raises:
        PortError: as for `learn`; the device is out of memory.
    """
    if not polish.steps:
        return port
    with within_memory():
        delta, taught = learn(job, port.delta, polish.lesson(job), track)
    return replace(port, delta=delta, taught=taught)
