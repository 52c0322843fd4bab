"""The samples of a check: both bases compared on them, both models scored, and a port in small."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hf_bico.core.methods import Job, Track
from hf_bico.core.moments import Statistics
from hf_bico.core.pairing import Blocks
from hf_bico.core.similarity import cka_matrix
from hf_bico.core.transport import Moved
from hf_bico.core.types import Fit, Pair, Tensors
from hf_bico.families.heads import PROBE, RIDGE
from hf_bico.reports.verdict import Signs, Trial
from hf_bico.tasks.batches import batched
from hf_bico.tasks.objectives import Objective
from hf_bico.tasks.samples import Draw
from hf_bico.tasks.scores import Score
from hf_bico.workflows import probe
from hf_bico.workflows.session import Ready, own_side

FITTED = (RIDGE, PROBE)
"""Heads in closed form."""
Matrices = Mapping[str, np.ndarray]
"""Tower → (L_B, L_A) CKA of the blocks' inputs."""


@dataclass(frozen=True)
class Found:
    """What the samples show."""

    signs: Signs
    trial: Trial | None
    cka: Matrices
    blocks: list[dict[str, Any]]
    """A row a block of the target that something moves to."""
    scores: dict[str, Score | None]
    """The target's without a port and the source's, on the samples themselves."""
    seconds: dict[str, float]


def explore(ready: Ready, drawn: Draw, size: int, track: Track, matched: Mapping[str, Any] | None = None) -> Found:
    """Compare the bases on the samples, make a port of either half of them, and score both models.

    Args:
        ready: its base is let go on the way, for the fine-tune to take its place.
        matched: what `ready.match` found.

    Raises:
        PortError: the method cannot make its maps of so few samples, or a NaN.
    """
    method, seconds = ready.plan.method, {}
    halves = [
        replace(drawn, samples=tuple(drawn.samples[i] for i in half))
        for half in probe.halved([sample.label for sample in drawn.samples])
    ]
    job = ready.job(drawn, size, track)
    with _timed(seconds, "collect"):
        parts = probe.gather(job, method, [ready.batches(half, size) for half in halves])
    cka = {tower: np.array(rows) for tower, rows in matched["cka"].items()} if matched else _compared(ready, job, track)
    losses = None if ready.plan.head == "none" else _losses(ready, job, parts, halves, size)
    with _timed(seconds, "move"):
        moved = method.carry(replace(job, statistics=probe.together(job, method, parts))).moved
    with _timed(seconds, "score target"), ready.dressed(drawn, size) as (objective, _):
        start = _marks(objective, ready.sides[1].model, drawn, size)
    del job
    ready.sides[0] = None
    with _timed(seconds, "score source"):
        goal, reached, own = _source(ready, drawn, halves, size)
    trial = losses and Trial(*losses, own, "errors" if ready.plan.head in FITTED else "loss")
    pairs = ready.plan.pairs
    signs = probe.signs_of(moved, cka, paths_of(pairs, cka), trial and trial.recovered)
    scores = {"target": objective.score(start, goal), "source": reached}
    return Found(signs, trial, cka, rows_of(pairs, moved, cka, ready.tau.base, ready.weights), scores, seconds)


def _compared(ready: Ready, job: Job, track: Track) -> Matrices:
    towers = list(dict.fromkeys(pair.target.tower for pair in ready.plan.pairs if pair.target.depth is not None))
    sites = tuple(each.sites(every=True) for each in ready.plan.models[1:])
    return {
        tower: cka_matrix(job.source, job.target, sites, tower, job.batches)
        for tower in track(towers, "Comparing blocks", len(towers))
    }


def _losses(
    ready: Ready, job: Job, parts: Sequence[Statistics], halves: Sequence[Draw], size: int
) -> tuple[float, float]:
    """The target's without a port and with one, on samples that neither port nor a fitted head was made of."""
    model, fitted = ready.sides[1].model, ready.plan.head in FITTED

    def loss(number: int) -> float:
        with ready.dressed(halves[number], size) as (objective, _):
            return _loss(objective, model, halves[1 - number], size, fitted)

    batches = [ready.batches(half, size) for half in halves]
    return loss(0) + loss(1), probe.trial_loss(job, ready.plan.method, parts, batches, loss)


