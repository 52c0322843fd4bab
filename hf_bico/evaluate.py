"""Models on samples: marks of an evaluation split, features, and calibration batches for two models at once."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor, nn

from hf_bico.core.alignment import meeting, same
from hf_bico.core.collect import Batch
from hf_bico.core.errors import PortError
from hf_bico.core.methods import Track
from hf_bico.data import Sample, Split, Task, samples_of
from hf_bico.families.feeding import Encoded
from hf_bico.objectives import UNASKED, Objective
from hf_bico.scores import Score


@dataclass
class Exam:
    """The evaluation samples, and how a model is scored on them."""

    task: Task
    name: str
    """Of the split."""
    split: Split
    indices: tuple[int, ...]
    batch_size: int
    track: Track
    reference: Tensor | None = field(default=None, repr=False)
    """The source's marks, for a score that is taken against them."""

    def marks(self, what: str, objective: Objective, model: nn.Module) -> Tensor:
        samples = samples_of(self.split, self.indices, self.task)
        samples = self.track(samples, f"Evaluating {what}", len(self.indices))
        with torch.no_grad():
            return torch.cat(
                [
                    objective.marks(model, objective.encode(batch)).float().cpu()
                    for batch in batched(samples, self.batch_size)
                ]
            )

    def __call__(self, what: str, objective: Objective, model: nn.Module) -> Score:
        return objective.score(self.marks(what, objective, model), self.reference)


def embedded(objective: Objective, model: nn.Module, samples: Iterable[Sample], batch_size: int) -> Tensor:
    """Unit features of samples, (n, d), on the CPU in float32."""
    with torch.no_grad():
        return torch.cat(
            [objective.features(model, objective.encode(batch)).float().cpu() for batch in batched(samples, batch_size)]
        )


@dataclass(frozen=True)
class Batches:
    """The calibration samples as both models see them, as often as they are iterated."""

    samples: Sequence[Sample]
    sides: tuple[Objective, Objective]
    size: int

    def __iter__(self) -> Iterator[Batch]:
        for some in batched(self.samples, self.size):
            a, b = (side.encode(some) for side in self.sides)
            yield Batch(a, b, met(a, b))

    def __len__(self) -> int:
        return -(-len(self.samples) // self.size)


def met(a: Encoded, b: Encoded) -> dict[str, Tensor]:
    """P (n, T_B, T_A) for every sequence of text: by the characters that tokens cover, padding left out.

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


def batched(items: Iterable, size: int):
    """Lists of `size` items, the last one shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
