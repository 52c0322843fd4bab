"""The head that a port's models answer with: carried over, fitted to the samples, or the models' own."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from hf_bico.core.method import Track
from hf_bico.core.moments import CrossMoment
from hf_bico.core.transport import holding
from hf_bico.core.types import Fit, Site, Tensors
from hf_bico.families.feeding import Encoded
from hf_bico.families.fitting import fitting_of, solved
from hf_bico.families.heads import HeadKind, HeadLayers, carried, carried_layer, fitted, place
from hf_bico.families.sentences import Dense
from hf_bico.tasks.asked import Asked, zero_shot_head
from hf_bico.tasks.batches import Batches, batched
from hf_bico.tasks.embeddings import Embedding
from hf_bico.tasks.objectives import ZeroShot
from hf_bico.tasks.samples import Sample, Task

Samples = Sequence[Sample]


@dataclass(frozen=True)
class Placed:
    """Both bases with the head that the loss is taken under."""

    base: Asked | None
    """The base; None once it is needed no longer."""
    target: Asked
    tensors: dict[str, Tensor] = field(default_factory=dict)
    """The target's head by state-dict name, where one was made for it."""
    fit: Fit | None = None
    """How well the map of the head's input fits, where the head was carried."""


class Head(Protocol):
    """What becomes of the layers on top of a port's models."""

    @property
    def kind(self) -> HeadKind:
        """Which kind of head it is."""
        ...

    def place(self, base: Asked, target: Asked, samples: Samples, track: Track) -> Placed:
        """Return both bases with the head that gradients are taken under; one that is made is made of the samples."""
        ...

    @contextmanager
    def for_body(self, placed: Placed, samples: Samples) -> Iterator[tuple[Asked, dict[str, Tensor]]]:
        """Hold the target under a head that suits its body as it is now, for as long as the block runs.

        Yields:
            The target under that head, and the head's tensors.
        """
        ...

    def on_tuned(self, tuned: Asked, samples: Samples) -> Asked:
        """Return a fine-tune under a head of its own, ready to be scored."""
        ...


@dataclass(frozen=True)
class Fixed:
    """The heads that the models have: of language models, or none."""

    kind: HeadKind
    task: Task
    size: int
    """Samples in a batch."""

    def place(self, base: Asked, target: Asked, samples: Samples, track: Track) -> Placed:
        return Placed(base, target)

    @contextmanager
    def for_body(self, placed: Placed, samples: Samples) -> Iterator[tuple[Asked, dict[str, Tensor]]]:
        yield placed.target, placed.tensors

    def on_tuned(self, tuned: Asked, samples: Samples) -> Asked:
        return tuned


@dataclass(frozen=True)
class Prompted(Fixed):
    """The texts of the classes, encoded anew where the text tower changed."""

    @contextmanager
    def for_body(self, placed: Placed, samples: Samples) -> Iterator[tuple[Asked, dict[str, Tensor]]]:
        asked, objective = placed.target, placed.target.objective
        if isinstance(objective, ZeroShot) and objective.prompts:
            task, library = self.task, objective.library
            texts = zero_shot_head(library, asked.loaded, task.class_names, task.templates)
            asked = replace(asked, objective=replace(objective, head=texts))
        yield asked, placed.tensors


@dataclass(frozen=True)
class Carried(Fixed):
    """The fine-tune's classifier, carried through the map of its input."""

    layers: HeadLayers
    """What becomes of each layer of the classifier."""
    own: Tensors
    """The fine-tune's layers on top that are carried whole."""

    def place(self, base: Asked, target: Asked, samples: Samples, track: Track) -> Placed:
        place(base.model, self.own)
        gains = self.layers.gain(self.own, target.model.state_dict())
        place(target.model, gains)
        if not self.layers.carried:
            return Placed(base, target)
        batches = Batches(samples, (base.objective, target.objective), self.size)
        shown = track(batches, "Carrying the head", len(batches))
        made, fit = carried(self.layers.carried, self.own, base.side(), target.side(), shown)
        place(target.model, made)
        return Placed(base, target, made | gains, fit)


