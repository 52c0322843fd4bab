"""Pass the same samples through both models and keep sums only: one forward–backward pass."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hf_bico.core.brief import brief
from hf_bico.core.device import device_of
from hf_bico.core.errors import PortError
from hf_bico.core.moments import Held, Statistics
from hf_bico.core.pieces import cut, is_by_sample, piece_size
from hf_bico.core.taps import taps
from hf_bico.core.types import LABEL_FREE, ROWS, Pair, Signal, Stream

Loss = Callable[[nn.Module, Any], Tensor]
"""(model, batch) → the loss summed over the batch's samples, one number; a mean would weigh samples by batch size."""
Scores = Callable[[nn.Module, Any], Tensor]
"""(model, batch) → scores (n, M) that mean the same in both models and do not depend on the task's labels."""


class Side(NamedTuple):
    """A pre-trained model, the loss whose gradients are taken, scores for gradients without labels, and its answers."""

    model: nn.Module
    loss: Loss
    scores: Scores | None = None
    answers: Scores | None = None
    """(model, batch) → logits (m, K) of all that the model is asked of the batch: a row a sample, or a row a token.
    None where they would not mean the same in the other model."""

    @property
    def unasked(self) -> Scores:
        """What passes samples without labels: the answers; else the loss, which then is one without labels too."""
        return self.answers or self.loss


class Parts(NamedTuple):
    """What each model is given for the same samples."""

    base: Any
    target: Any
    meeting: Mapping[str, Tensor] = MappingProxyType({})
    """Sequence of text → P (n, T_B, T_A): which of A's rows meet which of B's; see `hf_bico.core.alignment`.
    Padding meets nothing. A sequence that is not in it has the same tokens in both models, and no padding."""


class Batch(Parts):
    """The same samples, prepared for each model in its own way."""

    __slots__ = ()

    def __new__(
        cls, base: Any = None, target: Any = None, meeting: Mapping[str, Tensor] = MappingProxyType({}), **old: Any
    ) -> "Batch":
        """Return a batch; `source=`, the old name of `base=`, is accepted for one more version."""
        return super().__new__(cls, old.pop("source", base), target, meeting, **old)

    @property
    def source(self) -> Any:
        """The base's part, by its old name."""
        return self.base

    def __repr__(self) -> str:
        meeting = f", meeting={brief(self.meeting)}" if self.meeting else ""
        return f"{type(self).__name__}(base={brief(self.base)}, target={brief(self.target)}{meeting})"


class Elsewhere(Batch):
    """A batch that another rank passes: all that is known of it here is how many samples it holds."""

    samples: int

    def __new__(cls, samples: int) -> "Elsewhere":
        """Return a batch of so many samples, which has no parts."""
        made = tuple.__new__(cls, (None, None, MappingProxyType({})))
        made.samples = samples
        return made


def samples_in(batch: Any) -> int | None:
    """Return how many samples a model's batch holds: its length, or its first tensor's; None if it has neither."""
    if isinstance(batch, Mapping | tuple | list):
        parts = batch.values() if isinstance(batch, Mapping) else batch
        return next((len(part) for part in parts if isinstance(part, Tensor)), None)
    return len(batch) if hasattr(batch, "__len__") else None


Run = Callable[[Side, Any], None]
"""(side, that model's batch) → None: make one pass, with a backward pass where gradients are watched."""


def collect(
    base: Side,
    target: Side,
    pairs: Iterable[Pair],
    batches: Iterable[Batch],
    seen: Statistics,
    after_batch: Callable[[Statistics], None] = lambda seen: None,
    *,
    labelled: bool = True,
) -> Statistics:
    """Add the batches to the statistics `seen` of every pair, and return them.

    A's rows of a batch are held until B's taps fire and meet them there; then they are dropped.

    Args:
        pairs: those whose layers are watched; `seen` may be of some of them alone. A watched layer may run by another
            kernel than one that is not, so that what a layer shows depends, by rounding, on which others are watched.
        labelled: whether the samples have labels; else they go into `LABEL_FREE` signals alone.

    Raises:
        PortError: a site never ran, a NaN came up, or there are no scores to take label-free gradients of.
    """
    pairs = list(pairs)
    if Signal.WEIGHT in seen.wanted.signals:
        seen.weights = base.model.state_dict(), target.model.state_dict()
    if Signal.LABEL_FREE_GRADIENT in seen.wanted.signals and (base.scores is None or target.scores is None):
        raise PortError("label-free gradients need scores of both models on something general (a bank of prompts)")
    if not seen.wanted.signals - {Signal.WEIGHT}:
        return seen
    size = piece_size(pairs, str(device_of(target.model))) if _cuttable(base, target) else None
    with frozen(base.model), frozen(target.model):
        for batch in batches:
            if not isinstance(batch, Elsewhere):
                for piece in _pieces(batch, size):
                    _add_batch(seen, base, target, pairs, piece, labelled)
            elif Signal.LABEL_FREE_GRADIENT in seen.wanted.signals:
                seen.samples += batch.samples
            after_batch(seen)
    return seen


def _cuttable(*sides: Side) -> bool:
    return all(is_by_sample(each) for side in sides for each in (side.loss, side.scores, side.answers))


def _pieces(batch: Batch, size: int | None) -> list[Batch]:
    """Return a batch in pieces of so many samples, where both models' parts can be cut."""
    samples = samples_in(batch.base)
    if size is None or samples is None or samples <= size or samples_in(batch.target) != samples or batch.meeting:
        return [batch]
    base, target = (cut(part, samples, size) for part in (batch.base, batch.target))
    return [batch] if base is None or target is None else list(map(Batch, base, target))


