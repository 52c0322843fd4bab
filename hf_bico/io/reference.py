"""References to models and datasets, and the commits that they are pinned to."""

import hashlib
import re
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import unquote

from huggingface_hub import constants

from hf_bico.core.errors import PortError, setting

_NAME = re.compile(r"(?:hf://)?(?:models/|(datasets/|spaces/))?([\w.-]+/[\w.-]+|[\w.-]+)(?:@(\S+))?")
_URL = re.compile(
    r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/(?:models/|(datasets/|spaces/))?([\w.-]+(?:/[\w.-]+)?)"
    r"(?:/(?:tree|blob|resolve|raw|commit)/([^/?#]+)(?:/([^?#]*))?)?/?(?:[?#].*)?"
)
"""The address of a repo in a browser: what it is, its name, a revision, and a place in it."""
ROWS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}
"""How the name of a file of samples ends → which of the loaders of `datasets` reads it."""
BESIDE = ("classnames.txt", "zeroshot_classification_templates.txt")
"""Files that may lie beside one of samples: the names of its classes, and prompts."""


@dataclass(frozen=True)
class Reference:
    """`org/name`, `org/name@revision`, `hf://org/name@revision` or a local folder."""

    name: str
    revision: str | None = None
    folder: Path | None = field(default=None, repr=False)
    kind: str | None = field(default=None, repr=False)
    """What it says that it is: "dataset" or "space"; None where it does not say."""
    file: str | None = None
    """The one file of a dataset that is meant; None for all of them."""

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Return the reference that a text stands for: a folder if there is one of that name, else a repo.

        With `hf://` before it, it is always a repo; the address of a repo's page is understood too.

        Raises:
            PortError: it is neither a folder nor a repo's name.
        """
        if not text.strip():
            raise PortError("an empty name is neither a folder nor a repo")
        path = Path(text).expanduser()
        if not text.startswith("hf://") and path.is_dir():
            return cls(path.resolve().name, folder=path.resolve())
        if path.is_file() and not text.startswith("hf://"):
            raise PortError(f"{text!r} is a file: name the folder that it is in, or a repo")
        place, address = text, f"{constants.ENDPOINT}/"
        if text.startswith(address):
            place = f"https://huggingface.co/{text.removeprefix(address)}"
        match = _URL.fullmatch(place) or _NAME.fullmatch(text)
        if text.startswith(("/", "./", "../", "~")):
            raise PortError(f"there is no folder {text!r}")
        if match is None:
            raise PortError(f"{text!r} is neither a local folder nor a repo like org/name or org/name@revision")
        kind, name, revision = match[1], match[2], match[3]
        if match.re is _URL:
            revision = revision and unquote(revision)
            if match[4] and "/tree/" in text:
                whole = name if revision == "main" else f"{name}@{revision}"
                place = match[4].strip("/")
                raise PortError(f"{text} is a folder of {name}: name {whole}, with {setting('subfolder')} {place}")
        return cls(name, revision, kind=kind and kind.removesuffix("s/"))

    @classmethod
    def of_data(cls, text: str) -> "Reference":
        """Return the reference to a dataset: what `parse` takes, a file of samples, or `org/name:file`, one in a repo.

        Raises:
            PortError: it is neither a folder, nor a repo's name, nor a file that can be read.
        """
        path = Path(text).expanduser()
        ends = path.suffix.lower()
        if path.is_file() and not text.startswith("hf://"):
            if ends not in ROWS:
                raise PortError(f"{text!r} is no file of samples that can be read: one ends in {', '.join(ROWS)}")
            return cls(path.name, folder=path.absolute().parent, file=path.name)
        repo, colon, file = text.rpartition(":")
        if ends not in ROWS or (colon and file.startswith("//")):
            return cls.parse(text)
        if colon:
            found = cls.parse(repo)
            if found.folder is not None:
                raise PortError(f"there is no file {text!r}: name one by its path, {repo}/{file}")
            return replace(found, file=file)
        if not path.is_dir() and ("/" not in text or text[0] in "/.~"):  # a repo of data has an owner
            raise PortError(f"there is no file {text!r}")
        return cls.parse(text)


@dataclass(frozen=True)
class Pinned:
    """A repo at one commit, or a local folder; what all code after `Hub.resolve` works with."""

    name: str
    commit: str | None
    """None for a folder."""
    files: tuple[str, ...] = field(repr=False)
    """Names of its files."""
    folder: Path | None = field(default=None, repr=False)
    """None for a repo."""
    kind: str = "model"
    """Either "model" or "dataset"."""
    subfolder: str = ""
    """The folder in the repo that `files` are in; "" for the repo itself. A local one is a part of `folder`."""
    above: tuple[str, ...] = field(default=(), repr=False)
    """Those of `files` that are not in it but in the folder above, as if they were in it; see `io/nested.py`."""
    file: str | None = None
    """The one file of a dataset that is read; None for all of them."""

    def __str__(self) -> str:
        if self.file is not None:
            return f"{self.name}@{self.commit}:{self.file}" if self.commit else f"{self.name} (local file)"
        name = "/".join(filter(None, (self.name, self._outer if self.above else self.subfolder)))
        return f"{name}@{self.commit}" if self.commit else f"{name} (local folder)"

    @property
    def _outer(self) -> str:
        return self.subfolder.rpartition("/")[0]

    def place(self, name: str) -> str:
        """Return where a file of `files` lies in the repo."""
        return "/".join(filter(None, (self._outer if name in self.above else self.subfolder, name)))

    def inside(self, subfolder: str) -> "Pinned":
        """Return what is in a folder of this repo, as if it were a repo.

        Raises:
            PortError: there is no such folder.
        """
        name, there, folder = subfolder.strip("/"), self.files, self.folder
        if self.above:
            there, folder = tuple(map(self.place, there)), folder and folder.parent
        files = tuple(file.removeprefix(f"{name}/") for file in there if file.startswith(f"{name}/"))
        if not files or ".." in name.split("/"):
            folders = sorted({file.split("/")[0] for file in there if "/" in file})
            raise PortError(
                f"{self} has no folder {subfolder!r}; it has {', '.join(folders) or 'none'}: name another with "
                f"{setting('subfolder')}"
            )
        return replace(self, files=files, folder=folder and folder / name, subfolder=name, above=())

    def without(self, *names: str) -> "Pinned":
        """Return the repo as if it did not have some files."""
        return replace(self, files=tuple(file for file in self.files if file not in names))


@contextmanager
def errors_about(pinned: Pinned):
    """Put a repo's name before the errors of the block."""
    try:
        yield
    except PortError as error:
        named = error.message.startswith(f"{pinned}: ")  # by a block within this one
        raise PortError(error.message if named else f"{pinned}: {error.message}") from error


