"""What the rest of the tool needs to know about models: their insides (`Family`) and their repos (`Library`)."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from hf_bico.core.gains import Gain
from hf_bico.core.riders import Rider
from hf_bico.core.types import Site, Tensors
from hf_bico.families.sentences import Sentence
from hf_bico.families.sounds import Ear


class Family(Protocol):
    """The insides of a kind of model; tables are in `hf_bico.families.tables`."""

    @property
    def name(self) -> str: ...

    def knows(self, model: nn.Module) -> bool:
        """Return whether a model is of this family."""
        ...

    def sites(self, model: nn.Module, *, every: bool = False) -> tuple[Site, ...]:
        """Return the linear maps whose task vector is moved; with `every`, those of optional towers too.

        Raises:
            PortError: the model has blocks of a shape that the family does not know.
        """
        ...

    def riders(self, model: nn.Module) -> tuple[Rider, ...]:
        """Return what moves beside the linear maps, of optional towers too."""
        ...

    def gains(self, model: nn.Module) -> tuple[Gain, ...]:
        """Return the gains whose change the linear maps can tell."""
        ...

    def head_sites(self, model: nn.Module) -> tuple[Site, ...]:
        """Return the classifier's layers, in the order they run; empty for a model without one."""
        ...

    def on_top(self, model: nn.Module) -> frozenset[str]:
        """Return the names of all tensors on top of the blocks (classifier, pooler, norms), which a base may lack."""
        ...

    def head_gains(self, model: nn.Module) -> tuple[str, ...]:
        """Return the names of the parameters of norms within the classifier."""
        ...

    def final_gain(self, model: nn.Module) -> Gain | None:
        """Return the gain that gives to the head's first layer, and to nothing else; None where none is known."""
        ...

    def left_reason(self, key: str) -> str | None:
        """Return why a tensor outside the sites stays behind; None if the family cannot account for it."""
        ...


class PurposeKind(StrEnum):
    """The tasks that a model can be for."""

    ZERO_SHOT = "zero-shot"
    IMAGE_CLASSES = "image-classification"
    TEXT_CLASSES = "text-classification"
    CAUSAL_LM = "causal-lm"
    SEQ2SEQ = "seq2seq"
    IMAGE_TEXT = "image-text-to-text"
    FEATURES = "features"
    MASKED_LM = "masked-lm"
    TOKEN_CLASSES = "token-classification"
    SPANS = "question-answering"
    SOUND_CLASSES = "audio-classification"
    CTC = "ctc"
    SPEECH = "speech-to-text"

    @property
    def classifies(self) -> bool:
        """Whether such a model has a classifier of its own on top, of named classes."""
        pooled = PurposeKind.IMAGE_CLASSES, PurposeKind.TEXT_CLASSES, PurposeKind.SOUND_CLASSES
        return self in (*pooled, PurposeKind.TOKEN_CLASSES)

    @property
    def has_head(self) -> bool:
        """Whether such a model has layers of its own on top, which its base lacks."""
        return self.classifies or self in (PurposeKind.SPANS, PurposeKind.CTC)

    @property
    def hears(self) -> bool:
        """Whether such a model takes sounds."""
        return self in (PurposeKind.SOUND_CLASSES, PurposeKind.CTC, PurposeKind.SPEECH)


class Answer(StrEnum):
    """What a sample is answered with."""

    CLASS = "one class"
    CLASSES = "several classes"
    NUMBER = "a number"
    WORD_CLASSES = "a class of every word"
    SPAN = "a span of the text"
    SPOKEN = "what is said"


@dataclass(frozen=True)
class Purpose:
    """What a model is for, which decides its class, head and loss; the source's holds for all models of a port."""

    kind: PurposeKind
    labels: tuple[str, ...] = ()
    """A classifier's classes, in order."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Entries of the source's config about its head."""
    architecture: str | None = None
    """The source's class, used for the other models too where they are of the same type."""
    sentence: Sentence | None = None
    """What sentence-transformers put behind a model of features."""

    @property
    def answer(self) -> Answer | None:
        """What a model with a head answers a sample with, as transformers takes its config; None without a head."""
        own = {
            PurposeKind.TOKEN_CLASSES: Answer.WORD_CLASSES,
            PurposeKind.SPANS: Answer.SPAN,
            PurposeKind.CTC: Answer.SPOKEN,
        }
        if self.kind in own or not self.kind.has_head:
            return own.get(self.kind)
        problem = str(self.config.get("problem_type") or ("regression" if len(self.labels) == 1 else ""))
        return {"regression": Answer.NUMBER, "multi_label_classification": Answer.CLASSES}.get(problem, Answer.CLASS)


