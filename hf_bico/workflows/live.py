"""Ports between live models, for a training script: no Hub and no files are needed."""

import copy
from collections.abc import Collection, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hf_bico.core.account import account
from hf_bico.core.chain import gather
from hf_bico.core.choice import choice_of
from hf_bico.core.collect import Loss, Scores, Side
from hf_bico.core.device import device_of
from hf_bico.core.difference import Difference
from hf_bico.core.errors import PortError
from hf_bico.core.experts import match_experts
from hf_bico.core.gains import Folded, told
from hf_bico.core.method import Job, Method, Track, untracked
from hf_bico.core.methods import Auto
from hf_bico.core.methods.polished import Polish, polished
from hf_bico.core.pairing import Matching, by_index, pair_sites
from hf_bico.core.pieces import by_sample
from hf_bico.core.riders import Vocabularies
from hf_bico.core.transport import check_fine_tune
from hf_bico.core.types import Tensors
from hf_bico.families import family_of, told_of
from hf_bico.families import logits as clip_logits
from hf_bico.families.beside import MOVING, Insides, beside, groups_of
from hf_bico.families.heads import HeadKind
from hf_bico.families.live_heads import LiveHead, live_head
from hf_bico.families.live_words import live_words
from hf_bico.families.losses import loss_of, loss_of_classes
from hf_bico.families.new_tokens import with_room
from hf_bico.io.hub import cached_commit
from hf_bico.io.names import unwrapped
from hf_bico.reports.records import (
    CalibrationRecord,
    Environment,
    HeadRecord,
    MethodRecord,
    Origin,
    TaskVectorRecord,
    TaughtRecord,
    layer_table,
)
from hf_bico.reports.report import Clock, PortReport
from hf_bico.tasks.batches import BatchFormat, LiveBatches
from hf_bico.tasks.parts import live_folds
from hf_bico.workflows.in_groups import carried_last
from hf_bico.workflows.ported import Ported

UNNAMED = "a model in memory"


@dataclass(frozen=True)
class LivePair:
    """A fine-tune's tensors, its base and the new base, with what becomes of their classifiers."""

    tuned: Tensors
    base: nn.Module
    target: nn.Module
    head: LiveHead = field(default_factory=LiveHead)
    trusted: bool = False
    """Whether the base is taken for the fine-tune's whatever their weights say."""
    family: str | None = None
    """The family that was asked for by name, if any."""
    vocabularies: Vocabularies | None = None
    """Those of the base and of the target, where their tokenizers were given."""

    @property
    def insides(self) -> tuple[Insides, Insides]:
        """The insides of the base and of the target."""
        base, target = (Insides(family_of(model, self.family), model) for model in (self.base, self.target))
        return base, target


@dataclass(frozen=True)
class LiveSamples:
    """The samples of both models, and the loss and scores they are asked for."""

    calibration: Iterable[Any]
    loss: Loss | tuple[Loss, Loss] | None = None
    scores: tuple[Scores, Scores] | None = None


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
    head: str = HeadKind.TRANSPORT.value,
    trust_base: bool = False,
    only: Collection[str] = MOVING,
    family: str | None = None,
    polish: Polish | None = None,
    answers: tuple[Scores, Scores] | None = None,
    tokenizers: tuple[Any, Any, Any] | None = None,
    add_tokens: bool = False,
    track: Track = untracked,
) -> Ported:
    """Carry `tuned − base` over to `target`, which is left as it is until `apply_`.

    A classifier that the fine-tune brings is carried over whole, through the map of its input: it has no τ, for its
    base's was random. What of it lies inside the body (BERT's pooler) moves like any other layer.

    Args:
        method: what does best on samples that are held out (`Auto`), unless given; the others are as for `job_of`.
        head: "transport", or "own": the target's classifier stays, and gradients are taken under either model's own.
        trust_base: take the base for the fine-tune's even if their weights have nothing in common.
        only: which kinds of tensors move: "linear" (always; alone it is the paper), "tokens" (embeddings and
            language-model heads), "positions", "patches", "special" (class tokens and the like), "norms", "biases"
            (relative positions).
        family: "generic" to read roles off a traced forward pass, whatever tables there are; found unless given.
        polish: how the port is trained further, as `Polish(steps=100)`; not at all unless given.
        answers: each model's logits (n, K) of a batch, for a polish towards the fine-tune's own answers; it is towards
            the labels unless they are given.
        tokenizers: those of the fine-tune, of the base and of the target. Rows of embeddings meet by token then; else
            the n-th meets the n-th, where there are as many.
        add_tokens: give the target the tokens that the fine-tune added to its base's tokenizer. It gets their rows with
            `apply_`; the tokenizer with them is `Ported.tokenizer`, and is saved with the port.
        track: shows the stages as they pass; quiet unless given.

    Raises:
        PortError: what `job_of` refuses, pairs that the method cannot serve, a NaN, a tensor of τ that nothing
            accounts for, classifiers that are built differently.
    """
    _check_kinds(tuned, base, target, method, matching)
    _require_plain(base)
    method, clock, groups = method or Auto(), Clock(), groups_of(only)
    state, known = as_named(state_of(tuned), base.state_dict()), family_of(base, family)
    on_top = live_head(state, base, target, head, family)
    others = on_top.layers.told(known.final_gain(base), state, base.state_dict())
    pair = LivePair({**state, **others}, base, target, on_top.telling(others), trust_base, family)
    words = live_words(state, pair.insides, tokenizers, groups, adding=add_tokens)
    with torch.enable_grad(), ExitStack() as held:
        for side in words.sides:
            held.enter_context(with_room(side))
        pair = replace(pair, vocabularies=words.vocabularies)
        job, ratio, batches = _job(pair, LiveSamples(calibration, loss, scores), matching, groups)
        sites = (*known.sites(base), *(each.base for each in pair.head.layers.moved))
        whole = account(job.tau, job.pairs, known.left_reason, sites, job.rides)
        method.check(job.pairs)
        with clock("head"):
            made, fit = held.enter_context(pair.head.on(job, track))
        with clock("calibrate"):
            seen = gather(job, method.collected, track=track)
        with clock("move"):
            result = carried_last(job, method, seen, track)
        with clock("polish"):
            polish, own = polish or Polish(), answers or (None, None)
            sides = [side._replace(answers=each) for side, each in zip((job.base, job.target), own, strict=True)]
            result = polished(result, replace(job, base=sides[0], target=sides[1]), polish, track)
    choice, whole = choice_of(result), whole.after(result.rode)
    record = PortReport(
        live=True,
        lineage=lineage_of(tuned, base, target),
        method=MethodRecord.of(method, choice=choice),
        calibration=CalibrationRecord(n=batches.samples, batches=len(batches.hashes), content_sha256=batches.sha256),
        task_vector=TaskVectorRecord.of(ratio, whole, result.moved),
        layers=layer_table(job.pairs),
        head=HeadRecord(**pair.head.record(fit), labels=labels_of(tuned) if made else None),
        moved=tuple(result.moved),
        beside=tuple(result.rode),
        left=tuple(whole.left),
        polish=TaughtRecord.of(result.taught, polish),
        roles=told_of((known, base), (family_of(target, family), target)),
        environment=Environment.of(str(device_of(target)), clock.seconds),
    )
    return Ported(target, result.delta, made, result.moved, whole, record, words.added)


