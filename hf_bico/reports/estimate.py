"""What a port will cost, before it is paid."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from typing import Any

import torch

from hf_bico.core.device import held
from hf_bico.core.method import FORWARD, Method
from hf_bico.core.search import GRID
from hf_bico.core.types import INPUTS, ROWS, Pair, Site, Stream, Tensors

SVD_FLOPS = 30
"""FLOPs of a thin SVD of an (m, n) matrix, n ≤ m, in units of m n²: LAPACK's divide and conquer, measured against the
rate of a matrix product of the same size."""
CALL_SECONDS = 5e-4
"""Seconds that a layer takes beside its FLOPs, each time a watched batch passes it: most of a tiny model's time."""
SCORED_BY_A, SCORED_BY_B = 1, 3
"""Evaluations of a port: the fine-tuned source; the target as it is, with the naive copy and with the port."""


@dataclass(frozen=True)
class Work:
    """What a port has to do, as far as shapes tell."""

    pairs: Sequence[Pair]
    base_sites: Sequence[Site]
    method: Method
    n: int
    """Calibration samples."""
    models: Sequence[Tensors]
    """Shapes of the base and the target."""
    length: int = 1
    """The most tokens of a text sample; images have a number of their own."""
    on_top: tuple[int, int] = (0, 0)
    """Parameters of either model outside its sites that every token passes: a language model's output embeddings."""
    evaluated: int = 0
    """Samples to score on."""
    search: bool = False
    """Whether α is searched."""
    batch_size: int = 8


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
    moments_bytes: int
    weights_bytes: int
    memory_bytes: int
    """The most that is held at once: what this process has now, both models in float32, moments, deltas, a batch."""
    rate: float
    """FLOP/s of a matrix product here."""
    stages: dict[str, float]
    """Stage → seconds, at that rate; a port's report has the same stages as they were measured."""
    seconds: float
    """All stages together."""


def estimate(work: Work, device: str) -> Estimate:
    """Return the FLOPs, bytes and seconds of a port, by shapes and the speed of this machine."""
    rate, method, n = matmul_rate(device), work.method, work.n
    a, b = _flops(work, work.base_sites, 0), _flops(work, (pair.target for pair in work.pairs), 1)
    shapes, passes = _moments(work), method.passes(a, b)
    products = sum(2.0 * n * rows * d_b * d_a for d_b, d_a, rows in shapes)
    maps = passes.solved * sum(SVD_FLOPS * max(d_b, d_a) * min(d_b, d_a) ** 2 for d_b, d_a, _ in shapes)
    search = (len(GRID) + 2) * n * FORWARD * b if work.search else 0.0
    scoring = work.evaluated * FORWARD * (SCORED_BY_A * a + SCORED_BY_B * b)
    calls = CALL_SECONDS * -(-n // work.batch_size) * (len(work.base_sites) + len(work.pairs))
    collecting, times = (n * passes.flops + products) / rate + calls * bool(passes.flops), passes.before + passes.moving
    stages = {
        "calibrate": passes.before * collecting,
        "move": maps / rate + passes.moving * collecting,
        "search": search / rate,
        "evaluate": scoring / rate,
    }
    size = method.held * sum(4 * d_b * d_a for d_b, d_a, _ in shapes)
    weights = sum(4 * prod(model[key].shape) for model in work.models for key in model)
    deltas = 2 * sum(4 * t.d_out * t.d_in * t.taps for _, t in work.pairs)  # the naive copy's is the other
    return Estimate(
        method=method.name,
        n=n,
        passes_flops=times * n * passes.flops,
        moments_flops=times * products,
        maps_flops=maps,
        search_flops=search,
        evaluation_flops=scoring,
        moments_bytes=size,
        weights_bytes=weights,
        memory_bytes=held(device) + weights + size + deltas + _batch(work),
        rate=rate,
        stages=stages,
        seconds=sum(stages.values()),
    )


def _flops(work: Work, sites: Iterable[Site], side: int) -> float:
    """Return parameters times tokens of one sample's pass; side 0 is the base, 1 the target."""
    sites = list(sites)
    text = any(site.tokens.sequence for site in sites)
    return sum(float(site.d_out * site.d_in * site.taps * _tokens(work, site)) for site in sites) + work.on_top[
        side
    ] * (work.length if text else 1)


def _tokens(work: Work, site: Site) -> int:
    return work.length if site.tokens.sequence else site.tokens.count


def _moments(work: Work) -> list[tuple[int, int, int]]:
    """Return (d_B, d_A, rows a sample) of every cross-moment."""
    crossings = {pair.streams(signal): pair for signal in work.method.wanted.signals & ROWS for pair in work.pairs}
    return [
        (_width(b, pair.target), _width(a, pair.base), min(_tokens(work, site) for site in pair))
        for (a, b), pair in crossings.items()
    ]


def _width(stream: Stream, site: Site) -> int:
    return site.d_in if stream.signal in INPUTS else site.d_out


def _batch(work: Work) -> int:
    """Return bytes of a batch's activations: of either model what goes in and comes out of every site, and its
    gradient.
    """
    rows = sum(_tokens(work, site) * (site.d_in + site.d_out) for pair in work.pairs for site in pair)
    return 4 * 2 * rows * min(work.batch_size, work.n)


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


def matmul_rate(device: str, size: int = 1024, seconds: float = 0.2) -> float:
    """Return the FLOP/s of a float32 product of (size, size) matrices, timed here for at least so many seconds."""
    a = torch.randn(size, size, device=device)
    a @ a
    start, runs = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        float((a @ a)[0, 0])
        runs += 1
    return 2 * size**3 * runs / (time.perf_counter() - start)
