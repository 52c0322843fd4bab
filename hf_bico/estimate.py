"""What a port will cost, before it is paid."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch

from hf_bico.core.methods import Method
from hf_bico.core.types import INPUTS, ROWS, Pair, Signal, Site, Stream, Tensors

SVD_FLOPS = 30
"""FLOPs of a thin SVD of an (m, n) matrix, n ≤ m, as m n² times this; LAPACK's divide and conquer, measured against
the rate of a matrix product of the same size."""


@dataclass(frozen=True)
class Estimate:
    """Cost of the calibration and the maps; evaluation comes on top."""

    passes_flops: float
    """Forward and backward of both models with frozen weights: 4 FLOPs a parameter and token."""
    moments_flops: float
    maps_flops: float
    moments_bytes: int
    weights_bytes: int
    seconds: float
    """At the rate of a matrix product on this machine."""


def estimate(pairs: Sequence[Pair], source_sites: Sequence[Site], method: Method, n: int,
             models: Sequence[Tensors], device: str) -> Estimate:
    """FLOPs, bytes and seconds of a port of N samples, from shapes alone."""
    crossings = {pair.streams(signal): pair for signal in method.signals & ROWS for pair in pairs}
    shapes = [(_width(b, pair.target), _width(a, pair.source), _rows(pair)) for (a, b), pair in crossings.items()]
    passes = 4.0 * n * sum(site.d_out * site.d_in * site.tokens.count
                           for site in (*source_sites, *(pair.target for pair in pairs)))
    passes *= bool(method.signals - {Signal.LABEL_FREE_GRADIENT, Signal.WEIGHT}) + method.draws
    moments = sum(2.0 * n * rows * d_b * d_a for d_b, d_a, rows in shapes)
    maps = sum(SVD_FLOPS * max(d_b, d_a) * min(d_b, d_a) ** 2 for d_b, d_a, _ in shapes)
    size = sum(4 * d_b * d_a for d_b, d_a, _ in shapes)
    weights = sum(4 * prod(model[key].shape) for model in models for key in model)
    total = passes + moments + maps
    return Estimate(passes, moments, maps, size, weights, total / matmul_rate(device))


def _rows(pair: Pair) -> int:
    return min(pair.source.tokens.count, pair.target.tokens.count)


def _width(stream: Stream, site: Site) -> int:
    return site.d_in if stream.signal in INPUTS else site.d_out


def matmul_rate(device: str, size: int = 1024, seconds: float = 0.2) -> float:
    """FLOP/s of a float32 matrix product here."""
    a = torch.randn(size, size, device=device)
    a @ a
    start, runs = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        float((a @ a)[0, 0])
        runs += 1
    return 2 * size**3 * runs / (time.perf_counter() - start)
