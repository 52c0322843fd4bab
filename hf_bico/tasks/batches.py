"""Calibration batches as both models are shown them: of samples, or of a training script."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from operator import length_hint
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from hf_bico.core.alignment import meeting, same
from hf_bico.core.collect import Batch, Elsewhere, samples_in
from hf_bico.core.errors import PortError
from hf_bico.families.feeding import LABELS, TEXT, UNASKED, Encoded
from hf_bico.families.patches import meeting_of_images
from hf_bico.tasks.objectives import Objective
from hf_bico.tasks.samples import Sample
from hf_bico.tasks.views import Seen, sample_seen, seed_of

IDS, MASK, ANSWERS = "input_ids", "attention_mask", "labels"


@dataclass(frozen=True)
class Batches:
    """The calibration samples in batches for both models; they can be iterated again and again."""

    samples: Sequence[Sample]
    sides: tuple[Objective, Objective]
    """The base's and the target's."""
    size: int
    """Samples in a batch."""
    number: int | None = None
    """Which view of the samples is shown; None for the samples themselves."""
    part: tuple[int, int] = (0, 1)
    """(rank, world): the batches of other ranks are told the size of, and are not prepared."""

    def view(self, number: int) -> "Batches":
        """Return the same samples, seen in another way."""
        return replace(self, number=number)

    def divided(self, rank: int, world: int) -> "Batches":
        """Return the same batches, of which those of other ranks are `Elsewhere`; views are counted on."""
        return replace(self, part=(rank, world))

    def __iter__(self) -> Iterator[Batch]:
        (rank, world), done = self.part, 0
        before = 0 if world == 1 or self.number is None else (1 + self.number) * len(self)
        for k, some in enumerate(batched(self.samples, self.size, *self.sides), before):
            if k % world != rank:
                yield Elsewhere(len(some))
            else:
                shown = self._seen(done, some)
                a, b = (side.encode(shown) for side in self.sides)
                yield Batch(a, b, row_weights(a, b))
            done += len(some)

    def _seen(self, first: int, some: Sequence[Sample]) -> Sequence[Sample]:
        """Return the samples from the number `first` on as the view shows them."""
        if self.number is None:
            return some
        return [sample_seen(sample, seed_of(i, self.number)) for i, sample in enumerate(some, first)]

    def __len__(self) -> int:
        return sum(1 for _ in batched(self.samples, self.size, *self.sides))


def batched(items: Iterable, size: int, *asked: Objective):
    """Yield lists of `size` items, the last one shorter.

    Args:
        asked: what is asked of the items. A model of sound that pads the shorter of two hears them otherwise than each
            alone, so that its sounds are listed apart from those of another length.
    """
    apart = any(each.side.ear is not None and not each.side.ear.fixed for each in asked)
    for _, alike in groupby(items, lambda item: len(item.inputs.samples) / item.inputs.rate) if apart else [(0, items)]:
        iterator = iter(alike)
        while batch := list(islice(iterator, size)):
            yield batch


class BatchFormat(NamedTuple):
    """How a model takes its batches."""

    device: torch.device
    dtype: torch.dtype
    """Dtype of images and other floating-point inputs; indices keep theirs."""
    moves_padding: bool = False
    """Whether padding on the left is moved to the right, so that a sample has the positions that it has alone."""
    decodes: bool = False
    """Whether it has a decoder, so that its labels are another text than its inputs."""

    @classmethod
    def of(cls, model: nn.Module, *, moves_padding: bool) -> "BatchFormat":
        """Return the format of a model: its device, its dtype, and whether it has a decoder."""
        weight = next(p for p in model.parameters() if p.is_floating_point())
        decodes = bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))
        return cls(weight.device, weight.dtype, moves_padding, decodes)

    def put(self, batch: Any) -> Any:
        """Return a batch on the model's device, with floating-point inputs in its dtype; labels keep theirs."""
        if isinstance(batch, Mapping):
            return {name: self._put(part, name != ANSWERS) for name, part in batch.items()}
        if isinstance(batch, tuple | list):
            parts = [self._put(part, number == 0) for number, part in enumerate(batch)]
            return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
        return self._put(batch, True)

    def _put(self, part: Any, goes_in: bool) -> Any:
        if isinstance(part, Tensor):
            return part.to(self.device, self.dtype if goes_in and part.is_floating_point() else part.dtype)
        return part.to(self.device) if hasattr(part, "to") else part


