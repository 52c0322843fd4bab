"""The same samples through both models, into moments: one forward–backward pass, nothing kept but sums."""

from collections.abc import Callable, Iterable
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

from hf_bico.core.errors import PortError
from hf_bico.core.moments import Evidence
from hf_bico.core.taps import taps
from hf_bico.core.types import Pair, Stream

Loss = Callable[[nn.Module, Any], Tensor]
"""(model, batch) → the loss summed over the batch's samples; a mean would weigh samples by their batch."""


class Side(NamedTuple):
    """A pre-trained model and the loss that its gradients are taken of."""

    model: nn.Module
    loss: Loss


class Batch(NamedTuple):
    """The same samples, each model's own way."""

    source: Any
    target: Any


def collect(source: Side, target: Side, pairs: Iterable[Pair], batches: Iterable[Batch], evidence: Evidence,
            after_batch: Callable[[Evidence], None] = lambda evidence: None) -> Evidence:
    """Add the batches to the cross-moments of every pair; the same evidence.

    A's rows of a batch wait for B's, meet them as B's taps fire, and are gone with the batch.

    Raises:
        PortError: a site never ran, or a NaN came up.
    """
    pairs = list(pairs)
    if not evidence.signals:
        return evidence
    with frozen(source.model), frozen(target.model):
        for batch in batches:
            _add_batch(evidence, source, target, pairs, batch)
            after_batch(evidence)
    return evidence


def _add_batch(evidence: Evidence, source: Side, target: Side, pairs: list[Pair], batch: Batch) -> None:
    waiting: dict[Stream, Tensor] = {}
    with taps(source.model, dict.fromkeys(p.source for p in pairs), evidence.signals, waiting.__setitem__):
        _run(source, batch.source)

    def meet(stream: Stream, rows: Tensor) -> None:
        for partner in evidence.partners(stream):
            evidence.add(partner, stream, waiting[partner], rows)

    with taps(target.model, [p.target for p in pairs], evidence.signals, meet):
        _run(target, batch.target)


def _run(side: Side, batch: Any) -> None:
    loss = side.loss(side.model, batch)
    if not loss.isfinite():
        raise PortError("the calibration loss is NaN or Inf; a weight or a sample is broken")
    if loss.requires_grad:
        loss.backward()


@contextmanager
def frozen(model: nn.Module):
    """Weights without gradients, eval mode; both as they were afterwards."""
    training = {name: module.training for name, module in model.named_modules()}
    required = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    model.eval().requires_grad_(False)
    try:
        yield model
    finally:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(required[name])
        for name, module in model.named_modules():
            module.training = training[name]