def job_of(
    *,
    tuned: nn.Module | Tensors,
    base: nn.Module,
    target: nn.Module,
    calibration: Iterable[Any],
    loss: Loss | tuple[Loss, Loss] | None = None,
    scores: tuple[Scores, Scores] | None = None,
    matching: Matching = by_index,
    trust_base: bool = False,
    only: Collection[str] = MOVING,
    family: str | None = None,
) -> Job:
    """Return all that a method needs of live models; `hf_bico.core.compare.compare` takes it. Classifiers stay.

    Args:
        tuned: the fine-tune, or its tensors alone. Of a PEFT model a merged copy is taken; the model is left alone.
        base: what it was fine-tuned from.
        target: the new base, on the base's device.
        calibration: batches of the same samples for both models. A `Batch(base, target, meeting)` has a part for each
            model; anything else is shown to both as it is: a dict of a Trainer's DataLoader, (images, labels), a
            tensor. They are moved to the models' devices. Padding meets nothing, by the attention_mask of a dict and
            the −100 of a decoder's labels. An iterator is listed once; anything else is iterated anew each time, never
            held in memory, and must give the same batches (no shuffling).
        loss: `loss(model, batch)`, summed over the batch's samples; a pair of them where the models' heads differ.
            Unless given, the loss of the models' own classes: of a classifier's labels, a language model's next
            tokens, a decoder's labels.
        scores: for label-free gradients, each model's (n, M) scores of a batch on something general; see
            `class_scores`.
        matching: which block takes from which.
        trust_base: take the base for the fine-tune's even if their weights have nothing in common.
        only: which kinds of tensors move, as for `port`.
        family: "generic" to read roles off a traced forward pass, whatever tables there are; found unless given.

    Raises:
        PortError: layers without a partner, a base that is not the fine-tune's, models without a loss of their own.
    """
    _require_plain(base)
    named = as_named(state_of(tuned), base.state_dict())
    pair = LivePair(named, base, target, trusted=trust_base, family=family)
    return _job(pair, LiveSamples(calibration, loss, scores), matching, groups_of(only))[0]


