"""What the store keeps: files, commits, pull requests and settings, and the names they may have."""

import hashlib
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime

from .errors import BadRequest, EntryMissing

KINDS = ("models", "datasets")
MAIN = "refs/heads/main"
NAME = re.compile(r"(?=.{1,96}$)[A-Za-z0-9][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*")
REF_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*(?:[./][A-Za-z0-9_-]+)*")
SHA256 = re.compile(r"[0-9a-f]{64}")
_LFS = """
7z arrow bin bz2 ckpt ftz gz h5 joblib mlmodel model msgpack npy npz onnx ot parquet pb pickle pkl pt pth rar
safetensors tar tflite tgz wasm xz zip zst bmp flac gif jpeg jpg mp3 mp4 ogg png tiff wav webm webp
"""
LFS_SUFFIXES = tuple(f".{name}" for name in _LFS.split())
GIT_ATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES)


@dataclass(frozen=True)
class Entry:
    """One file of a revision. `oid` is a git blob id: of the contents or, for an LFS file, of its pointer."""

    size: int
    oid: str
    sha256: str
    lfs: bool

    @property
    def pointer(self) -> bytes:
        version = "version https://git-lfs.github.com/spec/v1"
        return f"{version}\noid sha256:{self.sha256}\nsize {self.size}\n".encode()


@dataclass(frozen=True)
class Commit:
    oid: str
    parent: str | None
    title: str
    description: str
    author: str
    date: str
    files: dict[str, Entry]


@dataclass(frozen=True)
class Change:
    """`entry` at `path`; without an entry the file, or all of the folder, is deleted."""

    path: str
    entry: Entry | None = None
    folder: bool = False


@dataclass(frozen=True)
class Note:
    """What is said with a change: the title and text of a commit or a pull request."""

    title: str
    text: str
    author: str


@dataclass(frozen=True)
class RepoState:
    """What `repo.json` holds; the discussions, all pull requests, as `add_pull_request` writes them."""

    created: str
    private: bool = False
    gated: str | bool = False
    refs: dict[str, str] = field(default_factory=dict)
    discussions: list[dict] = field(default_factory=list)


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def valid_id(kind: str, namespace: str, name: str) -> bool:
    return kind in KINDS and all(NAME.fullmatch(part) for part in (namespace, name))


def check_path(path: object) -> str:
    """A path that stays inside its repository, in one spelling only."""
    bad = not isinstance(path, str) or re.search(r"[\\\x00-\x1f\x7f]", path)
    if bad or any(part in ("", ".", "..") or part.lower() == ".git" for part in path.split("/")):
        raise BadRequest(f"Invalid path in repo: {path!r}")
    return path


def changed(files: dict[str, Entry], changes: list[Change], commit: str) -> dict[str, Entry]:
    """The files of `commit` after the changes."""
    files = dict(files)
    for change in changes:
        path = check_path(change.path)
        if change.entry is not None:
            files[path] = change.entry
            continue
        gone = [name for name in files if (name.startswith(f"{path}/") if change.folder else name == path)]
        if not gone:
            raise EntryMissing(path, commit)
        for name in gone:
            del files[name]
    for path in files:
        for folder in folders(path):
            if folder in files:
                raise BadRequest(f"{folder} is a file, {path} needs it to be a folder")
    return files


def folders(path: str) -> list[str]:
    """The folders that `path` is in, outermost first."""
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]
