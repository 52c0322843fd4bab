"""What a finished port is worth: a word, the reason and the next step, by the scores that were measured."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from scipy.stats import binomtest

from hf_bico.core.errors import setting
from hf_bico.tasks.scores import METRICS, Score, better, recovered

WORKS_FROM = 0.5
"""The share of the gap to the source's own score from which on a port works: a convention, as is half of anything."""
FEWEST = 10
"""The fewest answers that are held against chance: a convention. Even of ten, two classes ask for nine right ones,
which a source that is right nine times in ten gives in 3 cases of 4 alone."""
LEVEL = 0.05
"""The level of that test."""
OTHER_METHODS = "see whether another method gains: `hf-bico compare {asked}`; or fine-tune the new base"
MORE = "more samples (-n), or another method: `hf-bico compare {asked}` shows which"
ASKED = "SOURCE --to TARGET --dataset DATASET"
"""What a command is asked, where nobody knows it better."""
LABELS = (
    "look whether the dataset's classes are in the order of the model's labels (features of the label column, id2label "
    "in config.json), and whether it is the dataset and the split that the source was fine-tuned for"
)


class Word(StrEnum):
    """What a port is worth."""

    WORKS = "works"
    """It went at least half of the way to the source's own score, or there was none to go and it gained."""
    PARTLY = "partly"
    """It gained less."""
    NO_GAIN = "no gain"
    """It is as good as the target without it."""
    HARMFUL = "harmful"
    """By one metric at least it is worse."""


@dataclass(frozen=True)
class Worth:
    """The verdict on a finished port."""

    word: Word
    reason: str
    next: str
    """What to do now."""
    pushable: bool
    """Whether it is pushed without being told to push all the same."""


@dataclass(frozen=True)
class Scored:
    """The scores that a verdict goes by."""

    source: Score | None
    """The fine-tuned source's own; None where it is not on the target's scale."""
    start: Score
    """The target's without the port."""
    ported: Score
    baselines: Mapping[str, Score]
    """Method → the score of its port at the same α, of those that need no more than this one."""


def worth(
    scores: Scored, *, alpha: float = 1.0, unchanged: bool = False, classes: int = 0, asked: str = ASKED
) -> Worth:
    """Return what a port is worth.

    Args:
        alpha: the scale of the port, at which the baselines were scored too.
        unchanged: whether the port changes nothing.
        classes: of the task, for the source's score is held against chance; 0 where there are none.
        asked: the words that say which port it is, for the command that comes next.
    """
    others, more = OTHER_METHODS.format(asked=asked), MORE.format(asked=asked)
    start, ported, goal = scores.start, scores.ported, scores.source
    worse, best = _worse(ported, start), _best(scores)
    if unchanged:
        why = "α = 0" if alpha == 0 else "the change that was carried over is zero"
        return Worth(Word.NO_GAIN, f"the port is the new base as it was: {why}", others, False)
    lost = f"the port scores {', '.join(worse)}{_doubt(ported, start)}" if worse else ""
    if goal and at_chance(goal, classes):
        reason = "; ".join(filter(None, (lost, chance_reason(goal, classes))))
        return Worth(Word.HARMFUL if worse else Word.NO_GAIN, reason, LABELS, False)
    if worse:
        return Worth(Word.HARMFUL, lost + _after(resting(ported)), _instead(best, alpha) or others, False)
    gap = recovered(ported.value, start.value, goal.value, ported.metric) if goal else None
    word = _word(scores, gap)
    told = f"the port scores {ported}, the new base without it {start}"
    if gap is not None and goal:
        told += f": {gap:.0%} of the way to the source's own score, {goal}"
    told += _doubt(ported, start) if word is not Word.NO_GAIN else ""
    if best:
        name, score = best
        told += f"; {_called(name)} scores {score}{_doubt(ported, score)}"
    told += _after(resting(ported))
    step = _instead(best, alpha) or {Word.NO_GAIN: others, Word.PARTLY: more}.get(word, "nothing more: use it")
    return Worth(word, told, step, word is not Word.NO_GAIN and best is None)


def refusal_of(verdict: Worth) -> str | None:
    """Return why a port is not pushed, as one line; None if it may be pushed."""
    if verdict.pushable:
        return None
    return f"not pushed: {verdict.reason}; {verdict.next}; {setting('allow_regression')} pushes it all the same"


def at_chance(score: Score, classes: int) -> bool:
    """Return whether the interval of an accuracy includes chance, 1/K, or lies below it; never of few answers."""
    return classes > 1 and score.metric == "accuracy" and score.n >= FEWEST and score.low <= 1 / classes


def may_be_chance(right: int, n: int, classes: int) -> bool:
    """Return whether a binomial test (one-sided, 5 %) fails to tell so many right answers of n from chance, 1/K; never
    of few answers.
    """
    return classes > 1 and n >= FEWEST and binomtest(right, n, 1 / classes, alternative="greater").pvalue > LEVEL


def chance_reason(score: Score, classes: int) -> str:
    """Return what is said of a source that is no better than chance."""
    return (
        f"the fine-tuned source itself scores {score} on {score.n} samples ({score.interval}), which is no better than "
        f"chance ({1 / classes:.1%} of {classes} classes)"
    )


def resting(score: Score) -> str:
    """Return what is said of a score on so few samples that its interval is wide; empty of any other."""
    if not score.is_wide:
        return ""
    return f"this rests on {score.n} samples, and the 95 % interval is wide ({score.interval})"


def _after(said: str) -> str:
    return f"; {said}" if said else ""


def _word(scores: Scored, gap: float | None) -> Word:
    if not better(scores.ported, scores.start):
        return Word.NO_GAIN
    if gap is None:  # beyond the source already; or nobody knows how far it is
        return Word.WORKS if scores.source else Word.PARTLY
    return Word.WORKS if gap >= WORKS_FROM else Word.PARTLY


def _worse(ported: Score, start: Score) -> list[str]:
    """Return the metrics by which a port is worse than the target without it, in words."""

    def lost_by(name: str, now: float, before: float) -> str | None:
        metric = METRICS[name]
        if now == before or (now > before) == metric.higher:
            return None
        return f"{metric.show(now)} ({name}), worse than the new base without it ({metric.show(before)})"

    also = [lost_by(name, ported.also[name], start.also[name]) for name in ported.also if name in start.also]
    return [each for each in (lost_by(ported.metric, ported.value, start.value), *also) if each]


def _best(scores: Scored) -> tuple[str, Score] | None:
    """Return the best of the baselines that gain and are better than the port; None if there is none."""
    best: tuple[str, Score] | None = None
    for name, score in scores.baselines.items():
        if better(score, scores.start) and better(score, best[1] if best else scores.ported):
            best = name, score
    return best


def _instead(best: tuple[str, Score] | None, alpha: float) -> str:
    if best is None:
        return ""
    scale = "" if alpha == 1 else f" --alpha {alpha:g}"
    return f"{_called(best[0])} is better: use --method {best[0]}{scale}"


def _called(method: str) -> str:
    return "the naive copy" if method == "naive" else f"the port by {method}"


def _doubt(a: Score, b: Score) -> str:
    """Return the words for a difference that may be none."""
    if a.value != b.value and (b.low <= a.value <= b.high or a.low <= b.value <= a.high):
        return " (the difference lies within the 95 % interval: it is uncertain)"
    return ""
