"""Ports between live models, for a training script: no Hub and no files are needed."""

import copy
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from hf_bico.core.collect import Loss, Scores, Side, collect
from hf_bico.core.errors import PortError
from hf_bico.core.methods import BiCo, Job, Method, Track, untracked
from hf_bico.core.moments import Statistics
from hf_bico.core.pairing import Matching, by_index, pair_sites
from hf_bico.core.transport import Difference, account, check_fine_tune
from hf_bico.core.types import Tensors
from hf_bico.families import family_of
from hf_bico.families import logits as clip_logits
from hf_bico.families.losses import loss_of, of_classes
from hf_bico.families.on_top import TRANSPORT, Top, top_of
from hf_bico.reports.report import Clock
from hf_bico.tasks.batches import BatchFormat, LiveBatches
from hf_bico.workflows.ported import Ported


def port(
    *,
    tuned: nn.Module | Tensors,
    base: nn.Module,
    target: nn.Module,
    calibration: Iterable[Any],
    loss: Loss | tuple[Loss, Loss] | None = None,
    scores: tuple[Scores, Scores] | None = None,
    method: Method | None = None,
    matching: Matching = by_index,
    head: str = TRANSPORT,
    track: Track = untracked,
) -> Ported:
    """Carry `tuned − base` over to `target`, which is left as it is until `apply_`.

    A classifier that the fine-tune brings is carried over whole, through the map of its input: it has no τ, for its
    base's was random. What of it lies inside the body (BERT's pooler) moves like any other layer.

    Args:
        method: BiCo unless given; the others are as for `job_of`.
        head: "transport", or "own": the target's classifier stays, and gradients are taken under either model's own.
        track: shows the stages as they pass; quiet unless given.

    Raises:
        PortError: what `job_of` refuses, pairs that the method cannot serve, a NaN, a tensor of τ that nothing
            accounts for, classifiers of another build.
    """
    _check_kinds(tuned, base, target, method, matching)
    method, clock, tuned_state = method or BiCo(), Clock(), state_of(tuned)
    _require_plain(base)
    top = top_of(tuned_state, base, target, head)
    job, ratio = _job(tuned_state, base, target, calibration, loss, scores, matching, top, track)
    family = family_of(base)
    sites = (*family.sites(base), *(pair.source for pair in top.head_layers.moved))
    whole = account(job.tau, job.pairs, family.left_reason, sites)
    method.check(job.pairs)
    statistics = Statistics(job.pairs, method.signals, method.draws)
    shown = job.batches()
    with torch.enable_grad(), ExitStack() as worn:
        with clock("head"):
            made, fit = worn.enter_context(top.worn(job))
        with clock("calibrate"):
            collect(job.source, job.target, job.pairs, track(shown, "Calibrating", shown.__length_hint__()), statistics)
        with clock("move"):
            result = method.carry(replace(job, statistics=statistics))
    from hf_bico.workflows.ported import lineage_of, record_of

    record = record_of(
        lineage_of(tuned, base, target),
        method,
        job,
        ratio,
        whole,
        result.moved,
        top.record(fit) | {"labels": labels_of(tuned) if made else None},
        clock,
    )
    return Ported(target, result.delta, made, result.moved, whole, record)


def job_of(
    *,
    tuned: nn.Module | Tensors,
    base: nn.Module,
    target: nn.Module,
    calibration: Iterable[Any],
    loss: Loss | tuple[Loss, Loss] | None = None,
    scores: tuple[Scores, Scores] | None = None,
    matching: Matching = by_index,
) -> Job:
    """All that a method needs of live models but the evidence; `hf_bico.compare.compare` takes it. Classifiers stay.

    Args:
        tuned: the fine-tune, or its tensors alone. Of a PEFT model a merged copy is taken; the model is left alone.
        base: what it was fine-tuned from.
        target: the new base, on the base's device.
        calibration: batches of the same samples for both models. A `Batch(source, target, meeting)` is each model's
            own; anything else is shown to both as it is: a dict of a Trainer's DataLoader, (images, labels), a tensor.
            They are moved to the models' devices. Padding meets nothing, by the attention_mask of a dict and the −100
            of a decoder's labels. An iterator is listed once; what can be iterated again is iterated again, never
            held, and must give the same batches (no shuffling).
        loss: `loss(model, batch)`, summed over the batch's samples; two of them where the models' heads differ. Unless
            given, that of the models' classes: of a classifier's labels, of a language model's next tokens, of a
            decoder's labels.
        scores: for label-free gradients, each model's (n, M) scores of a batch on something general; see
            `class_scores`.
        matching: which block takes from which.

    Raises:
        PortError: layers without a partner, a base that is not the fine-tune's, models without a loss of their own.
    """
    _require_plain(base)
    return _job(state_of(tuned), base, target, calibration, loss, scores, matching, Top(), untracked)[0]


