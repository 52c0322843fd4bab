"""What a method works on: files fetched, τ checked, models live, samples drawn, heads in place."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_bico.core.collect import Scores
from hf_bico.core.errors import PortError, setting
from hf_bico.core.folds import LEAST, halved
from hf_bico.core.method import Fold, Job, Track
from hf_bico.core.riders import Vocabularies
from hf_bico.core.types import Tensors
from hf_bico.families import Answer, Library, Loaded, PurposeKind
from hf_bico.families.beside import vocabularies_of
from hf_bico.families.heads import HeadKind, place
from hf_bico.families.hf import tokenizer_in
from hf_bico.families.new_tokens import make_room
from hf_bico.families.tokenizing import suit_tokenizer
from hf_bico.io.adapter import CONFIG
from hf_bico.io.changes.source import SourceChange, fetch, only_in_source, open_model, read_change
from hf_bico.io.checkpoints import Named, shards
from hf_bico.io.fits import borrowed
from hf_bico.io.models import PortModels, RepoModel
from hf_bico.io.reference import Pinned, require_new_weights, sha256
from hf_bico.tasks.asked import Asked, check_answers, objective_of, zero_shot_head
from hf_bico.tasks.batches import Batches
from hf_bico.tasks.evaluation import embedded, unsure_loss
from hf_bico.tasks.heads import Head, Placed, make_head
from hf_bico.tasks.objectives import ZeroShot, similarity_scores
from hf_bico.tasks.requirements import TOKENIZERS
from hf_bico.tasks.samples import Draw, Sample, draw, samples_of
from hf_bico.tasks.strategies import Calibration
from hf_bico.workflows.elsewhere import check_elsewhere
from hf_bico.workflows.plan import Plan
from hf_bico.workflows.run import Run


@dataclass(frozen=True)
class Session:
    """The live models of a port. Every step returns a new session; none is changed."""

    plan: Plan
    folders: tuple[Path, Path, Path]
    """Folders of the source, the base and the target."""
    hashes: Mapping[str, str]
    """sha256 of their weights, by role; empty where two bases alone are aligned."""
    change: SourceChange | None
    """The fine-tune's change; None where two bases alone are aligned."""
    weights: Named
    """The target's tensors, without a head that is made."""
    head: Head
    placed: Placed
    """The two bases: as they were opened, then with the head that gradients are taken under."""
    one_vocabulary: bool = True
    """Whether the two bases cut a text alike, where that is what they answer with: tokens, or places of tokens."""
    unlabelled: Draw | None = None
    """The samples without labels, if any are taken."""
    vocabularies: Vocabularies | None = None
    """Those of the base and of the target; None where either has none, or where bases alone are aligned."""

    @property
    def base(self) -> Asked:
        """The base; a ValueError once it has been let go of."""
        if self.placed.base is None:
            raise ValueError("the session has let go of its base")
        return self.placed.base

    @property
    def target(self) -> Asked:
        """The target."""
        return self.placed.target

    @property
    def ported(self) -> SourceChange:
        """The fine-tune's change; a ValueError where two bases alone are aligned."""
        if self.change is None:
            raise ValueError("the session has no fine-tune")
        return self.change

    def job(self, drawn: Draw) -> Job:
        """Return the job that a method is given."""
        head, answer = self.plan.models.head, self.plan.samples.task.labels.answer
        alike = self.one_vocabulary and head is not HeadKind.NONE and answer is not Answer.NUMBER
        base, target = (asked.side(self._label_free(asked), alike=alike) for asked in (self.base, self.target))
        tau: Tensors = {} if self.change is None else self.change.tau
        more = None if self.unlabelled is None else self.batches(self.unlabelled)
        batches, folds = self.batches(drawn), self.folds(drawn)
        rides = self.plan.models.beside(self.vocabularies).rides
        return Job(
            tau, self.plan.models.pairs, base, target, self.weights, batches, folds, unlabelled=more, rides=rides
        )

    def folds(self, drawn: Draw) -> tuple[Fold, ...]:
        """Return the samples in two halves, each held out in turn; none of too few samples, or without a loss."""
        if len(drawn.samples) < LEAST or self.plan.models.head is HeadKind.NONE:
            return ()
        a, b = halves_of(drawn)
        return tuple(Fold(self.batches(x), partial(self._held_out, x, y)) for x, y in ((a, b), (b, a)))

    def _held_out(self, fit: Draw, rest: Draw) -> float:
        """Return the loss of the target as it stands, summed over `rest`, under a head made from `fit` if it depends on
        the body.
        """
        with self.target_as_it_is(fit) as (asked, _):
            return unsure_loss(asked, rest.samples, self.plan.samples.size, fitted=self.plan.models.head.is_fitted)

    def batches(self, drawn: Draw) -> Callable[[], Batches]:
        """Return a function that gives the samples in batches for both models, as often as it is called."""
        sides = self.base.objective, self.target.objective
        return partial(Batches, drawn.samples, sides, self.plan.samples.size)

    def _label_free(self, asked: Asked) -> Scores | None:
        """Return scores on the general texts, which are encoded once for all draws; None if no method wants them."""
        bank, objective = self.plan.samples.bank, asked.objective
        if not bank:
            return None
        if isinstance(objective, ZeroShot):
            head = zero_shot_head(objective.library, asked.loaded, bank, ("{}",))
            return replace(objective, head=head, prompts=()).logits
        return similarity_scores(objective, objective.encode([Sample(text, None) for text in bank]), asked.model)

    def draw(self, track: Track, calibration: Calibration | None = None) -> Draw:
        """Return the calibration samples; strategies that go by distance see the target's own features.

        Args:
            calibration: how they are drawn; as the plan says unless given.
        """
        plan = self.plan.samples

        def features(indices: Sequence[int]) -> np.ndarray:
            samples = track(samples_of(plan.split, indices, plan.task), "Embedding candidates", len(indices))
            return embedded(self.target, samples, 4 * plan.size).numpy()

        drawn = draw(plan.split, plan.name, plan.task, calibration or plan.calibration, plan.labels, features)
        check_answers(self.target, plan.split, plan.name, drawn.indices, plan.task)
        return drawn

    def with_unlabelled(self) -> "Session":
        """Return a session with the samples without labels that are to be taken, if any.

        Raises:
            PortError: a text tower moves, which they would leave without a text.
        """
        if self.plan.unlabelled is None:
            return self
        if isinstance(self.target.objective, ZeroShot) and self.target.objective.prompts:
            raise PortError(
                "the fine-tune changed its text tower, which is shown the prompts of the samples' classes: samples "
                f"without labels have none, so leave out {setting('unlabelled')}"
            )
        return replace(self, unlabelled=self.plan.unlabelled.draw())

    def with_head(self, drawn: Draw, track: Track) -> "Session":
        """Return a session in which both bases have the head that gradients are taken under."""
        placed = self.head.place(self.base, self.target, drawn.samples, track)
        return replace(self, placed=placed)

    @contextmanager
    def target_as_it_is(self, drawn: Draw) -> Iterator[tuple[Asked, dict[str, Tensor]]]:
        """Hold the target under its head, which is made anew if it depends on the body, for a port changes that.

        Yields:
            The target, and the head's tensors.
        """
        with self.head.for_body(self.placed, drawn.samples) as found:
            yield found

    def without_base(self) -> "Session":
        """Return a session that has let go of the base, so that there is room for the fine-tune."""
        return replace(self, placed=replace(self.placed, base=None))


