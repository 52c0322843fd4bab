"""The samples of a check: both bases compared on them, both models scored, and a trial port of either half."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from hf_bico.core.chain import carry
from hf_bico.core.folds import gather_folds, held_out_loss, together
from hf_bico.core.method import Fold, Job, Method, Track
from hf_bico.core.methods import Naive
from hf_bico.core.moments import Statistics
from hf_bico.core.similarity import cka_matrix
from hf_bico.core.transport import Moved
from hf_bico.core.types import Fit, Pair, Tensors
from hf_bico.families import Answer
from hf_bico.families.heads import HeadKind
from hf_bico.reports.verdict import Signs, Trial, signs_of
from hf_bico.tasks.asked import Asked
from hf_bico.tasks.evaluation import per_sample, unsure_loss
from hf_bico.tasks.samples import Draw
from hf_bico.tasks.scores import Score
from hf_bico.workflows.scoring import open_source
from hf_bico.workflows.session import Session, halves_of

Matrices = Mapping[str, np.ndarray]
"""Tower → (L_B, L_A) CKA of the blocks' inputs."""


@dataclass(frozen=True)
class Found:
    """What the samples show."""

    signs: Signs
    trial: Trial | None
    cka: Matrices
    blocks: list[dict[str, Any]]
    """One row for every block of the target that something moves into."""
    scores: dict[str, Score | None]
    """The target's without a port and the source's, on the samples themselves."""
    seconds: dict[str, float]
    """Part → how long it took."""


@dataclass
class Stopwatch:
    """Seconds of the parts from which a port's cost is estimated."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        """Take the time of the block."""
        start = time.perf_counter()
        yield
        self.seconds[what] = time.perf_counter() - start


def explore(session: Session, drawn: Draw, track: Track, matched: Mapping[str, Any] | None = None) -> Found:
    """Compare the bases on the samples, make a trial port from either half of them, and score both models.

    Args:
        session: its base is let go on the way, for the fine-tune to take its place.
        matched: what the layer matching found.

    Raises:
        PortError: the method cannot make its maps from so few samples; a NaN.
    """
    plan, watch = session.plan, Stopwatch()
    method, pairs, base = plan.method, plan.models.pairs, session.ported.base
    halves = halves_of(drawn)
    folds = [Fold(session.batches(a), partial(_held_out, session, a, b)) for a, b in (halves, halves[::-1])]
    job = replace(session.job(drawn), folds=folds)
    with watch("collect"):
        parts = gather_folds(job, method.wanted)
    cka = (
        {tower: np.array(rows) for tower, rows in matched["cka"].items()} if matched else _compared(session, job, track)
    )
    losses = None
    if plan.models.head is not HeadKind.NONE:  # on samples that neither port nor head was made from
        losses = _losses(job, method, parts)
    with watch("move"):
        moved = carry(job, method, together(job, method.wanted, parts)).moved
    with watch("score target"), session.target_as_it_is(drawn) as (asked, _):
        start = per_sample(asked, drawn.samples, plan.samples.size)
        score_target = asked.objective.score
    del job
    session = session.without_base()
    with watch("score source"):
        source, own = _source(session, drawn, halves)
        goal = per_sample(source, drawn.samples, plan.samples.size)
    what = "errors" if _counts_errors(session) else "loss"
    trial = losses and Trial(losses[0], losses[1], own, what, losses[2])
    signs = signs_of(moved, cka, paths_of(pairs, cka), trial.recovered if trial else None)
    scores: dict[str, Score | None] = {
        "target": score_target(start, goal),
        "source": source.objective.score(goal, goal),
    }
    return Found(signs, trial, cka, rows_of(pairs, moved, cka, base, session.weights), scores, watch.seconds)


def _compared(session: Session, job: Job, track: Track) -> Matrices:
    models = session.plan.models
    towers = list(dict.fromkeys(pair.target.tower for pair in models.pairs if pair.target.depth is not None))
    sites = models.base.sites(every=True), models.target.sites(every=True)
    return {
        tower: cka_matrix(job.base, job.target, sites, tower, job.batches)
        for tower in track(towers, "Comparing blocks", len(towers))
    }


def _losses(job: Job, method: Method, parts: Sequence[Statistics]) -> tuple[float, float, float]:
    """Return the target's losses without a port, with one and with the naive copy, on samples that neither port nor
    head was made from.
    """
    without = sum(fold.held_out() for fold in job.folds)
    ported, naive = (held_out_loss(job, each, parts) for each in (method, Naive()))
    return without, ported, naive


def _held_out(session: Session, fit: Draw, rest: Draw) -> float:
    with session.target_as_it_is(fit) as (asked, _):
        return loss(session, asked, rest)


def _source(session: Session, drawn: Draw, halves: Sequence[Draw]) -> tuple[Asked, float]:
    """Return the fine-tune and its loss; where it has a probe, either half is scored under the other's."""
    asked = open_source(session, drawn)
    if session.plan.models.head is not HeadKind.PROBE:
        return asked, loss(session, asked, drawn)
    probed = (session.head.on_tuned(asked, half.samples) for half in halves)
    return asked, sum(loss(session, own, other) for own, other in zip(probed, reversed(halves), strict=True))