class LiveBatches:
    """Batches for two models, which can be iterated again and again.

    An iterator is listed once. Anything else (a DataLoader) is iterated anew each time and never held in memory: it
    must give the same batches, which is checked by hash.
    """

    def __init__(
        self, items: Iterable[Any], viewers: tuple[BatchFormat, BatchFormat], sequences: frozenset[str]
    ) -> None:
        """Keep the items; an iterator is listed.

        Args:
            items: each a `Batch`, or anything that both models are shown as it is.
            viewers: the formats of the base and of the target.
            sequences: names of the texts whose rows must be matched: "text", "labels".
        """
        self.items = list(items) if isinstance(items, Iterator) else items
        self.viewers, self.sequences = viewers, sequences
        self.hashes: list[str] = []
        self.samples = 0

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches as both models take them.

        Raises:
            PortError: the batches are not those of the first time, or tokens cannot be paired.
        """
        number = 0
        for number, item in enumerate(self.items, 1):
            self._remember(number, item)
            yield shown(item, self.viewers, self.sequences)
        if number < len(self.hashes):
            raise PortError(_CHANGED)

    def __length_hint__(self) -> int:
        return length_hint(self.items)

    def view(self, number: int) -> Seen | None:
        """Return the batches with every image seen in another way; None where all layers read text."""
        return None if all(self.sequences) else Seen(self, number)

    @property
    def sha256(self) -> str:
        """The hash of all batches' contents, in order."""
        return hashlib.sha256("".join(self.hashes).encode()).hexdigest()

    def _remember(self, number: int, item: Any) -> None:
        digest = hashlib.sha256()
        _hash(digest, item)
        if number > len(self.hashes):
            self.hashes.append(digest.hexdigest())
            self.samples += samples_in(item.source if isinstance(item, Batch) else item) or 0
        elif self.hashes[number - 1] != digest.hexdigest():
            raise PortError(_CHANGED)


_CHANGED = (
    "the calibration batches are not the same when they are iterated again: give a DataLoader without "
    "shuffling or random augmentation, or list() of it"
)


def shown(item: Any, viewers: tuple[BatchFormat, BatchFormat], sequences: frozenset[str]) -> Batch:
    """Return an item as a batch for both models; which rows of its texts meet is worked out if it does not say so.

    Raises:
        PortError: the two models' tokens differ and nothing says which of them meet; or the item is a pair of
            batches.
    """
    if not isinstance(item, Batch):
        if isinstance(item, tuple) and len(item) == 2 and all(isinstance(each, tuple | Mapping) for each in item):
            raise PortError(
                "a batch is a pair of batches: say hf_bico.Batch(base, target) where each model has its "
                "own; a plain tuple is shown to both as it is"
            )
        item = Batch(item, item)
    a, b = item.source, item.target
    if not item.meeting:
        a, b = pad_right(a, viewers[0]), pad_right(b, viewers[1])
    meeting = item.meeting or weights_by_name(a, b, sequences, decodes=viewers[1].decodes)
    return Batch(viewers[0].put(a), viewers[1].put(b), meeting)


def pad_right(batch: Any, viewer: BatchFormat) -> Any:
    """Return a batch with its padding moved to the right; a decoder's own text is left alone."""
    if not viewer.moves_padding or not isinstance(batch, Mapping) or not isinstance(batch.get(MASK), Tensor):
        return batch
    mask = batch[MASK]
    if mask.ndim != 2 or bool(mask[:, 0].all()):
        return batch
    first = mask.ne(0).int().argmax(1, keepdim=True)
    order = (torch.arange(mask.shape[1], device=mask.device) + first) % mask.shape[1]

    def own(name: str, part: Any) -> bool:
        decoders = viewer.decodes and (name == ANSWERS or name.startswith("decoder_"))
        return isinstance(part, Tensor) and part.shape[:2] == mask.shape and part.ndim == 2 and not decoders

    return {name: part.gather(1, order.to(part.device)) if own(name, part) else part for name, part in batch.items()}


