"""The head that a port's models answer with: carried over, fitted to the samples, or what the models have."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from hf_bico.core.method import Track
from hf_bico.core.transport import holding
from hf_bico.core.types import Fit, Site, Tensors
from hf_bico.families.heads import HeadKind, HeadLayers, carried, fitted, place, ridge
from hf_bico.tasks.asked import Asked, zero_shot_head
from hf_bico.tasks.batches import Batches, batched
from hf_bico.tasks.objectives import Embedding, ZeroShot
from hf_bico.tasks.samples import Sample, Task

Samples = Sequence[Sample]


@dataclass(frozen=True)
class Placed:
    """Both bases with the head that their loss is taken under."""

    base: Asked | None
    """None once it has done its part."""
    target: Asked
    tensors: dict[str, Tensor] = field(default_factory=dict)
    """The target's, where one was made for it."""
    fit: Fit | None = None
    """How well the map of its input fits, where it was carried."""


class Head(Protocol):
    """What becomes of the layers on top, on a port's models."""

    @property
    def kind(self) -> HeadKind: ...

    def place(self, base: Asked, target: Asked, samples: Samples, track: Track) -> Placed:
        """Give both bases the head that gradients are taken under, made of the calibration samples if it is made."""
        ...

    @contextmanager
    def for_body(self, placed: Placed, samples: Samples) -> Iterator[tuple[Asked, dict[str, Tensor]]]:
        """Make the target's head for its body as it is now, for as long as the block runs.

        Yields:
            The target under it, and the head's tensors.
        """
        ...

    def on_tuned(self, tuned: Asked, samples: Samples) -> Asked:
        """Return a fine-tune, which has its own head, as it is asked."""
        ...


@dataclass(frozen=True)
class Fixed:
    """Language-model heads, and none: what the models have."""

    kind: HeadKind
    task: Task
    size: int
    """Samples a batch."""

    def place(self, base: Asked, target: Asked, samples: Samples, track: Track) -> Placed:
        return Placed(base, target)

    @contextmanager
    def for_body(self, placed: Placed, samples: Samples) -> Iterator[tuple[Asked, dict[str, Tensor]]]:
        yield placed.target, placed.tensors

    def on_tuned(self, tuned: Asked, samples: Samples) -> Asked:
        return tuned


@dataclass(frozen=True)
class Prompted(Fixed):
    """The texts of the classes; encoded anew for a text tower that changed."""

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
    """A classifier that the fine-tune brings, through the map of its input."""

    layers: HeadLayers
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
    """A classifier that is fitted to the samples in closed form: on either base's body as it is."""

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
        """Return a side's layers for its body as it is; nothing where it has its own."""
        if not sites:
            return {}
        encoded = [asked.objective.encode(some) for some in batched(samples, self.size)]
        return fitted(sites, asked.model, asked.objective.loss, encoded, len(self.task.class_names))


@dataclass(frozen=True)
class Probed(Fixed):
    """A classifier beside a model of features, fitted to the samples on the body as it is."""

    def place(self, base: Asked, target: Asked, samples: Samples, track: Track) -> Placed:
        return Placed(self._with_probe(base, samples), self._with_probe(target, samples))

    @contextmanager
    def for_body(self, placed: Placed, samples: Samples) -> Iterator[tuple[Asked, dict[str, Tensor]]]:
        yield self._with_probe(placed.target, samples), placed.tensors

    def on_tuned(self, tuned: Asked, samples: Samples) -> Asked:
        return self._with_probe(tuned, samples)

    def _with_probe(self, asked: Asked, samples: Samples) -> Asked:
        objective = asked.objective
        assert isinstance(objective, Embedding)
        with torch.no_grad():
            parts = [
                (objective.raw(asked.model, batch).float().cpu(), batch.labels)
                for batch in map(objective.encode, batched(samples, self.size))
            ]
        x, labels = (torch.cat(each) for each in zip(*parts, strict=True))
        return replace(asked, objective=replace(objective, probe=ridge(x, labels, len(self.task.class_names))))


def make_head(kind: HeadKind, task: Task, size: int, layers: HeadLayers, own: Tensors) -> Head:
    """Return what serves a kind of head.

    Args:
        size: samples a batch.
        layers: what becomes of a classifier's layers.
        own: the fine-tune's layers on top that are carried whole.
    """
    if kind is HeadKind.TRANSPORT:
        return Carried(kind, task, size, layers, own)
    if kind is HeadKind.RIDGE:
        return Fitted(kind, task, size, layers, own)
    plain = {HeadKind.PROBE: Probed, HeadKind.ZERO_SHOT: Prompted}.get(kind, Fixed)
    return plain(kind, task, size)
