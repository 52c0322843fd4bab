"""How a port is opened, and what it is for: what a card needs to know of a model that is not there any more."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from hf_bico.families import Library, Purpose, PurposeKind
from hf_bico.families.purposes import TASKS, kind_of
from hf_bico.reports.plain import maybe

SENTENCES = "sentence-transformers"
WEIGHTS = "model.safetensors"
"""The file of a state dict that no library opens."""


@dataclass(frozen=True)
class Used:
    """Python that uses a port, and what it printed when the card was made."""

    code: str
    output: str | None = maybe()
    """None where it was not run, or failed."""
    error: str | None = maybe()
    """Why it failed, in one line."""


@dataclass(frozen=True)
class Embedder:
    """What sentence-transformers says of a model that it opened."""

    max_length: int | None
    """Tokens of a text that it reads."""
    dimensions: int | None
    """The width of a text's features."""
    similarity: str | None
    """How two texts' features are compared."""
    modules: str
    """All that a text goes through, as the library prints it."""


@dataclass(frozen=True)
class Opening:
    """How the model beside a card is opened, and what it is for."""

    library: str | None
    """`library_name` of the whole model."""
    task: str | None
    """The Hub's name of what the model does, its `pipeline_tag`."""
    native: str
    """Python that loads the whole model with its own library."""
    labels: tuple[str, ...] = ()
    """A classifier's classes."""
    zero_shot: bool = False
    """Whether it answers with the texts of the classes."""
    kind: PurposeKind | None = maybe()
    """What it is for; None where that is not known."""
    repo: str | None = maybe()
    """The repo that the card is written for; None for a folder."""
    used: tuple[Used, ...] | None = maybe()
    """How it is used, one way after the other."""
    asked: str | None = maybe()
    """What it was asked, where the code does not show that."""
    embedder: Embedder | None = maybe()
    """Of a whole model of sentence-transformers that was opened when the card was made."""

    @classmethod
    def of(cls, library: Library, purpose: Purpose, repo: str | None) -> "Opening":
        """Return how the model of a repo is opened; without a repo, that of the folder in which the card lies."""
        if purpose.sentence is not None:
            load = "from sentence_transformers import SentenceTransformer\n\n"
            load += f'model = SentenceTransformer("{repo or "."}")'
            return cls(SENTENCES, "sentence-similarity", load, kind=purpose.kind, repo=repo)
        return cls(
            library.name,
            library.task_type(purpose),
            library.snippet(repo or ".", purpose),
            purpose.labels,
            purpose.kind is PurposeKind.ZERO_SHOT,
            purpose.kind,
            repo,
        )

    @classmethod
    def of_live(cls, name: str, repo: str | None, *, transformers: bool) -> "Opening":
        """Return how a live model is opened once it is written.

        Args:
            name: the model's class.
            transformers: whether transformers opens it; else it is a state dict alone.
        """
        if transformers:
            load = f'from transformers import {name}\n\nmodel = {name}.from_pretrained("{repo or "."}")'
            kind = kind_of(name)
            return cls("transformers", TASKS.get(kind) if kind else None, load, kind=kind, repo=repo)
        what = f'  # the state dict of a {name}\nprint(len(tensors), "tensors")'
        if repo is None:
            load = f'from safetensors.torch import load_file\n\ntensors = load_file("{WEIGHTS}"){what}'
        else:
            load = (
                "from huggingface_hub import hf_hub_download\nfrom safetensors.torch import load_file\n\n"
                f'tensors = load_file(hf_hub_download("{repo}", "{WEIGHTS}")){what}'
            )
        return cls(None, None, load, repo=repo)

    def using(self, *used: Used, asked: str | None = None) -> "Opening":
        """Return it with how it is used."""
        return replace(self, used=used or None, asked=asked)

    def packages(self, *, whole: bool) -> str:
        """Return what has to be installed to open it, as pip's arguments.

        Args:
            whole: whether a whole model was written, not a change of one.
        """
        needed: Mapping[str | None, str] = {
            "open_clip": "open_clip_torch",
            "transformers": "transformers torch",
            SENTENCES: "sentence-transformers",
            None: "safetensors torch huggingface_hub",
        }
        return needed.get(self.library, "transformers torch") if whole else "hf-bico"
