"""What a port will cost, before it is paid."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from typing import Any

import torch

from hf_bico.core.meter import peak_memory
from hf_bico.core.methods import FewShot, Method
from hf_bico.core.search import GRID
from hf_bico.core.types import INPUTS, ROWS, Pair, Signal, Site, Stream, Tensors

SVD_FLOPS = 30
"""FLOPs of a thin SVD of an (m, n) matrix, n ≤ m, as m n² times this; LAPACK's divide and conquer, measured against
the rate of a matrix product of the same size."""
CALL_SECONDS = 5e-4
"""What a layer costs beside its FLOPs, each time a batch passes it and is watched; it is most of a tiny model's time."""
FORWARD, BACKWARD, UPDATE = 2.0, 2.0, 2.0
"""FLOPs a parameter and token: of a pass, of the gradient at the activations, of that at the weights."""
SCORED_BY_A, SCORED_BY_B = 1, 3
"""Evaluations of a port: the fine-tuned source; the target as it is, with the naive copy and with the port."""
GRADIENTS = frozenset(Signal) - {Signal.INPUT, Signal.OUTPUT, Signal.WEIGHT}


@dataclass(frozen=True)
class Work:
    """What is to be done, as far as shapes tell."""

    pairs: Sequence[Pair]
    source_sites: Sequence[Site]
    method: Method
    n: int
    models: Sequence[Tensors]
    """Shapes of the base and the target."""
    length: int = 1
    """Tokens of a text sample, at most; images have their own number."""
    on_top: tuple[int, int] = (0, 0)
    """Parameters of either model outside its sites that every token passes: a language model's output embeddings."""
    evaluated: int = 0
    """Samples to score on."""
    search: bool = False
    """For α."""
    batch_size: int = 8


@dataclass(frozen=True)
class Estimate:
    """Cost of a port, but for downloading, loading and decoding samples."""

    method: str
    n: int
    passes_flops: float
    """Forward, and backward where gradients are watched, of both models with frozen weights."""
    moments_flops: float
    maps_flops: float
    search_flops: float
    evaluation_flops: float
    moments_bytes: int
    weights_bytes: int
    memory_bytes: int
    """The most that is held at once: what this process has now, both models in float32, moments, deltas, a batch."""
    seconds: dict[str, float]
    """By stage of a port (its report has the same ones as they were), at the rate of a matrix product here."""
    rate: float
    """FLOP/s of that product."""

    @property
    def total(self) -> float:
        """Seconds of all stages."""
        return sum(self.seconds.values())

    def data(self) -> dict[str, Any]:
        return asdict(self)