def weights_by_name(a: Any, b: Any, sequences: frozenset[str], *, decodes: bool = False) -> dict[str, Tensor]:
    """Return P (n, T, T) for the texts of two batches with the same tokens, by sequence: every token but padding meets
    itself.

    It is empty for batches that are no dicts, and has no entry for a text without a mask, all of whose rows meet.

    Raises:
        PortError: the tokens differ.
    """
    if not (isinstance(a, Mapping) and isinstance(b, Mapping)):
        return {}
    found = {}
    if TEXT in sequences and IDS in a and IDS in b:
        _require_same(a[IDS], b[IDS], IDS, TEXT)
        masks = [side[MASK].ne(0).cpu() for side in (a, b) if isinstance(side.get(MASK), Tensor)]
        if masks:
            found[TEXT] = torch.diag_embed(torch.stack(masks).all(0).float())
    if LABELS in sequences and isinstance(a.get(ANSWERS), Tensor) and isinstance(b.get(ANSWERS), Tensor):
        if a[ANSWERS].ndim == 2:
            _require_same(a[ANSWERS], b[ANSWERS], ANSWERS, LABELS)
            found[LABELS] = torch.diag_embed(a[ANSWERS].ne(UNASKED).float())
        elif decodes and TEXT in found:  # a classifier's decoder reads the text itself
            found[LABELS] = found[TEXT]
    return found


def _require_same(a: Tensor, b: Tensor, name: str, sequence: str) -> None:
    if a is b or (a.shape == b.shape and torch.equal(a.cpu(), b.cpu())):
        return
    raise PortError(
        f"the two models' {name} {tuple(a.shape)} and {tuple(b.shape)} are not the same tokens: say which "
        f"rows meet, hf_bico.Batch(base, target, {{{sequence!r}: P}}) with P (n, T_target, T_base); or "
        "port by name (`hf-bico port SOURCE --to TARGET --dataset DATASET`, hf_bico.PortCallback), which cuts the "
        "texts for either model itself"
    )


def _hash(digest: Any, item: Any) -> None:
    """Add a batch's content to a hash."""
    if isinstance(item, Tensor):
        digest.update(f"{item.dtype}{tuple(item.shape)}".encode())
        digest.update(item.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    elif isinstance(item, Mapping):
        for name in item:
            digest.update(str(name).encode())
            _hash(digest, item[name])
    elif isinstance(item, tuple | list):
        for part in item:
            _hash(digest, part)
    elif isinstance(item, np.ndarray):
        _hash(digest, torch.from_numpy(item) if item.dtype.kind in "biuf" else item.tolist())
    else:
        digest.update(repr(item).encode())


def row_weights(a: Encoded, b: Encoded) -> dict[str, Tensor]:
    """Return P (n, T_B, T_A) for every sequence of text, by the characters that tokens cover; padding meets nothing.

    Raises:
        PortError: the ids differ, and a tokenizer does not say which characters its tokens cover.
    """
    found = {}
    for name in a.spans.keys() & b.spans.keys():
        mine, theirs = a.spans[name], b.spans[name]
        found[name] = torch.diag_embed(theirs.mask.float()) if same(mine, theirs) else meeting(mine, theirs)
    for ids, mask in (("input_ids", "attention_mask"), ("text", "text_mask")):
        if ids not in a.inputs or "text" in found:
            continue
        if not torch.equal(a.inputs[ids], b.inputs[ids]):
            raise PortError(
                "the two models cut a text into different tokens, and a slow tokenizer does not say which "
                "characters they cover, so their rows cannot be paired: add a tokenizer.json to its repo"
            )
        found["text"] = torch.diag_embed(a.inputs[mask].float())
        if a.labels is not None and a.labels.ndim == 2:
            found["labels"] = torch.diag_embed((a.labels != UNASKED).float())
    return meeting_of_images(found, a, b) if a.shown else found