def _job(
    live: LivePair, samples: LiveSamples, matching: Matching, groups: frozenset[str]
) -> tuple[Job, float, LiveBatches]:
    """Return the job, ‖τ‖/‖θ_A‖, and the samples."""
    base, target, loss = live.base, live.target, samples.loss
    losses = loss if isinstance(loss, tuple) else (loss, loss) if loss else (loss_of(base), loss_of(target))
    sites, theirs = (family_of(model, live.family).sites(model) for model in (base, target))
    pairs = (*pair_sites(sites, theirs, matching), *live.head.layers.moved)
    before = base.state_dict()
    own = live.head.tensors
    rides, gains = beside(*live.insides, pairs, groups, live.vocabularies)
    tuned, plain = ({key: state[key] for key in state if key not in own} for state in (live.tuned, before))
    must = {s.key for pair in pairs for s in pair.base.slices}
    tau = told(
        Difference(tuned, plain, must),
        lambda: Difference(Folded(tuned, plain, gains), plain, must, stored=False),
        gains,
    )
    ratio = check_fine_tune(tau, before, sites, trusted=live.trusted)
    formats = BatchFormat.of(base, moves_padding=loss is None), BatchFormat.of(target, moves_padding=loss is None)
    if formats[0].device != formats[1].device:
        raise PortError(f"the base is on {formats[0].device} and the target on {formats[1].device}: move both to one")
    sequences = frozenset(pair.target.tokens.sequence for pair in pairs)
    batches = LiveBatches(samples.calibration, formats, sequences)
    scores = samples.scores or (None, None)
    sides = Side(base, losses[0], scores[0]), Side(target, losses[1], scores[1])
    pairs = match_experts(*sides, pairs, lambda: batches)
    job = Job(tau, pairs, *sides, target.state_dict(), lambda: batches, live_folds(batches, sides[1]), rides=rides)
    return job, ratio, batches


def state_of(tuned: nn.Module | Tensors) -> Tensors:
    """Return a fine-tune's tensors by the names of its base.

    Of a PEFT model they are those of a merged copy, in float32 or wider: merged into bfloat16, a change is smaller
    than its rounding.
    """
    if not isinstance(tuned, nn.Module):
        return tuned
    if not hasattr(tuned, "merge_and_unload"):
        return tuned.state_dict()
    merged: Any = copy.deepcopy(tuned)
    narrow = any(p.dtype in (torch.float16, torch.bfloat16) for p in merged.parameters())
    return (merged.float() if narrow else merged).merge_and_unload().state_dict()


def as_named(state: Tensors, base: Tensors) -> Tensors:
    """Return a fine-tune's tensors by the names of its base, without the marks of wrappers such as DDP."""
    plain = {unwrapped(key): key for key in state}
    better = len(plain.keys() & base.keys()) > len(state.keys() & base.keys())
    return {name: state[key] for name, key in plain.items()} if better else state


def labels_of(tuned: nn.Module | Tensors) -> tuple[str, ...] | None:
    """Return the names of a classifier's classes, in order; None if it has none."""
    named = getattr(getattr(tuned, "config", None), "id2label", None)
    return tuple(str(named[k]) for k in sorted(named)) if named else None


def lineage_of(tuned: nn.Module | Tensors, base: nn.Module, target: nn.Module) -> dict[str, Origin]:
    """Return where the models say that they come from, by role.

    A fine-tune in training still has the name of its base, which is not its own.
    """
    found = {"source": _origin(tuned), "base": _origin(base), "target": _origin(target)}
    if found["source"].name in (found["base"].name, UNNAMED):
        found["source"] = Origin(f"a fine-tune of {found['base'].name}", None, local=True)
    return found


def _origin(model: Any) -> Origin:
    config = getattr(model, "config", None)
    name = getattr(config, "_name_or_path", "") or ""
    if not name:
        return Origin(UNNAMED, None, local=True)
    if Path(name).is_dir():
        return Origin(Path(name).resolve().name, None, local=True)
    return Origin(name, getattr(config, "_commit_hash", None) or cached_commit(name), local=False)


def _check_kinds(tuned: Any, base: Any, target: Any, method: Any, matching: Any) -> None:
    """Refuse names where live objects are needed.

    Raises:
        PortError: there is one.
    """
    odd = [name for name, model in (("base", base), ("target", target)) if not isinstance(model, nn.Module)]
    odd += [] if isinstance(tuned, nn.Module | Mapping) else ["tuned"]
    if odd:
        raise PortError(
            f"{', '.join(odd)}: port() is between live models (or, of the fine-tune, its tensors); for "
            "repos use hf_bico.warm_start or `hf-bico port SOURCE --to TARGET --dataset DATASET`"
        )
    if method is not None and not isinstance(method, Method):
        raise PortError(f"method={method!r}: give a method with its options, such as hf_bico.BiCo()")
    if not callable(matching):
        raise PortError(f"matching={matching!r}: give a rule of hf_bico.core.pairing, such as by_index")


def _require_plain(base: nn.Module) -> None:
    if any(hasattr(module, "base_layer") for module in base.modules()):
        raise PortError(
            "the base has PEFT's layers in it, as any model that was given to get_peft_model: open a "
            "fresh one with from_pretrained"
        )


def class_loss(head: Tensor) -> Loss:
    """Return the cross-entropy of (inputs, labels) under a classifier head (K, d), summed over the samples.

    Args:
        head: unit text features of the K classes, of a CLIP-like model.
    """
    logits = class_scores(head)

    @by_sample
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        scores = logits(model, batch)
        return loss_of_classes(scores, batch[1].to(scores.device))

    return loss


def class_scores(head: Tensor) -> Scores:
    """Return the (n, M) scores of (inputs, …) under a classifier head (M, d).

    Args:
        head: unit text features of M texts, of a CLIP-like model; of general texts for label-free gradients.
    """

    @by_sample
    def scores(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        return clip_logits(model, batch[0], head)

    return scores