def _add_batch(seen: Statistics, base: Side, target: Side, pairs: list[Pair], batch: Batch, labelled: bool) -> None:
    """Make one pass with the task's loss, or without labels forward alone; then one for every draw of label-free
    cotangents.
    """
    plain = seen.wanted.signals - {Signal.WEIGHT, Signal.LABEL_FREE_GRADIENT}
    if not labelled:
        plain &= LABEL_FREE
    if plain:
        signals = {signal: signal for signal in plain}
        _pass(seen, base, target, pairs, batch, signals, _labelled if labelled else _unlabelled)
    if Signal.LABEL_FREE_GRADIENT in seen.wanted.signals:
        below, above = ([pair for pair in pairs if pair.target.on_top is on_top] for on_top in (False, True))
        if above:
            _pass(seen, base, target, above, batch, {Signal.OUTPUT: Signal.LABEL_FREE_GRADIENT}, _unlabelled)
        watched = {Signal.OUTPUT_GRADIENT: Signal.LABEL_FREE_GRADIENT}
        for draw in range(seen.wanted.draws):
            n = _pass(seen, base, target, below, batch, watched, _label_free(seen.samples, draw))
        seen.samples += n


def _pass(
    seen: Statistics,
    base: Side,
    target: Side,
    pairs: list[Pair],
    batch: Batch,
    signals: dict[Signal, Signal],
    run: Run,
) -> int:
    """Make one pass and return the number of samples; `signals` maps what is watched to the signal it is kept as."""
    rows = signals.keys() & ROWS
    waiting: dict[Stream, Held] = {}

    def hold(stream: Stream, here: Tensor) -> None:
        kept = Stream(signals.get(stream.signal, stream.signal), stream.name)
        if seen.wants(kept):
            waiting[stream] = seen.hold(kept, here)

    if rows:
        with taps(base.model, dict.fromkeys(p.base for p in pairs), rows, hold, samples_in(batch.base)):
            run(base, batch.base)

    inputs: dict[tuple[str, int], Tensor] = {}
    met: set[Stream] = set()
    sites = {pair.target.name: pair.target for pair in pairs}
    given = {(site.stream(Signal.OUTPUT_GRADIENT).name, site.expert): site for site in sites.values()}
    loose = _loose(pairs, signals)

    def meet(stream: Stream, there: Tensor) -> None:
        kept = Stream(signals.get(stream.signal, stream.signal), stream.name)
        for partner in seen.partners(kept):
            own = Stream(stream.signal, partner.name, stream.run)
            met.add(own)
            if own not in waiting:
                if own._replace(run=0) in loose:
                    continue
                raise _unlike_runs(stream, own)
            seen.add(partner, kept, waiting[own], there, batch.meeting)
        if Signal.WEIGHT_GRADIENT not in signals:
            return
        if stream.signal is Signal.INPUT:
            inputs[stream.name, stream.run] = there
        elif stream.signal is Signal.OUTPUT_GRADIENT:
            site = given.get((stream.name, stream.run)) or given[stream.name, None]
            run = stream.run if site.expert is None else 0  # that of an expert's outputs is its number
            seen.gradients[site.name].add(inputs[site.space, run], there)

    both = {Signal.INPUT, Signal.OUTPUT_GRADIENT} if Signal.WEIGHT_GRADIENT in signals else set()
    with taps(target.model, sites.values(), rows | both, meet, samples_in(batch.target)):
        run(target, batch.target)
    alone = (stream for stream in waiting if stream.run and stream not in met)
    if odd := next((stream for stream in alone if stream._replace(run=0) not in loose), None):
        raise _unlike_runs(odd, next(iter(met), odd))
    return samples_in(batch.base) or next((len(held.rows) for held in waiting.values()), 0)


def _loose(pairs: list[Pair], signals: Iterable[Signal]) -> set[Stream]:
    """Return the streams of experts alone: either model may send an expert no rows of a batch."""
    each = [(site.expert is None, site.stream(signal)) for pair in pairs for site in pair for signal in signals]
    return {stream for whole, stream in each if not whole} - {stream for whole, stream in each if whole}


def _unlike_runs(more: Stream, fewer: Stream) -> PortError:
    """Return the error that one model's weight has a run in a pass that the other's has not."""
    return PortError(
        f"{more.name} runs more than once in a pass, and more often than {fewer.name} of the other model: blocks that "
        "share their weights are ported between models with as many of them"
    )


def _labelled(side: Side, batch: Any) -> None:
    """Run the task's loss forward, and backward where something requires a gradient."""
    loss = side.loss(side.model, batch)
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise PortError(
            "the loss must be a tensor of one number, summed over the batch's samples; it is "
            + (f"of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}")
        )
    if not loss.isfinite():
        raise PortError("the calibration loss is NaN or Inf: a weight or a sample is broken")
    if loss.requires_grad:
        backward(loss)


def _unlabelled(side: Side, batch: Any) -> None:
    """Run the model forward; no gradient is watched."""
    with torch.no_grad():
        side.unasked(side.model, batch)


def _label_free(first: int, draw: int) -> Run:
    """Return a run backward from the scores; a sample has the same standard normal cotangent in whatever batch."""

    def run(side: Side, batch: Any) -> None:
        assert side.scores is not None  # `collect` has checked
        scores = side.scores(side.model, batch)
        generator = torch.Generator()
        cotangents = [
            torch.randn(scores.shape[1], generator=generator.manual_seed(((first + i) << 16) + draw))
            for i in range(len(scores))
        ]
        backward(scores, torch.stack(cotangents).to(scores))

    return run


backward: Callable[..., None] = Tensor.backward
"""Torch's own, typed here. `torch.autograd.backward` would leave the taps on in the backward pass."""


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the model in eval mode with no weight requiring a gradient; restore both afterwards."""
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