def halves_of(drawn: Draw) -> tuple[Draw, Draw]:
    """Return the samples in two halves, each with its share of every class."""
    a, b = (
        replace(drawn, samples=tuple(drawn.samples[i] for i in half))
        for half in halved([sample.label for sample in drawn.samples])
    )
    return a, b


def open_session(plan: Plan, run: Run) -> Session:
    """Return the session of a plan, its models live.

    Raises:
        PortError: weights that do not fit, are broken, or cannot be a fine-tune and its base.
    """
    library, pinned = plan.models.library, plan.lineage.models
    with run.clock("download"):
        tuned, base, new = (fetch(library, each, run.hub) for each in run.track(pinned, "Downloading", 3))
        folders = (tuned, base, new)
    if plan.maps is not None:
        with run.clock("maps"):
            plan.maps.require_bases(library, pinned[1:], folders[1:])
    with run.clock("task vector"):
        models, change, target = read_change(plan.models, folders, trusted=plan.trusted)
        plan = replace(plan, models=models)
    if plan.maps is not None:
        with run.clock("maps"):
            plan = replace(plan, method=plan.maps.opened(run.hub, models.pairs, models.device))
    with run.clock("load"):
        hashes = hashes_of(library, pinned, folders)
        require_new_weights(hashes, pinned[2])
        sides = _sides(plan, folders)
        place(sides[0].model, {key: change.tuned[key] for key in borrowed(models.base, models.tuned)})
    vocabularies = (models.new.vocabularies if models.new else vocabularies_of)(
        *(asked.loaded.tokenizer for asked in sides)
    )
    change = change.accounted(models, vocabularies)
    if plan.scoring is not None:
        check_answers(sides[1], plan.scoring.split, plan.scoring.name, plan.scoring.indices, plan.samples.task)
    check_elsewhere(sides[1], plan.others)
    own = own_head(models, change)
    dense = models.purpose.sentence.layers(tuned) if models.purpose.sentence else ()
    head = make_head(models.head, plan.samples.task, plan.samples.size, models.layers, own, dense)
    by_token = models.head is HeadKind.LM or models.purpose.kind is PurposeKind.SPANS
    alike = not by_token or _one_vocabulary(*sides)
    weights = target.without(models.layers.target_keys)
    return Session(plan, folders, hashes, change, weights, head, Placed(*sides), alike, vocabularies=vocabularies)