def loss(session: Session, asked: Asked, drawn: Draw) -> float:
    """Return the loss summed over the samples.

    Under a head that is fitted to few of them it is the number of wrong answers, or the loss at the best temperature
    where answers are not one class a sample: least squares have no likelihood.
    """
    size = session.plan.samples.size
    if _counts_errors(session):
        return float((per_sample(asked, drawn.samples, size) == 0).sum())
    return unsure_loss(asked, drawn.samples, size, fitted=session.plan.models.head.is_fitted)


def _counts_errors(session: Session) -> bool:
    """Return whether the trial counts wrong answers: of one class a sample, under a head that is fitted."""
    return session.plan.models.head.is_fitted and session.plan.samples.task.labels.answer is Answer.CLASS


def paths_of(pairs: Sequence[Pair], cka: Matrices) -> dict[str, list[int | None]]:
    """Return, by tower, the block of A that every block of B takes from."""
    found: dict[str, list[int | None]] = {tower: [None] * len(matrix) for tower, matrix in cka.items()}
    for a, b in pairs:
        if b.depth is not None:
            found[b.tower][b.depth] = a.depth
    return found


def rows_of(
    pairs: Sequence[Pair], moved: Sequence[Moved], cka: Matrices, base: Tensors, target: Tensors
) -> list[dict[str, Any]]:
    """Return how alike matched blocks are, one row for every block of B.

    A row has the CKA of their inputs, and over their layers the means of the maps' residuals, the shares of rank, what
    of τ is kept, and how far apart the weights are where their shapes are equal.
    """
    blocks: dict[tuple[str, int | None], list[Pair]] = {}
    for pair in pairs:
        blocks.setdefault((pair.target.tower, pair.target.depth), []).append(pair)
    told = {entry.target: entry for entry in moved}
    rows = []
    for (tower, depth), some in blocks.items():
        entries = [told[pair.target.name] for pair in some if pair.target.name in told]
        sides = {side: [fit for entry in entries if (fit := getattr(entry, side))] for side in ("input", "output")}
        source = some[0].base.depth
        row = {
            "tower": tower,
            "target": depth,
            "source": source,
            "cka": None if depth is None else float(cka[tower][depth, source]),
        }
        for side, fits in sides.items():
            row |= {f"{side}_residual": _mean([fit.residual for fit in fits]), f"{side}_rank": _rank(fits)}
        rows.append(row | {"kept": _mean([entry.kept for entry in entries]), "apart": _apart(some, base, target)})
    return rows


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _rank(fits: Sequence[Fit]) -> float | None:
    """Return the share of all directions that the samples determine."""
    return sum(fit.rank for fit in fits) / sum(fit.full for fit in fits) if fits else None


def _apart(pairs: Sequence[Pair], base: Tensors, target: Tensors) -> float | None:
    """Return ‖W_B − W_A‖/‖W_A‖ over the layers of equal shape; None where there are none."""
    apart = size = 0.0
    for a, b in pairs:
        if (a.d_out, a.d_in) == (b.d_out, b.d_in):
            w_a, w_b = a.weight.of(base[a.weight.key]).float(), b.weight.of(target[b.weight.key]).float()
            apart, size = apart + float((w_b - w_a).square().sum()), size + float(w_a.square().sum())
    return (apart / size) ** 0.5 if size else None
