"""What a user may call a model or a dataset, and what it is pinned to."""

import hashlib
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hf_bico.core.errors import PortError

_NAME = re.compile(r"(?:hf://)?(?:models/|datasets/)?([\w.-]+/[\w.-]+|[\w.-]+)(?:@(\S+))?")


@dataclass(frozen=True)
class Reference:
    """`org/name`, `org/name@revision`, `hf://org/name@revision` or a local folder."""

    name: str
    revision: str | None = None
    folder: Path | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """A folder that exists is a folder, unless `hf://` says otherwise.

        Raises:
            PortError: it is neither a folder nor a repo's name.
        """
        if not text.strip():
            raise PortError("an empty name is neither a folder nor a repo")
        path = Path(text).expanduser()
        if not text.startswith("hf://") and path.is_dir():
            return cls(path.resolve().name, folder=path.resolve())
        match = _NAME.fullmatch(text)
        if match is None:
            raise PortError(f"{text!r} is neither a local folder nor a repo like org/name or org/name@revision")
        return cls(match[1], match[2])


@dataclass(frozen=True)
class Pinned:
    """A repo at one commit, or a local folder. Everything after resolving names these."""

    name: str
    commit: str | None
    files: tuple[str, ...] = field(repr=False)
    folder: Path | None = field(default=None, repr=False)
    kind: str = "model"

    def __str__(self) -> str:
        return f"{self.name}@{self.commit}" if self.commit else f"{self.name} (local folder)"


@contextmanager
def about(pinned: Pinned):
    """Says whose an error is that knows a file alone."""
    try:
        yield
    except PortError as error:
        raise PortError(f"{pinned}: {error}") from error


def sha256(*paths: Path) -> str:
    """Of a file; of several, of their hashes in order."""
    found = []
    for path in paths:
        with path.open("rb") as file:
            found.append(hashlib.file_digest(file, "sha256").hexdigest())
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()