def _sides(plan: Plan, folders: Sequence[Path]) -> tuple[Asked, Asked]:
    """Return the base and the target, live; with rows for added tokens, which the fine-tune's tokenizer tells the base.

    Args:
        folders: those of the source, the base and the target.
    """
    models, speaks = plan.models, speaker(plan, folders)
    base = open_asked(plan, models.base, folders[1], folders[0] if models.new else speaks)
    target = open_asked(plan, models.target, folders[2], speaks)
    if models.new is not None:
        models.new.join(target.loaded.tokenizer)
        if models.new.template is not None and getattr(target.loaded.processor, "chat_template", None):
            target.loaded.processor.chat_template = models.new.template
        if speaks is not None:  # every model writes with tokens of its own, but for these
            base.loaded.tokenizer = tokenizer_in(folders[0])
            suit_tokenizer(base.loaded.tokenizer, base.model, classifies=False)
        for asked, side in zip((base, target), models.insides, strict=True):
            make_room(side._replace(model=asked.model), asked.loaded.tokenizer)
    return base, target


def own_head(models: PortModels, change: SourceChange) -> dict[str, Tensor]:
    """Return the fine-tune's tensors that have no τ: those of its head that are carried whole."""
    keys = only_in_source(models) | models.layers.tuned_keys
    return {key: change.tuned[key] for key in keys if key in change.tuned}


def hashes_of(library: Library, pinned: Sequence[Pinned], folders: Sequence[Path]) -> dict[str, str]:
    """Return the sha256 of the weights of source, base and target in their folders, by role."""
    return {
        role: sha256(*(folder / name for name in shards(library, each)))
        for role, each, folder in zip(("source", "base", "target"), pinned, folders, strict=True)
    }


def _one_vocabulary(base: Asked, target: Asked) -> bool:
    tokenizers = [each.loaded.tokenizer for each in (base, target)]
    if not all(hasattr(each, "get_vocab") for each in tokenizers):
        raise PortError("the source's or the new base's tokenizer is missing or cannot be opened by transformers")
    return tokenizers[0].get_vocab() == tokenizers[1].get_vocab()


def speaker(plan: Plan, folders: Sequence[Path]) -> Path | None:
    """Return the folder whose tokenizer says what all models of a port speak: the fine-tune's, or its base's where it
    has none; None where each has its own.
    """
    if plan.models.purpose.kind not in (PurposeKind.CTC, PurposeKind.SPEECH):
        return None
    both = zip(plan.lineage.models, folders[:2], strict=False)
    return next((folder for pinned, folder in both if TOKENIZERS & set(pinned.files)), None)


def open_asked(plan: Plan, model: RepoModel, folder: Path, feeds: Path | None = None) -> Asked:
    """Return the model of a folder, live, with its objective: of the same tensors that τ is taken of.

    Args:
        feeds: a folder whose tokenizer and processor are taken, where it has them.
    """
    models = plan.models
    state = open_model(models.library, model, folder) if model.own_way else None
    dtype = None if models.stored else torch.float32
    return asked_of(plan, models.library.load(folder, models.device, models.purpose, dtype, state=state, feeds=feeds))


def asked_of(plan: Plan, loaded: Loaded) -> Asked:
    """Return a live model with its objective."""
    models, samples = plan.models, plan.samples
    text_moves = any(pair.target.tower for pair in models.pairs)
    return Asked(
        loaded,
        objective_of(loaded, models.library, models.purpose, samples.task, samples.max_length, text_moves=text_moves),
        plan.scoring.dtype if plan.scoring else None,
    )


def models_key(session: Session) -> list[Any]:
    """Return what tells these three models from all others."""
    models = session.plan.models
    files = [CONFIG if model.adapter else models.library.config_file for model in models.each]
    configs = [(folder / name).read_text() for folder, name in zip(session.folders, files, strict=True)]
    return [dict(session.hashes), sorted(models.groups), *configs]


def dataset_key(pinned: Pinned) -> list[Any]:
    """Return what tells this dataset from all others; for a folder, which has no commit, its files' sizes and dates."""
    if pinned.folder is None:
        return [str(pinned)]
    stats = [(name, (pinned.folder / name).stat()) for name in sorted(pinned.files)]
    return [str(pinned.folder), *([name, stat.st_size, stat.st_mtime_ns] for name, stat in stats)]