@dataclass
class Loaded:
    """A live model, and what prepares its inputs."""

    model: nn.Module
    preprocess: Callable[[Any], Tensor] | None
    """An image → (3, h, w); None if the repo has no image processor."""
    tokenizer: Any
    """open_clip's (texts → ids) or transformers'; None if the repo has none."""
    processor: Any = None
    """The library's own for images: open_clip's transform, or transformers' image processor; of images with texts the
    processor of both."""
    ear: Ear | None = None
    """What prepares its sounds; None of models that take none, or if the repo has no feature extractor."""


class Stored(NamedTuple):
    """Where a tensor of the model lies in its files."""

    key: str
    part: tuple[int, int] = (0, 1)
    """(i, m): it is the i-th of m equal parts of the rows, from 0."""
    stack: tuple[tuple[str, ...], ...] = ()
    """Of a layer's experts that are stored apart: for each, in order, the names of those whose rows lie on one another;
    `key` is the first."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of all that it is read from."""
        return tuple(key for each in self.stack for key in each) or (self.key,)

    def renamed(self, name: Callable[[str], str]) -> "Stored":
        """Return the same place in files with other names."""
        return Stored(name(self.key), self.part, tuple(tuple(map(name, each)) for each in self.stack))


class Contrastive(Protocol):
    """How a library's models that score images against texts are run."""

    def image_features(self, model: nn.Module, images: Tensor) -> Tensor:
        """Return unit features (n, d) of preprocessed images (n, 3, h, w)."""
        ...

    def text_features(self, model: nn.Module, ids: Tensor) -> Tensor:
        """Return unit features (n, d) of tokenized texts (n, T)."""
        ...

    def tokens(self, loaded: Loaded, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return ids (n, T), and a bool mask (n, T) of those that the model reads."""
        ...

    def general_prompts(self) -> tuple[str, ...]:
        """Return prompts about many things, for scores without labels."""
        ...


class Library(Contrastive, Protocol):
    """How a kind of model repo is opened and written."""

    name: str
    """The card's `library_name`."""
    config_file: str
    """The file that tells a repo is this library's."""
    exact: bool
    """Whether its files hold exactly the tensors of their config; else a base's may also hold a pre-training head."""

    def weights(self, files: Collection[str]) -> tuple[str, ...]:
        """Return the safetensors files of a repo, with the index of their shards; empty if it has none."""
        ...

    def extra(self, files: Iterable[str]) -> tuple[str, ...]:
        """Return the files that a model opens with besides config and weights: tokenizer, processor and the like."""
        ...

    def purpose(self, folder: Path) -> Purpose:
        """Return what the model in a folder is for, from its config.

        Raises:
            PortError: its architecture is not known.
        """
        ...

    def skeleton(self, folder: Path, purpose: Purpose) -> nn.Module:
        """Return the model of a folder's config without weights, on the meta device: enough for sites and names."""
        ...

    def names(self, model: nn.Module, stored: Iterable[str]) -> dict[str, Stored]:
        """Return {name in the model's state dict: where it lies in the files}, for those of `stored` that it has.

        Tied tensors are there once.
        """
        ...

    def load(
        self,
        folder: Path,
        device: str,
        purpose: Purpose,
        dtype: torch.dtype | None = torch.float32,
        *,
        state: Tensors | None = None,
        feeds: Path | None = None,
    ) -> Loaded:
        """Return a live model, in eval mode. The values of a head that the files lack are meaningless.

        Args:
            dtype: None for the library's own choice.
            state: tensors by state-dict name that are taken in place of those in the folder's files.
            feeds: a folder whose tokenizer and processor are taken, where it has them.

        Raises:
            PortError: the library cannot open the model.
        """
        ...

    def write(self, stage: Path, model: nn.Module, base: Path, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Write a model's weights to the folder `stage`.

        Args:
            base: the folder that the model was opened from.
            tensors: all of the model's, by state-dict name, in the dtype to write.
        """
        ...

    def snippet(self, repo: str, purpose: Purpose) -> str:
        """Return Python code that loads a repo, for the card."""
        ...

    def task_type(self, purpose: Purpose) -> str:
        """Return the Hub's name of the task, for the card."""
        ...


def similarity(model: Any, pictures: Tensor, head: Tensor) -> Tensor:
    """Return scores exp(logit_scale) · cos(image, text) + logit_bias, (n, K), of unit features (n, d) and (K, d)."""
    scores: Tensor = model.logit_scale.exp() * pictures @ head.T
    return scores if getattr(model, "logit_bias", None) is None else scores + model.logit_bias
