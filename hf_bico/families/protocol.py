"""What the rest of the tool wants to know of models: their insides (`Family`) and their repos (`Library`)."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from hf_bico.core.types import Site


class Family(Protocol):
    """What a kind of model looks like inside; tables are in `hf_bico.families.tables`."""

    @property
    def name(self) -> str: ...

    def knows(self, model: nn.Module) -> bool: ...

    def sites(self, model: nn.Module, *, every: bool = False) -> tuple[Site, ...]:
        """Return the linear maps that a task vector is moved through; `every` has those of towers that need not
        run too.

        Raises:
            PortError: the model has a shape of block that the family does not know.
        """
        ...

    def head_sites(self, model: nn.Module) -> tuple[Site, ...]:
        """Return a classifier's layers on top, in the order they run."""
        ...

    def on_top(self, model: nn.Module) -> frozenset[str]:
        """Return names of all that may come on top, of a classifier or not (a pooler): a base need not have it."""
        ...

    def head_gains(self, model: nn.Module) -> tuple[str, ...]:
        """Return names of the gains of norms within the classifier."""
        ...

    def left_reason(self, key: str) -> str | None:
        """Return why a tensor outside the sites stays behind, None for one that the family cannot account for."""
        ...


class PurposeKind(StrEnum):
    """What a model can be for."""

    ZERO_SHOT = "zero-shot"
    IMAGE_CLASSES = "image-classification"
    TEXT_CLASSES = "text-classification"
    CAUSAL_LM = "causal-lm"
    SEQ2SEQ = "seq2seq"
    FEATURES = "features"
    MASKED_LM = "masked-lm"

    @property
    def classifies(self) -> bool:
        """Whether such a model has a classifier of its own on top."""
        return self in (PurposeKind.IMAGE_CLASSES, PurposeKind.TEXT_CLASSES)


@dataclass(frozen=True)
class Purpose:
    """What a model is for: it decides class, head and loss. It is the source's, and the others take it over."""

    kind: PurposeKind
    labels: tuple[str, ...] = ()
    """A classifier's classes, in order."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """What the source's own config says of its head."""
    architecture: str | None = None
    """The source's class; taken for the others where they are of the same type."""


@dataclass
class Loaded:
    """A live model with what it takes to feed it."""

    model: nn.Module
    preprocess: Callable[[Any], Tensor] | None
    """An image → (3, h, w)."""
    tokenizer: Any
    """open_clip's: texts → ids; transformers': its own."""
    processor: Any = None
    """What the library itself gives for images: open_clip's transform, transformers' image processor."""


class Stored(NamedTuple):
    """Where a tensor of the model lies in its files."""

    key: str
    part: tuple[int, int] = (0, 1)
    """(i, m): it is the i-th of m equal parts, by rows."""


class Contrastive(Protocol):
    """Models that score an image against texts."""

    def image_features(self, model: nn.Module, images: Tensor) -> Tensor:
        """Return unit features (n, d) of preprocessed images."""
        ...

    def text_features(self, model: nn.Module, ids: Tensor) -> Tensor:
        """Return unit features (n, d) of tokenized texts."""
        ...

    def tokens(self, loaded: Loaded, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return ids (n, T) and which of them count (n, T)."""
        ...

    def general_prompts(self) -> tuple[str, ...]:
        """Return texts of many things, for scores without labels."""
        ...


class Library(Contrastive, Protocol):
    """How a kind of model repo is opened and written."""

    name: str
    """`library_name` on the card."""
    config_file: str
    exact: bool
    """Its files hold just what their config says; else a base's may hold the head of its pre-training too."""

    def weights(self, files: Collection[str]) -> tuple[str, ...]:
        """Return the safetensors files of a repo, with the index that names their shards; empty if it has none."""
        ...

    def extra(self, files: Iterable[str]) -> tuple[str, ...]:
        """Return tokenizer, processor and the like among a repo's files: what opens it beside config and weights."""
        ...

    def purpose(self, folder: Path) -> Purpose:
        """Return what the model of a folder is for, from its config.

        Raises:
            PortError: no known architecture.
        """
        ...

    def skeleton(self, folder: Path, purpose: Purpose) -> nn.Module:
        """Return the model of a config, without weights (on the meta device): enough for sites and names."""
        ...

    def names(self, model: nn.Module, stored: Iterable[str]) -> dict[str, Stored]:
        """Return names in the model's state dict → where its files have them; of tied tensors the first, of a
        head nothing.
        """
        ...

    def load(self, folder: Path, device: str, purpose: Purpose, dtype: torch.dtype | None = torch.float32) -> Loaded:
        """Return a live model, in eval mode. A head that the files lack is not initialised to anything of use.

        Args:
            dtype: None for what the library itself takes.
        """
        ...

    def write(self, stage: Path, model: nn.Module, base: Path, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Write a repo of θ_B + α τ_B beside what opens it: `tensors` by state-dict name, all of the model's, in the
        dtype
        they are to have.
        """
        ...

    def snippet(self, repo: str, purpose: Purpose) -> str:
        """Return Python that loads a repo; it goes on the card."""
        ...

    def task_type(self, purpose: Purpose) -> str:
        """Return the Hub's name of the task, for the card."""
        ...


def similarity(model: Any, pictures: Tensor, head: Tensor) -> Tensor:
    """Return logit_scale · cos(image, text) (+ logit_bias), (n, K), of unit features (n, d) and (K, d)."""
    scores: Tensor = model.logit_scale.exp() * pictures @ head.T
    return scores if getattr(model, "logit_bias", None) is None else scores + model.logit_bias