def sha256(*paths: Path) -> str:
    """Return the sha256 (hex) of a file; of several, that of their hashes in order."""
    found = []
    for path in paths:
        with path.open("rb") as file:
            found.append(hashlib.file_digest(file, "sha256").hexdigest())
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()


def at_revision(name: str, revision: str | None) -> str:
    """Return a name as a reference at a revision; None leaves it as it is.

    Raises:
        PortError: the name is a folder's, or has a revision of its own.
    """
    if revision is None:
        return name
    reference = Reference.parse(name)
    if reference.folder is not None or reference.revision is not None:
        raise PortError(f"{name} cannot have revision={revision!r}: it is a folder or names one itself")
    return f"hf://{reference.name}@{revision}"


@dataclass(frozen=True)
class Lineage:
    """The repos that a port was made from, pinned."""

    source: Pinned
    base: Pinned
    target: Pinned
    dataset: Pinned

    @property
    def models(self) -> tuple[Pinned, Pinned, Pinned]:
        return self.source, self.base, self.target


def require_new_target(source: Pinned, base: Pinned, target: Pinned) -> None:
    """Refuse a new base that is one of the other two models, by name and commit or by folder.

    Raises:
        PortError: it is.
    """
    where = {
        role: (each.name if each.folder is None else str(each.folder), each.commit)
        for role, each in (("source", source), ("base", base), ("target", target))
    }
    _require_new(where, str(target))


def require_new_weights(hashes: Mapping[str, str], target: Pinned) -> None:
    """Refuse a new base whose files of weights are those of another of the models.

    Args:
        hashes: sha256 of the weights, by role.

    Raises:
        PortError: they are.
    """
    _require_new(hashes, f"{target}, by the sha256 of its weights,")


def _require_new(where: Mapping[str, object], target: str) -> None:
    named = f"what SOURCE was fine-tuned from, by its card or {setting('base')}"
    others = {"base": named, "source": "the fine-tune itself"}
    for role, what in others.items():
        if where["target"] == where[role]:
            raise PortError(
                f"{target} is {what}: there is nothing to carry over; name the new base with {setting('target')}"
            )
