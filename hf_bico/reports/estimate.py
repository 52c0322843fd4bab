"""What a port will cost, before it is paid."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import torch

from hf_bico.core.device import held, is_accelerator
from hf_bico.core.groups import crossings, moments_bytes
from hf_bico.core.method import FORWARD
from hf_bico.core.search import GRID
from hf_bico.core.types import Pair, Site
from hf_bico.reports.memory import Work, fitted, stages, weights_bytes

SVD_FLOPS = 30
"""FLOPs of a thin SVD of an (m, n) matrix, n ≤ m, in units of m n²: LAPACK's divide and conquer, measured against the
rate of a matrix product of the same size."""
STEP = 6
"""FLOPs of a training step per weight and token: two forward, four backward."""
CALL_SECONDS = 5e-4
"""Seconds that a layer takes beside its FLOPs, each time a watched batch passes it: most of a tiny model's time."""
SCORED_BY_A, SCORED_BY_B = 1, 3
"""Evaluations of a port: the fine-tuned source; the target as it is, with the naive copy and with the port."""


@dataclass(frozen=True)
class Estimate:
    """What a port costs, apart from downloading, loading and decoding samples."""

    method: str
    n: int
    passes_flops: float
    """Forward, and backward where gradients are watched, of both models with frozen weights."""
    moments_flops: float
    """Products of rows into cross-moments."""
    maps_flops: float
    """SVDs of the cross-moments."""
    search_flops: float
    evaluation_flops: float
    step_flops: float
    """Of training the target on one sample: forward, and backward to all weights and inputs."""
    moments_bytes: int
    weights_bytes: int
    memory_bytes: int
    """The most that is held at once: what this process has now, and the tensors of the stage that needs the most."""
    held_bytes: int
    """What this process has now."""
    groups: int
    """Groups of layers that are ported one after the other, each in passes of its own."""
    rate: float
    """FLOP/s of a matrix product here."""
    stages: dict[str, float]
    """Stage → seconds, at that rate; a port's report has the same stages as they were measured."""
    seconds: float
    """All stages together."""


def estimate(work: Work, device: str) -> Estimate:
    """Return the FLOPs, bytes and seconds of a port, by shapes and the speed of this machine.

    Raises:
        PortError: it does not fit into the memory that it may take.
    """
    before, apart = held(device), is_accelerator(device)
    groups = fitted(work, before, apart=apart)
    rate, method, n = matmul_rate(device), work.method, work.n
    a, b = _flops(work, work.base_sites, 0), _flops(work, (pair.target for pair in work.pairs), 1)
    passes, met = method.passes(a, b), crossings(work.pairs, method.wanted)
    times = passes.before * len(groups) + passes.moving
    products = (passes.before + passes.moving) * sum(2.0 * n * x.d_b * x.d_a * _meeting(work, x.pair) for x in met)
    maps = passes.solved * sum(SVD_FLOPS * max(x.d_b, x.d_a) * min(x.d_b, x.d_a) ** 2 for x in met)
    search = (len(GRID) + 2) * n * FORWARD * b if work.search else 0.0
    scoring = work.evaluated * FORWARD * (SCORED_BY_A * a + SCORED_BY_B * b)
    calls = CALL_SECONDS * -(-n // work.batch_size) * (len(work.base_sites) + len(work.pairs))
    collecting = times * (n * passes.flops / rate + calls * bool(passes.flops)) + products / rate
    moving = passes.moving / times if times else 0.0
    seconds = {
        "calibrate": (1 - moving) * collecting,
        "move": maps / rate + moving * collecting,
        "search": search / rate,
        "evaluate": scoring / rate,
    }
    return Estimate(
        method=method.name,
        n=n,
        passes_flops=times * n * passes.flops,
        moments_flops=products,
        maps_flops=maps,
        search_flops=search,
        evaluation_flops=scoring,
        step_flops=STEP * b,
        moments_bytes=method.held * max(moments_bytes(work.pairs[group], method.wanted) for group in groups),
        weights_bytes=sum(weights_bytes(model, work.stored) for model in work.models),
        memory_bytes=before + max(stages(work, groups, apart=apart).values()),
        held_bytes=before,
        groups=len(groups),
        rate=rate,
        stages=seconds,
        seconds=sum(seconds.values()),
    )


def _flops(work: Work, sites: Iterable[Site], side: int) -> float:
    """Return parameters times tokens of one sample's pass; side 0 is the base, 1 the target."""
    sites = list(sites)
    text = any(site.tokens.sequence for site in sites)
    return sum(float(site.d_out * site.d_in * site.taps * work.tokens(site)) for site in sites) + work.on_top[side] * (
        work.length if text else 1
    )


def _meeting(work: Work, pair: Pair) -> int:
    """Return the rows of a sample that meet in a pair's cross-moments."""
    return min(work.tokens(site) for site in pair)


def measured(before: Estimate, seconds: Mapping[str, float], memory_bytes: int) -> dict[str, Any]:
    """Return an estimate as data, with what the port did cost: how many times as long and as large."""
    took = {stage: seconds.get(stage, 0.0) for stage in before.stages}
    return asdict(before) | {
        "measured": {
            "stages": took,
            "seconds": sum(took.values()),
            "memory_bytes": memory_bytes,
            "times_as_long": sum(took.values()) / before.seconds if before.seconds else None,
            "times_as_large": memory_bytes / before.memory_bytes,
        }
    }


def retimed(before: Estimate, stages: Mapping[str, float]) -> Estimate:
    """Return an estimate with the seconds of stages that were timed here, on fewer samples."""
    known = before.stages | dict(stages)
    return replace(before, stages=known, seconds=sum(known.values()))


@cache
def matmul_rate(device: str, size: int = 1024, seconds: float = 0.2) -> float:
    """Return the FLOP/s of a float32 product of (size, size) matrices, timed here for at least so many seconds, once in
    a process.
    """
    a = torch.ones(size, size, device=device)
    a @ a
    start, runs = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        float((a @ a)[0, 0])
        runs += 1
    return 2 * size**3 * runs / (time.perf_counter() - start)