def estimate(work: Work, device: str) -> Estimate:
    """FLOPs, bytes and seconds of a port, from shapes and the speed of this machine."""
    rate, method, n = matmul_rate(device), work.method, work.n
    a, b = _flops(work, work.source_sites, 0), _flops(work, (p.target for p in work.pairs), 1)
    shapes = _moments(work)
    rounds, passes = _passes(method, a, b)
    passes *= n
    moments = rounds * sum(2.0 * n * rows * d_b * d_a for d_b, d_a, rows in shapes)
    maps = rounds * sum(SVD_FLOPS * max(d_b, d_a) * min(d_b, d_a) ** 2 for d_b, d_a, _ in shapes)
    size = sum(4 * d_b * d_a for d_b, d_a, _ in shapes)
    weights = sum(4 * prod(model[key].shape) for model in work.models for key in model)
    search = (len(GRID) + 2) * n * FORWARD * b if work.search else 0.0
    scoring = work.evaluated * FORWARD * (SCORED_BY_A * a + SCORED_BY_B * b)
    batches = -(-n // work.batch_size)
    calls = CALL_SECONDS * batches * (len(work.source_sites) + len(work.pairs))
    carried = isinstance(method, FewShot) or rounds > 1  # such a method runs the models as it moves τ
    seconds = {"calibrate": 0.0 if isinstance(method, FewShot) else ((passes + moments) / rate + calls) / rounds,
               "move": maps / rate + (carried and (passes + moments) / rate + calls) * _later(method, rounds),
               "search": search / rate, "evaluate": scoring / rate}
    delta = 2 * sum(4 * pair.target.d_out * pair.target.d_in for pair in work.pairs)
    memory = _held(device) + weights + size + delta + _batch(work)
    return Estimate(method.name, n, passes, moments, maps, search, scoring, size, weights, memory, seconds, rate)


def _later(method: Method, rounds: int) -> float:
    """Which share of its passes a method makes while it moves τ."""
    return 1.0 if isinstance(method, FewShot) else (rounds - 1) / rounds


def _passes(method: Method, a: float, b: float) -> tuple[int, float]:
    """How often the moments are collected and maps solved, and FLOPs a sample of all passes; a, b: parameters times
    tokens of either model.
    """
    if isinstance(method, FewShot):
        return 1, method.steps * (FORWARD + BACKWARD + UPDATE) * b
    rounds = getattr(method, "steps", 1)
    plain = method.signals - {Signal.LABEL_FREE_GRADIENT, Signal.WEIGHT}
    once = bool(plain) * FORWARD + bool(plain & GRADIENTS) * BACKWARD + method.draws * (FORWARD + BACKWARD)
    return rounds, rounds * once * (b if plain == {Signal.WEIGHT_GRADIENT} else a + b)


def _flops(work: Work, sites: Iterable[Site], side: int) -> float:
    """Parameters times tokens of one sample's pass."""
    sites = list(sites)
    text = any(site.tokens.sequence for site in sites)
    return sum(float(site.d_out * site.d_in * _tokens(work, site)) for site in sites) + \
        work.on_top[side] * (work.length if text else 1)


def _tokens(work: Work, site: Site) -> int:
    return work.length if site.tokens.sequence else site.tokens.count


def _moments(work: Work) -> list[tuple[int, int, int]]:
    """(d_B, d_A, rows a sample) of every cross-moment."""
    crossings = {pair.streams(signal): pair for signal in work.method.signals & ROWS for pair in work.pairs}
    return [(_width(b, pair.target), _width(a, pair.source), min(_tokens(work, site) for site in pair))
            for (a, b), pair in crossings.items()]


def _width(stream: Stream, site: Site) -> int:
    return site.d_in if stream.signal in INPUTS else site.d_out


def _batch(work: Work) -> int:
    """Bytes of a batch's activations: of either model what goes in and comes out of every site, and its gradient."""
    rows = sum(_tokens(work, site) * (site.d_in + site.d_out) for pair in work.pairs for site in pair)
    return 4 * 2 * rows * min(work.batch_size, work.n)


def _held(device: str) -> int:
    """Bytes that are in use before a model is loaded."""
    return torch.cuda.memory_allocated(device) if device.startswith("cuda") else peak_memory()


def measured(before: Estimate, seconds: Mapping[str, float], memory_bytes: int) -> dict[str, Any]:
    """An estimate beside what it came to: how many times as long and as large it was."""
    took = {stage: seconds.get(stage, 0.0) for stage in before.seconds}
    return before.data() | {"measured": {
        "seconds": took, "memory_bytes": memory_bytes, "times_as_long": _ratio(sum(took.values()), before.total),
        "times_as_large": _ratio(memory_bytes, before.memory_bytes)}}


def _ratio(measured: float, estimated: float) -> float | None:
    return measured / estimated if estimated else None


def rescaled(before: Estimate, seconds: Mapping[str, float]) -> Estimate:
    """The same with stages that were timed on this machine, in small."""
    return replace(before, seconds=before.seconds | dict(seconds))


def matmul_rate(device: str, size: int = 1024, seconds: float = 0.2) -> float:
    """FLOP/s of a float32 matrix product here."""
    a = torch.randn(size, size, device=device)
    a @ a
    start, runs = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        float((a @ a)[0, 0])
        runs += 1
    return 2 * size**3 * runs / (time.perf_counter() - start)
