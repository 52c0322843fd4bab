"""Whether a port is worth making, by what a few samples show. docs/check.md has the figures behind it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from hf_bico.core.errors import setting, spelled
from hf_bico.core.pairing import Blocks
from hf_bico.core.transport import Moved
from hf_bico.core.types import Fit

LEAST_GAP = 0.01
"""Share of a loss below which a difference is no gap."""


@dataclass(frozen=True)
class Trial:
    """A trial port, scored on samples that it was not made from: a loss, or errors, summed over all samples."""

    before: float
    """The target's, without the port."""
    after: float
    """The target's with it: on either half, that of the port made from the other half."""
    source: float
    """The fine-tuned source's own."""
    what: str = "loss"
    """What is summed; errors where the head is fitted to few samples and does not say how sure it is."""
    naive: float | None = None
    """The target's with the naive copy."""

    @property
    def recovered(self) -> float | None:
        """Share of the gap to the source's loss that the port closed; None where there is no gap to speak of."""
        return self.closed(self.after)

    def closed(self, after: float) -> float | None:
        """Return the share of the gap to the source's loss that a change to this loss closes, or None."""
        gap = self.before - self.source
        return (self.before - after) / gap if gap > LEAST_GAP * self.before else None


@dataclass(frozen=True)
class Signs:
    """What a port's worth is judged by."""

    cka: float
    """Mean linear CKA of the inputs of matched blocks."""
    input_residual: float
    """Mean Procrustes disparity of the input maps, each weighted by the ‖τ‖² it carries."""
    output_residual: float
    """The same of the output maps."""
    kept: float
    """Share of the moved ‖τ‖² inside the span of the maps."""
    recovered: float | None
    """Share of the loss's gap that the trial port recovered; None without a trial or a gap."""


class Grade(StrEnum):
    """What a port is likely to be worth."""

    GOOD = "good"
    UNCERTAIN = "uncertain"
    POOR = "poor"
    IMPOSSIBLE = "impossible"


class GradeRecord(NamedTuple):
    """What became of the ports of our world that had this grade: docs/results/check.csv."""

    ports: int
    gained: int
    """How many were better than the target without the port, on the test split."""
    median: float
    """Median share of the gain of the target's own fine-tune that they brought."""


GOOD_FROM, POOR_BELOW = 0.2, 0.0
"""Shares of the loss's gap that a trial port recovers: good from the first on, poor below the second."""
RECORDS = {
    Grade.GOOD: GradeRecord(85, 83, 0.26),
    Grade.UNCERTAIN: GradeRecord(50, 40, 0.13),
    Grade.POOR: GradeRecord(33, 6, -0.12),
}
FITTED = 50
"""How many samples the records were made with."""


@dataclass(frozen=True)
class Verdict:
    """A grade and the reasons for it."""

    grade: Grade
    reasons: tuple[str, ...]
    instead: str | None = None
    """A method that did better in small, and well enough to be taken."""


def grade(recovered: float) -> Grade:
    """Return the grade for the share of the loss's gap that a trial port recovered."""
    if recovered >= GOOD_FROM:
        return Grade.GOOD
    return Grade.POOR if recovered < POOR_BELOW else Grade.UNCERTAIN


def impossible(reason: str) -> Verdict:
    """Return the verdict on models between which there can be no port."""
    return Verdict(Grade.IMPOSSIBLE, (reason,))


def unseen() -> Verdict:
    """Return the verdict on models that were compared on no samples."""
    return Verdict(
        Grade.UNCERTAIN,
        (
            spelled(
                "the layers fit; only samples show how alike the two models are, and so what a port would bring: give "
                + setting("dataset")
            ),
        ),
    )


def judge(signs: Signs, trial: Trial | None, n: int, *, texts: bool = False) -> Verdict:
    """Return the verdict on models that were compared on n samples.

    Args:
        texts: whether the samples are texts, of which there are no records.
    """
    alike = (
        f"the maps' residuals are {signs.input_residual:.2f} on the input side and {signs.output_residual:.2f} on "
        f"the output side, the blocks' CKA {signs.cka:.2f} (these say less: see docs/check.md)"
    )
    if trial is None:
        return Verdict(Grade.UNCERTAIN, ("without labels there is no loss to score a trial port by", alike))
    before, after, source = (f"{summed / n:.3g}" for summed in (trial.before, trial.after, trial.source))
    told = {"loss": "loss", "errors": "share of errors"}[trial.what]
    if signs.recovered is None:
        return Verdict(
            Grade.POOR,
            (
                f"there is nothing to gain: on these samples the target without a port has a "
                f"{told} of {before}, the fine-tuned source {source}",
            ),
        )
    found = grade(signs.recovered)
    record = RECORDS[found]
    reasons = [
        f"ports made from one half of the {n} samples took the target's {told} on the other half from {before} to "
        f"{after}, {signs.recovered:.0%} of the way to the fine-tuned source's {source}",
        f"of {record.ports} such ports in our world of small image models {record.gained} gained; the median "
        f"brought {record.median:.0%} of the gain of a fine-tune of the target",
        alike,
    ]
    if texts:
        reasons.append("that record is of images: nothing was counted on texts, of which it says less")
    doubts = [f"{FITTED} samples, not {n}"] * (n < FITTED) + ["losses, not errors"] * (trial.what != "loss")
    reasons += [f"that was found with {doubt}: it says less" for doubt in doubts]
    copied, instead = None if trial.naive is None else trial.closed(trial.naive), None
    if trial.naive is not None and copied is not None and trial.naive < trial.after:
        reasons.insert(1, f"the naive copy is better: it took it to {trial.naive / n:.3g}, {copied:.0%} of the way")
        instead = "naive" if grade(copied) is Grade.GOOD else None
    return Verdict(found, tuple(reasons), instead)


def signs_of(
    moved: Sequence[Moved], cka: Mapping[str, np.ndarray], paths: Mapping[str, Blocks], recovered: float | None
) -> Signs:
    """Return the signs, each one number over all sites or blocks; `cka` and `paths` are by tower."""
    alike = [float(matrix[b, a]) for tower, matrix in cka.items() for b, a in enumerate(paths[tower]) if a is not None]
    return Signs(
        float(np.mean(alike)) if alike else float("nan"),
        _weighed(moved, lambda m: m.input),
        _weighed(moved, lambda m: m.output),
        _mean([m.kept for m in moved], moved),
        recovered,
    )


def _weighed(moved: Sequence[Moved], side: Callable[[Moved], Fit | None]) -> float:
    have = [(m, fit.residual) for m in moved if (fit := side(m)) is not None]
    return _mean([residual for _, residual in have], [m for m, _ in have])


def _mean(values: Sequence[float], moved: Sequence[Moved]) -> float:
    """Return the mean weighted by ‖τ‖²; NaN of nothing."""
    weights = [m.norm**2 for m in moved]
    return float(np.average(values, weights=weights)) if sum(weights) else float("nan")
