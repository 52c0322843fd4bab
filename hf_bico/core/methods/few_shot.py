"""The baselines that train the target itself on the same samples: on their labels, or on the fine-tune's answers."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from hf_bico.core.learn import RATES, Lesson, learn
from hf_bico.core.method import BACKWARD, FORWARD, UPDATE, Job, Method, Passes, Track, untracked
from hf_bico.core.moments import Statistics
from hf_bico.core.transport import Transported
from hf_bico.core.types import Wanted


@dataclass(frozen=True)
class FewShot(Method):
    """AdamW on the weights that a port would change, every step on all N samples; τ is not used."""

    name: ClassVar[str] = "few-shot"
    citation: ClassVar[str] = "arXiv:1711.05101"
    summary: ClassVar[str] = (
        "The new base's own layers take steps of AdamW on the labels of the calibration samples. Nothing of "
        "the fine-tune is used: this is what the samples alone are worth."
    )
    soft: ClassVar[bool] = False

    steps: int = 100
    """Steps of AdamW, each on all samples; one has the budget of a port, one forward–backward pass."""
    rate: Literal["auto"] | float = "auto"
    """AdamW's first learning rate; it falls to zero along a cosine. auto: the one of 1e-4, 3e-4 and 1e-3 with the
    least loss on samples that are held out; 3e-4 where none can be."""
    decay: float = 0.1
    """AdamW's weight decay."""
    views: bool = True
    """Whether every step is on other views of the samples (crops, brightness, dropped words), where they have some."""

    def __post_init__(self) -> None:
        self.lesson.check(self.name)

    @property
    def lesson(self) -> Lesson:
        """What it has the target learn."""
        return Lesson(self.steps, self.rate, self.decay, soft=self.soft, labels=not self.soft, views=self.views)

    @property
    def wanted(self) -> Wanted:
        return Wanted()

    @property
    def needs_loss(self) -> bool:
        return True

    @property
    def takes_unlabelled(self) -> bool:
        return self.soft

    def passes(self, a: float, b: float) -> Passes:
        lessons = 1 + len(RATES) * isinstance(self.rate, str)  # those that try a rate are given the same samples in all
        return Passes(
            (FORWARD + BACKWARD + UPDATE) * b + FORWARD * a * self.soft, before=0, moving=self.steps * lessons
        )

    def carry(self, job: Job, seen: Statistics, track: Track = untracked) -> Transported:
        delta, taught = learn(job, {}, self.lesson, track)
        return Transported(delta, (), taught=taught)
