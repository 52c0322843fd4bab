"""What a loaded model is asked: the objective that suits its purpose and the data."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_bico.core.collect import Scores, Side
from hf_bico.core.device import device_of
from hf_bico.core.errors import PortError, listed
from hf_bico.core.notes import note
from hf_bico.families import Answer, Contrastive, Library, Loaded, Purpose, PurposeKind
from hf_bico.families.sentences import PLAIN
from hf_bico.tasks.classifiers import classifier_of
from hf_bico.tasks.columns import SampleKind
from hf_bico.tasks.embeddings import Embedding, Similar, Together
from hf_bico.tasks.hidden import HiddenWords
from hf_bico.tasks.kinds import HEARD
from hf_bico.tasks.objectives import Causal, Completion, Objective, Seq2Seq, ZeroShot
from hf_bico.tasks.samples import Task, samples_of
from hf_bico.tasks.sights import Seeing
from hf_bico.tasks.speech import Spelled, Written
from hf_bico.tasks.splits import Split


@dataclass(frozen=True)
class Asked:
    """A live model with its objective."""

    loaded: Loaded
    objective: Objective
    scored_in: str | None = None
    """The dtype that it is scored in by autocast, as torch names it; None for that of its weights."""

    @property
    def model(self) -> nn.Module:
        """The live model itself."""
        return self.loaded.model

    @contextmanager
    def scored(self) -> Iterator[None]:
        """Run it for its answers alone: without gradients, in the dtype that it is scored in."""
        dtype = self.scored_in and getattr(torch, self.scored_in)
        with torch.no_grad(), torch.autocast(device_of(self.model).type, dtype) if dtype else nullcontext():
            yield

    def side(self, scores: Scores | None = None, *, alike: bool = True) -> Side:
        """Return the model as a method sees it: with its loss and, if given, the scores of label-free gradients.

        Args:
            alike: whether its answers mean the same in the other model; those of two vocabularies do not.
        """
        return Side(self.model, self.objective.loss, scores, self.objective.answers if alike else None)


TEXTS = 64
"""How many prompts are encoded at a time."""


def objective_of(
    side: Loaded, library: Library, purpose: Purpose, task: Task, length: int, *, text_moves: bool
) -> Objective:
    """Return the objective of one of a port's models; a head that is fitted or carried comes later.

    Args:
        length: the most tokens of a text; longer ones are cut.
        text_moves: whether the text tower of a CLIP-like model moves too.
    """
    if purpose.kind is PurposeKind.ZERO_SHOT:
        prompts = tuple(task.templates[0].format(name) for name in task.class_names) if text_moves else ()
        return ZeroShot(library, side, zero_shot_head(library, side, task.class_names, task.templates), prompts)
    if purpose.kind is PurposeKind.CAUSAL_LM:
        asked = Causal if task.columns.kind in (SampleKind.PLAIN, SampleKind.CHAT) else Completion
        return asked(side, length, task.class_names)
    if purpose.kind is PurposeKind.SEQ2SEQ:
        return Seq2Seq(side, length, task.class_names)
    if purpose.kind is PurposeKind.IMAGE_TEXT:
        return Seeing(side, length, task.class_names)
    if purpose.kind is PurposeKind.MASKED_LM:
        return HiddenWords(side, length)
    if purpose.kind is PurposeKind.FEATURES:
        sentence = purpose.sentence or PLAIN
        if task.columns.kind is SampleKind.TOGETHER:
            return Together(side, length, sentence=sentence)
        if task.columns.kind is SampleKind.PAIR and task.labels.answer is Answer.NUMBER:
            return Similar(side, length, sentence=sentence, most=max(task.labels.most, 1.0))
        return Embedding(side, length, sentence=sentence)
    if purpose.kind is PurposeKind.SPEECH:
        return Written(side, length)
    if purpose.kind is PurposeKind.CTC:
        return Spelled(side, length)
    order = class_order(task.class_names, purpose.labels) if task.class_names else ()
    return classifier_of(side, length, task.labels, order)


def check_answers(asked: Asked, split: Split, name: str, indices: Sequence[int], task: Task) -> None:
    """Refuse rows of which nothing can be asked: chats that the model's template refuses, prompts that leave no room
    for the answer, sounds that are too short for what is said. Samples of other kinds always can.

    Args:
        name: the split's, for the error.

    Raises:
        PortError: there is one; its row is named.
    """
    if task.columns.kind not in (SampleKind.CHAT, SampleKind.COMPLETION, SampleKind.SIGHT, *HEARD):
        return
    for index, sample in zip(indices, samples_of(split, indices, task), strict=True):
        try:
            asked.objective.encode([sample])
        except PortError as error:
            why = error.message.removeprefix("sample 0 ")
            raise PortError(f"row {index} of the split {name!r} {why}") from error


def class_order(dataset: Sequence[str], model: Sequence[str]) -> tuple[int, ...]:
    """Return, for every class of the dataset, the model's index of it; empty where the two orders are the same, or
    where one side's names are mere numbers.

    Raises:
        PortError: the names differ, or two of one side differ only in case and blanks.
    """
    plain = [[name.strip().lower().replace("_", " ") for name in names] for names in (dataset, model)]
    if len(set(plain[1])) < len(plain[1]) or len(set(plain[0])) < len(plain[0]):
        raise PortError("the names of two classes differ only in case and blanks: rename one")
    if sorted(plain[0]) == sorted(plain[1]):
        return () if plain[0] == plain[1] else tuple(plain[1].index(name) for name in plain[0])
    nameless = all(name.removeprefix("label").strip().isdigit() for name in plain[1])
    numbers = all(name.removeprefix("label").strip().isdigit() for name in plain[0])
    if nameless and not numbers:
        note(f"the model's classes have no names ({model[0]} …): they are taken in the order {listed(dataset)}")
    if nameless or numbers:
        return ()
    raise PortError(
        f"the dataset's classes ({', '.join(dataset[:5])} …) are not the model's "
        f"({', '.join(model[:5])} …): name the dataset that it was fine-tuned on"
    )


def zero_shot_head(library: Contrastive, side: Loaded, class_names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Return (K, d) unit text features of the classes, averaged over the templates."""
    device = device_of(side.model)
    prompts = [template.format(name) for name in class_names for template in templates]
    ids, _ = library.tokens(side, prompts)
    with torch.no_grad():
        features = torch.cat([library.text_features(side.model, some.to(device)) for some in ids.split(TEXTS)])
    return F.normalize(features.unflatten(0, (len(class_names), -1)).mean(1), dim=-1)
