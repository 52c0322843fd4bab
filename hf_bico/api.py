"""Ports between live models, for a training script: no Hub, no files."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_bico.core.collect import Batch, Loss, Scores, Side, collect
from hf_bico.core.methods import BiCo, Job, Method
from hf_bico.core.moments import Evidence
from hf_bico.core.pairing import pair_sites
from hf_bico.core.transport import Account, Difference, Moved, account, added, check_fine_tune
from hf_bico.core.types import Tensors
from hf_bico.families import family_of
from hf_bico.families import logits as clip_logits


@dataclass(frozen=True)
class Ported:
    """What a fine-tune learned, in the coordinates of the new base."""

    target: nn.Module
    delta: dict[str, Tensor]
    """The target's change by state-dict name, at α = 1; tensors that do not change are not in it."""
    moved: list[Moved]
    account: Account

    def apply_(self, alpha: float = 1.0) -> nn.Module:
        """θ_B ← θ_B + α τ_B, in place; the target."""
        state = self.target.state_dict()
        with torch.no_grad():
            for key, tensor in added(state, self.delta, alpha):
                state[key].copy_(tensor)
        return self.target


def port(*, tuned: nn.Module | Tensors, base: nn.Module, target: nn.Module, calibration: Iterable[Batch],
         loss: Loss | tuple[Loss, Loss], scores: tuple[Scores, Scores] | None = None,
         method: Method | None = None) -> Ported:
    """Carry `tuned − base` over to `target`, which is left as it is until `apply_`.

    Args:
        method: BiCo unless given; the others are as for `job_of`.

    Raises:
        PortError: what `job_of` refuses, pairs that the method cannot serve, a NaN, a tensor of τ that nothing
            accounts for.
    """
    method = method or BiCo()
    job = job_of(tuned=tuned, base=base, target=target, calibration=calibration, loss=loss, scores=scores)
    family = family_of(base)
    whole = account(job.tau, job.pairs, family.left_reason, family.sites(base))
    method.check(job.pairs)
    evidence = Evidence(job.pairs, method.signals, method.draws)
    collect(job.source, job.target, job.pairs, job.batches(), evidence)
    result = method.carry(replace(job, evidence=evidence))
    return Ported(target, result.delta, result.moved, whole)


def job_of(*, tuned: nn.Module | Tensors, base: nn.Module, target: nn.Module, calibration: Iterable[Batch],
           loss: Loss | tuple[Loss, Loss], scores: tuple[Scores, Scores] | None = None) -> Job:
    """All that a method needs of live models but the evidence; `hf_bico.compare.compare` takes it.

    Args:
        tuned: the fine-tune, or its tensors alone.
        base: what it was fine-tuned from.
        target: the new base.
        calibration: the same samples for both, `(source_batch, target_batch)` a step.
        loss: `loss(model, batch)`, summed over the batch's samples; two of them where the models' heads differ.
        scores: for label-free gradients, each model's (n, M) scores of a batch on something general; see
            `class_scores`.

    Raises:
        PortError: layers without a partner, a base that is not the fine-tune's.
    """
    losses = loss if isinstance(loss, tuple) else (loss, loss)
    sites = family_of(base).sites(base)
    pairs = pair_sites(sites, family_of(target).sites(target))
    before = base.state_dict()
    tau = Difference(tuned.state_dict() if isinstance(tuned, nn.Module) else tuned, before)
    check_fine_tune(tau, before, sites)
    batches = [Batch(*batch) for batch in calibration]
    sides = [Side(model, *each) for model, *each in zip((base, target), losses, scores or (None, None), strict=True)]
    return Job(tau, pairs, *sides, target.state_dict(), lambda: batches, Evidence(pairs, ()))


def class_loss(head: Tensor) -> Loss:
    """Cross-entropy of (inputs, labels) under a classifier head (K, d), summed over the samples."""
    logits = class_scores(head)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        scores = logits(model, batch)
        return F.cross_entropy(scores, batch[1].to(scores.device), reduction="sum")
    return loss


def class_scores(head: Tensor) -> Scores:
    """(n, M) scores of (inputs, …) under a classifier head (M, d); with a bank of general prompts, label-free."""
    def scores(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        return clip_logits(model, batch[0], head)
    return scores
