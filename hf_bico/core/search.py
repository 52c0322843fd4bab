"""A line search over α, with forward passes only."""

from collections.abc import Callable, Iterable
from math import inf, isfinite

import torch

from hf_bico.core.collect import Batch, Side, frozen
from hf_bico.core.errors import PortError, setting
from hf_bico.core.method import Track, untracked
from hf_bico.core.transport import added, holding
from hf_bico.core.types import Tensors

AUTO = "auto"
"""The α that asks for a search."""
GRID = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
REFINED = 0.125
"""How far to either side of the grid's best α the search tries once more."""

Search = list[tuple[float, float]]
"""(α, mean calibration loss per sample) for every α tried, ascending in α."""


def line_search(
    side: Side,
    batches: Callable[[], Iterable[Batch]],
    n: int,
    weights: Tensors,
    delta: Tensors,
    alphas: Iterable[float] = GRID,
) -> Search:
    """Return the target's mean loss at θ_B + α τ_B on the `n` calibration samples for every α; inf where it overflows.

    Args:
        batches: () → the calibration samples; called once for every α.
        weights, delta: θ_B and τ_B by tensor name.
    """
    return sorted((float(alpha), _loss(side, batches(), weights, delta, alpha) / n) for alpha in alphas)


def refined_search(
    side: Side,
    batches: Callable[[], Iterable[Batch]],
    n: int,
    weights: Tensors,
    delta: Tensors,
    track: Track = untracked,
) -> Search:
    """Return the result of `line_search` over `GRID` and then `REFINED` to either side of its best α.

    Raises:
        PortError: the loss is finite nowhere.
    """
    search = line_search(side, batches, n, weights, delta, track(GRID, "Searching α", len(GRID)))
    best = best_of(search)
    beside = [alpha for alpha in (best - REFINED, best + REFINED) if alpha > 0]
    return sorted(search + line_search(side, batches, n, weights, delta, beside))


def best_of(search: Search) -> float:
    """Return the α with the least loss; of equals the smallest.

    Raises:
        PortError: the loss is finite nowhere.
    """
    finite = [(loss, alpha) for alpha, loss in search if isfinite(loss)]
    if not finite:
        raise PortError(f"the calibration loss is NaN or Inf at every α: choose one with {setting('alpha')}")
    return min(finite)[1]


def _loss(side: Side, batches: Iterable[Batch], weights: Tensors, delta: Tensors, alpha: float) -> float:
    try:
        with frozen(side.model), torch.no_grad(), holding(side.model, added(weights, delta, alpha)):
            return sum(float(side.loss(side.model, batch.target)) for batch in batches)
    except PortError:  # the sum overflows
        return inf