@dataclass(frozen=True)
class Fitted(Carried):
    """A classifier that is fitted to the samples in closed form, on the body of either base as it is."""

    def place(self, base: Asked, target: Asked, samples: Samples, track: Track) -> Placed:
        place(base.model, self.own)
        gains = self.layers.gain(self.own, target.model.state_dict())
        place(target.model, gains)
        made = [
            self._fit(asked, sites, samples) for asked, sites in ((base, self.layers.fresh), (target, self.layers.made))
        ]
        for asked, tensors in zip((base, target), made, strict=True):
            place(asked.model, tensors)
        return Placed(base, target, made[1] | gains)

    @contextmanager
    def for_body(self, placed: Placed, samples: Samples) -> Iterator[tuple[Asked, dict[str, Tensor]]]:
        tensors = self._fit(placed.target, self.layers.made, samples)
        with holding(placed.target.model, tensors.items()):
            yield placed.target, placed.tensors | tensors

    def _fit(self, asked: Asked, sites: Sequence[Site], samples: Samples) -> dict[str, Tensor]:
        """Return the layers fitted to a model's body as it is; empty where it has its own."""
        if not sites:
            return {}
        encoded = [asked.objective.encode(some) for some in batched(samples, self.size, asked.objective)]
        fitting = fitting_of(self.task.labels.answer, len(self.task.class_names))
        return fitted(sites, asked.model, asked.objective.loss, encoded, fitting)


@dataclass(frozen=True)
class Behind(Fixed):
    """What sentence-transformers puts behind a model of features: its linear layers, the first of them carried."""

    dense: tuple[Dense, ...]
    """The fine-tune's."""

    def place(self, base: Asked, target: Asked, samples: Samples, track: Track) -> Placed:
        if not self.dense:
            return Placed(base, target)
        moment = CrossMoment()
        for batch in track(Batches(samples, (base.objective, target.objective), self.size), "Carrying the head", 0):
            with torch.no_grad():
                a, b = (_bare(asked, part) for asked, part in ((base, batch.base), (target, batch.target)))
            moment.add(a[:, None], b[:, None])
        made, fit = carried_layer(self.dense[0].weight, moment)
        first = replace(self.dense[0], weight=made)
        return Placed(_with_dense(base, self.dense), _with_dense(target, (first, *self.dense[1:])), fit=fit)

    def on_tuned(self, tuned: Asked, samples: Samples) -> Asked:
        return _with_dense(tuned, self.dense) if self.dense else tuned


def _bare(asked: Asked, batch: Encoded) -> Tensor:
    assert isinstance(asked.objective, Embedding)
    return asked.objective.bare(asked.model, batch).float().cpu()


def _with_dense(asked: Asked, dense: tuple[Dense, ...]) -> Asked:
    assert isinstance(asked.objective, Embedding)
    return replace(asked, objective=replace(asked.objective, dense=dense))


@dataclass(frozen=True)
class Probed(Behind):
    """A linear probe of a model of features, fitted to the samples on the body as it is."""

    def place(self, base: Asked, target: Asked, samples: Samples, track: Track) -> Placed:
        placed = super().place(base, target, samples, track)
        assert placed.base is not None
        own, theirs = (self._with_probe(asked, samples) for asked in (placed.base, placed.target))
        return replace(placed, base=own, target=theirs)

    @contextmanager
    def for_body(self, placed: Placed, samples: Samples) -> Iterator[tuple[Asked, dict[str, Tensor]]]:
        yield self._with_probe(placed.target, samples), placed.tensors

    def on_tuned(self, tuned: Asked, samples: Samples) -> Asked:
        return self._with_probe(super().on_tuned(tuned, samples), samples)

    def _with_probe(self, asked: Asked, samples: Samples) -> Asked:
        objective = asked.objective
        assert isinstance(objective, Embedding)
        with torch.no_grad():
            parts = [
                (objective.raw(asked.model, batch).float().cpu(), batch.labels)
                for batch in map(objective.encode, batched(samples, self.size, asked.objective))
            ]
        x, labels = (torch.cat(each) for each in zip(*parts, strict=True))
        fitting = fitting_of(self.task.labels.answer, len(self.task.class_names))
        return replace(asked, objective=replace(objective, probe=solved(fitting, x, labels)))


def make_head(
    kind: HeadKind, task: Task, size: int, layers: HeadLayers, own: Tensors, dense: tuple[Dense, ...] = ()
) -> Head:
    """Return the head of a kind.

    Args:
        size: samples in a batch.
        layers: what becomes of each layer of a classifier.
        own: the fine-tune's layers on top that are carried whole.
        dense: its linear layers behind the pooling.
    """
    if kind is HeadKind.TRANSPORT:
        return Carried(kind, task, size, layers, own)
    if kind is HeadKind.RIDGE:
        return Fitted(kind, task, size, layers, own)
    if kind in (HeadKind.PROBE, HeadKind.COSINE, HeadKind.NONE):
        return (Probed if kind is HeadKind.PROBE else Behind)(kind, task, size, dense)
    return (Prompted if kind is HeadKind.ZERO_SHOT else Fixed)(kind, task, size)