def _job(
    tuned: Tensors,
    base: nn.Module,
    target: nn.Module,
    calibration: Iterable[Any],
    loss: Loss | tuple[Loss, Loss] | None,
    scores: tuple[Scores, Scores] | None,
    matching: Matching,
    top: Top,
    track: Track,
) -> tuple[Job, float]:
    """The job, and ‖τ‖/‖θ_A‖."""
    models = base, target
    losses = loss if isinstance(loss, tuple) else (loss, loss) if loss else tuple(map(loss_of, models))
    sites = [family_of(model).sites(model) for model in models]
    pairs = (*pair_sites(*sites, matching), *top.head_layers.moved)
    before = base.state_dict()
    tau = Difference(*({key: state[key] for key in state if key not in top.tensors} for state in (tuned, before)))
    ratio = check_fine_tune(tau, before, sites[0])
    viewers = tuple(BatchFormat.of(model, moves_padding=loss is None) for model in models)
    if viewers[0].device != viewers[1].device:
        raise PortError(f"the base is on {viewers[0].device} and the target on {viewers[1].device}: move both to one")
    batches = LiveBatches(calibration, viewers, frozenset(pair.target.tokens.sequence for pair in pairs))
    sides = [Side(model, *each) for model, *each in zip(models, losses, scores or (None, None), strict=True)]
    return Job(tau, pairs, *sides, target.state_dict(), lambda: batches, Statistics(pairs, ()), track), ratio


def state_of(tuned: nn.Module | Tensors) -> Tensors:
    """A fine-tune's tensors by the names of its base; of a PEFT model those of a merged copy, in float32 or wider, for
    what is merged into bfloat16 is rounded by more than it changes."""
    if not isinstance(tuned, nn.Module):
        return tuned
    if not hasattr(tuned, "merge_and_unload"):
        return tuned.state_dict()
    merged = copy.deepcopy(tuned)
    narrow = any(p.dtype in (torch.float16, torch.bfloat16) for p in merged.parameters())
    return (merged.float() if narrow else merged).merge_and_unload().state_dict()


def labels_of(tuned: nn.Module | Tensors) -> list[str] | None:
    """A classifier's names of its classes, in order; None where it says none."""
    named = getattr(getattr(tuned, "config", None), "id2label", None)
    return named and [str(named[k]) for k in sorted(named)]


def _check_kinds(tuned: Any, base: Any, target: Any, method: Any, matching: Any) -> None:
    """
    Raises:
        PortError: names where live objects are needed.
    """
    odd = [name for name, model in (("base", base), ("target", target)) if not isinstance(model, nn.Module)]
    odd += [] if isinstance(tuned, nn.Module | Mapping) else ["tuned"]
    if odd:
        raise PortError(
            f"{', '.join(odd)}: port() is between live models (or, of the fine-tune, its tensors); from "
            "repos `hf_bico.warm_start` ports, or `hf-bico port`"
        )
    if method is not None and not isinstance(method, Method):
        raise PortError(f"method={method!r}: give a method with its options, as hf_bico.Best()")
    if not callable(matching):
        raise PortError(f"matching={matching!r}: give a rule of hf_bico.core.pairing, as by_index")


def _require_plain(base: nn.Module) -> None:
    if any(hasattr(module, "base_layer") for module in base.modules()):
        raise PortError(
            "the base has PEFT's layers in it, as a model has that was given to get_peft_model: open a "
            "fresh one with from_pretrained"
        )


def class_loss(head: Tensor) -> Loss:
    """Cross-entropy of (inputs, labels) under a classifier head (K, d), summed over the samples."""
    logits = class_scores(head)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        scores = logits(model, batch)
        return of_classes(scores, batch[1].to(scores.device))

    return loss


def class_scores(head: Tensor) -> Scores:
    """(n, M) scores of (inputs, …) under a classifier head (M, d); with a bank of general prompts, label-free."""

    def scores(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        return clip_logits(model, batch[0], head)

    return scores