def _source(ready: Ready, drawn: Draw, halves: Sequence[Draw], size: int) -> tuple[Tensor, Score, float]:
    """The fine-tune's marks and score, and its loss; under a probe of its own, that of one half on the other."""
    fitted = ready.plan.head in FITTED
    model, objective = own_side(ready, ready.folders[0], drawn, size)
    per_sample = _marks(objective, model, drawn, size)
    if ready.plan.head == PROBE:
        probes = (own_side(ready, ready.folders[0], half, size)[1] for half in halves)
        loss = sum(_loss(own, model, other, size, fitted) for own, other in zip(probes, reversed(halves), strict=True))
    else:
        loss = _loss(objective, model, drawn, size, fitted)
    return per_sample, objective.score(per_sample, per_sample), loss


def _loss(objective: Objective, model: nn.Module, drawn: Draw, size: int, fitted: bool) -> float:
    """Summed over the samples; under a head that is fitted to few of them how many are wrong, for least squares know
    no likelihood.
    """
    if fitted:
        return float((_marks(objective, model, drawn, size) == 0).sum())
    with torch.no_grad():
        return sum(float(objective.loss(model, objective.encode(some))) for some in batched(drawn.samples, size))


def _marks(objective: Objective, model: nn.Module, drawn: Draw, size: int) -> Tensor:
    with torch.no_grad():
        return torch.cat(
            [objective.per_sample(model, objective.encode(some)).float().cpu() for some in batched(drawn.samples, size)]
        )


@contextmanager
def _timed(seconds: dict[str, float], what: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[what] = time.perf_counter() - start


def paths_of(pairs: Sequence[Pair], cka: Matrices) -> dict[str, Blocks]:
    """For every tower the block of A that every block of B takes from."""
    found = {tower: [None] * len(matrix) for tower, matrix in cka.items()}
    for a, b in pairs:
        if b.depth is not None:
            found[b.tower][b.depth] = a.depth
    return found


def rows_of(
    pairs: Sequence[Pair], moved: Sequence[Moved], cka: Matrices, base: Tensors, target: Tensors
) -> list[dict[str, Any]]:
    """How alike matched blocks are: CKA of their inputs, and over their layers the means of the maps' residuals, the
    shares of rank, what of τ is kept, and how far apart the weights are where their shapes are equal.
    """
    blocks: dict[tuple[str, int | None], list[Pair]] = {}
    for pair in pairs:
        blocks.setdefault((pair.target.tower, pair.target.depth), []).append(pair)
    told = {entry.target: entry for entry in moved}
    rows = []
    for (tower, depth), some in blocks.items():
        entries = [told[pair.target.name] for pair in some if pair.target.name in told]
        sides = {side: [fit for entry in entries if (fit := getattr(entry, side))] for side in ("input", "output")}
        row = {
            "tower": tower,
            "target": depth,
            "source": some[0].source.depth,
            "cka": None if depth is None else float(cka[tower][depth, some[0].source.depth]),
        }
        for side, fits in sides.items():
            row |= {f"{side}_residual": _mean([fit.residual for fit in fits]), f"{side}_rank": _rank(fits)}
        rows.append(row | {"kept": _mean([entry.kept for entry in entries]), "apart": _apart(some, base, target)})
    return rows


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _rank(fits: Sequence[Fit]) -> float | None:
    """Share of the directions there could be that the samples determine."""
    return sum(fit.rank for fit in fits) / sum(fit.full for fit in fits) if fits else None


def _apart(pairs: Sequence[Pair], base: Tensors, target: Tensors) -> float | None:
    """‖W_B − W_A‖/‖W_A‖ over the layers of equal shape; None where there are none."""
    apart = size = 0.0
    for a, b in pairs:
        if (a.d_out, a.d_in) == (b.d_out, b.d_in):
            w_a, w_b = a.weight.of(base[a.weight.key]).float(), b.weight.of(target[b.weight.key]).float()
            apart, size = apart + float((w_b - w_a).square().sum()), size + float(w_a.square().sum())
    return (apart / size) ** 0.5 if size else None
