"""The calibration batches of a training script, as both models are shown them."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import length_hint
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from hf_bico.core.alignment import meeting, same
from hf_bico.core.collect import Batch, samples_in
from hf_bico.core.errors import PortError
from hf_bico.families.feeding import LABELS, TEXT, UNASKED, Encoded
from hf_bico.tasks.objectives import Objective
from hf_bico.tasks.samples import Sample

IDS, MASK, ANSWERS = "input_ids", "attention_mask", "labels"


@dataclass(frozen=True)
class Batches:
    """The calibration samples as both models see them, as often as they are iterated."""

    samples: Sequence[Sample]
    sides: tuple[Objective, Objective]
    size: int

    def __iter__(self) -> Iterator[Batch]:
        for some in batched(self.samples, self.size):
            a, b = (side.encode(some) for side in self.sides)
            yield Batch(a, b, row_weights(a, b))

    def __len__(self) -> int:
        return -(-len(self.samples) // self.size)


def batched(items: Iterable, size: int):
    """Yield lists of `size` items, the last one shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


class BatchFormat(NamedTuple):
    """How a model takes its batches."""

    device: torch.device
    dtype: torch.dtype
    """Of images and whatever else is no index."""
    moves_padding: bool = False
    """Padding on the left goes to the right first, so that a sample's positions are those that it has alone."""
    decodes: bool = False
    """It has a decoder: its labels are another text than its inputs."""

    @classmethod
    def of(cls, model: nn.Module, *, moves_padding: bool) -> "BatchFormat":
        weight = next(p for p in model.parameters() if p.is_floating_point())
        decodes = bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))
        return cls(weight.device, weight.dtype, moves_padding, decodes)

    def put(self, batch: Any) -> Any:
        """Put a batch on the model's device: what goes in, if it is no index, in its dtype; labels keep theirs."""
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
    """Batches for two models, as often as they are iterated.

    An iterator is listed once. What can be iterated again (a DataLoader) is, and never held: it must give the same
    batches each time, which is checked by hash.
    """

    def __init__(
        self, items: Iterable[Any], viewers: tuple[BatchFormat, BatchFormat], sequences: frozenset[str]
    ) -> None:
        """Keep the items; an iterator is listed.

        Args:
            items: a `Batch`, or anything that both models are shown as it is.
            viewers: the source's and the target's.
            sequences: the texts whose rows must be told how they meet: "text", "labels".
        """
        self.items = list(items) if isinstance(items, Iterator) else items
        self.viewers, self.sequences = viewers, sequences
        self.hashes: list[str] = []
        self.samples = 0

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches as both models take them.

        Raises:
            PortError: not the batches of the first time; tokens that cannot be paired.
        """
        number = 0
        for number, item in enumerate(self.items, 1):
            self._remember(number, item)
            yield shown(item, self.viewers, self.sequences)
        if number < len(self.hashes):
            raise PortError(_CHANGED)

    def __length_hint__(self) -> int:
        return length_hint(self.items)

    @property
    def sha256(self) -> str:
        """Of all batches' contents, in order."""
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
    "shuffling and random augmentation, or list() of it"
)


def shown(item: Any, viewers: tuple[BatchFormat, BatchFormat], sequences: frozenset[str]) -> Batch:
    """Return an item as a batch of both models, with how its texts' rows meet where it does not say so itself.

    Raises:
        PortError: the two models' tokens differ and nothing says which of them meet; or it is a pair of batches.
    """
    if not isinstance(item, Batch):
        if isinstance(item, tuple) and len(item) == 2 and all(isinstance(each, tuple | Mapping) for each in item):
            raise PortError(
                "a batch is a pair of batches: say hf_bico.Batch(source, target) where each model has its "
                "own; a plain tuple is shown to both as it is"
            )
        item = Batch(item, item)
    a, b = item.source, item.target
    if not item.meeting:
        a, b = pad_right(a, viewers[0]), pad_right(b, viewers[1])
    meeting = item.meeting or weights_by_name(a, b, sequences, decodes=viewers[1].decodes)
    return Batch(viewers[0].put(a), viewers[1].put(b), meeting)


def pad_right(batch: Any, viewer: BatchFormat) -> Any:
    """Return a batch whose padding is on the right, whichever side it came on; of a decoder's own text nothing
    changes.
    """
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
    """Return P (n, T, T) for the texts of two batches by name that have the same tokens: all but padding meet their
    like.

    Nothing for batches that are not by name, and for texts without a mask: all of their rows meet.

    Raises:
        PortError: the tokens are not the same.
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
        f"rows meet, hf_bico.Batch(source, target, {{{sequence!r}: P}}) with P (n, T_target, T_source); or "
        "port by name (hf-bico port, hf_bico.PortCallback), which cuts the texts for either model itself"
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
    """Return P (n, T_B, T_A) for every sequence of text: by the characters that tokens cover, padding left out.

    Raises:
        PortError: the tokenizers do not say what their tokens cover, and their ids are not the same.
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
                "the two models cut a text into different tokens, and a tokenizer does not say which "
                "characters they cover (it is a slow one): their rows cannot be paired"
            )
        found["text"] = torch.diag_embed(a.inputs[mask].float())
        if a.labels is not None and a.labels.ndim == 2:
            found["labels"] = torch.diag_embed((a.labels != UNASKED).float())
    return found
