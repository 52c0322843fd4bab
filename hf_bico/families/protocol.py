"""What every model family tells the rest of the tool."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from hf_bico.core.types import Site


@dataclass
class Loaded:
    """A live model with what it takes to feed it."""

    model: nn.Module
    preprocess: Callable[[Any], Tensor]
    tokenizer: Callable[[list[str]], Tensor]


class Family(Protocol):
    """One kind of model repo."""

    name: str
    library: str
    """`library_name` on the card."""
    tower: str
    """Prefix of the tensors that must be just those of the config."""
    pipeline_tag: str
    config_file: str
    weights_file: str
    extra_files: tuple[str, ...]
    """Tokenizer and the like, copied from the target if it has them."""

    def knows(self, model: nn.Module) -> bool: ...

    def skeleton(self, folder: Path) -> nn.Module:
        """The model of a config, without weights (on the meta device): enough for `sites` and `left_reason`."""
        ...

    def load(self, folder: Path, device: str) -> Loaded: ...

    def sites(self, model: nn.Module) -> tuple[Site, ...]:
        """Every linear map that a task vector is moved through.

        Raises:
            PortError: the model has a shape of block that the family does not know.
        """
        ...

    def left_reason(self, key: str) -> str | None:
        """Why a tensor outside the sites stays behind, None for one that the family cannot account for."""
        ...

    def head(self, loaded: Loaded, class_names: Sequence[str], templates: Sequence[str]) -> Tensor:
        """The classifier that the task is scored with."""
        ...

    def general_prompts(self) -> tuple[str, ...]:
        """Texts on anything, for gradients that know nothing of the task."""
        ...

    def features(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """(n, d) unit features of a batch of preprocessed inputs."""
        ...

    def logits(self, model: nn.Module, inputs: Tensor, head: Tensor) -> Tensor:
        """(n, K) class scores of a batch of preprocessed inputs."""
        ...

    def snippet(self, repo: str) -> str:
        """Python that loads a repo of this family; it goes on the card."""
        ...
