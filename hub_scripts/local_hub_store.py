"""Storage of the local Hub: repositories, commits, refs and blobs as plain files; no HTTP here.

    ROOT/tmp/                               half-written files, emptied at start
    ROOT/models|datasets/NAMESPACE/NAME/
        repo.json                           settings, refs, discussions: the only file that ever changes
        commits/SHA1.json                   immutable, lists every file of its revision
        blobs/SHA256                        immutable contents

Whatever is written is written in tmp/ and renamed into its place, contents first and `repo.json` last: a stop
at any moment leaves the old state or the new one. One process serves one root.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

KINDS = ("models", "datasets")
MAIN = "refs/heads/main"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*")
REF_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*(?:[./][A-Za-z0-9_-]+)*")
SHA256 = re.compile(r"[0-9a-f]{64}")
_LFS = """
7z arrow bin bz2 ckpt ftz gz h5 joblib mlmodel model msgpack npy npz onnx ot parquet pb pickle pkl pt pth rar
safetensors tar tflite tgz wasm xz zip zst bmp flac gif jpeg jpg mp3 mp4 ogg png tiff wav webm webp
"""
LFS_SUFFIXES = tuple(f".{name}" for name in _LFS.split())
GIT_ATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES)


class StoreError(Exception):
    """A request that the store refuses; the subclass says why."""


class RepoMissing(StoreError): ...


class RevisionMissing(StoreError): ...


class BadRequest(StoreError): ...


class Conflict(StoreError): ...


class ParentMoved(StoreError): ...


class EntryMissing(StoreError):
    def __init__(self, path: str, commit: str):
        super().__init__(f"Entry not found: {path}")
        self.commit = commit


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
    """What is said with a change: the title and text of a commit, a pull request or a discussion."""

    title: str
    text: str
    author: str


@dataclass(frozen=True)
class RepoState:
    """What `repo.json` holds."""

    created: str
    private: bool = False
    gated: str | bool = False
    refs: dict[str, str] = field(default_factory=dict)
    discussions: list[dict] = field(default_factory=list)


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def check_path(path: object) -> str:
    """A path that stays inside its repository, in one spelling only."""
    bad = not isinstance(path, str) or re.search(r"[\\\x00-\x1f\x7f]", path)
    if bad or any(part in ("", ".", "..") or part.lower() == ".git" for part in path.split("/")):
        raise BadRequest(f"Invalid path in repo: {path!r}")
    return path


class BlobWriter:
    """A blob on its way in, hashed as it is written; `keep` gives it its name, leaving without removes it."""

    def __init__(self, blobs: Path, tmp: Path):
        self.blobs, self.part = blobs, tmp / secrets.token_hex(16)
        self.digest, self.size = hashlib.sha256(), 0

    def __enter__(self) -> BlobWriter:
        self.file: BinaryIO = open(self.part, "xb")
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.part.unlink(missing_ok=True)

    def write(self, chunk: bytes) -> None:
        self.file.write(chunk)
        self.digest.update(chunk)
        self.size += len(chunk)

    def keep(self, expected: str | None = None) -> str:
        sha256 = self.digest.hexdigest()
        if expected not in (None, sha256):
            raise BadRequest(f"The content's sha256 is {sha256}, expected {expected}")
        self.file.close()
        self.blobs.mkdir(parents=True, exist_ok=True)
        os.replace(self.part, self.blobs / sha256)
        return sha256


class Repo:
    """One repository. Reading needs no lock: commits and blobs never change, the state is replaced whole."""

    def __init__(self, store: Store, kind: str, namespace: str, name: str):
        self.store, self.kind, self.namespace = store, kind, namespace
        self.id = f"{namespace}/{name}"
        self.path = store.root / kind / namespace / name
        self.commit = lru_cache(maxsize=64)(self._read_commit)
        if (self.path / "repo.json").is_file():
            self.state = RepoState(**json.loads((self.path / "repo.json").read_bytes()))

    def resolve(self, revision: str) -> str:
        """The commit of a branch, a tag, a full ref or a full commit id."""
        refs = self.state.refs
        for ref in (revision, f"refs/heads/{revision}", f"refs/tags/{revision}"):
            if ref in refs:
                return refs[ref]
        if re.fullmatch(r"[0-9a-f]{40}", revision) and (self.path / "commits" / f"{revision}.json").is_file():
            return revision
        raise RevisionMissing(f"Invalid rev id: {revision}")

    def writable_ref(self, revision: str) -> str:
        for ref in (f"refs/heads/{revision}", revision):
            if ref in self.state.refs and not ref.startswith("refs/tags/"):
                return ref
        self.resolve(revision)
        raise BadRequest(f"Commits go to a branch or a pull request, not to {revision}")

    def _read_commit(self, oid: str) -> Commit:
        data = json.loads((self.path / "commits" / f"{oid}.json").read_bytes())
        files = {path: Entry(**entry) for path, entry in data.pop("files").items()}
        return Commit(oid=oid, files=files, **data)

    def history(self, oid: str | None) -> Iterator[Commit]:
        while oid is not None:
            commit = self.commit(oid)
            yield commit
            oid = commit.parent

    def entry(self, oid: str, path: str) -> Entry:
        try:
            return self.commit(oid).files[path]
        except KeyError:
            raise EntryMissing(path, oid) from None

    def blob(self, sha256: str) -> Path:
        return self.path / "blobs" / sha256

    def has_blob(self, sha256: str) -> bool:
        return self.blob(sha256).is_file()

    def blob_writer(self) -> BlobWriter:
        return BlobWriter(self.path / "blobs", self.store.tmp)

    def add_regular(self, content: bytes) -> Entry:
        with self.blob_writer() as blob:
            blob.write(content)
            return Entry(len(content), git_oid(content), blob.keep(), lfs=False)

    def lfs_entry(self, path: str, sha256: object) -> Entry:
        if not (isinstance(sha256, str) and SHA256.fullmatch(sha256) and self.has_blob(sha256)):
            raise BadRequest(f"An LFS pointer pointed to a file that does not exist. Offending file: {path}")
        entry = Entry(self.blob(sha256).stat().st_size, "", sha256, lfs=True)
        return replace(entry, oid=git_oid(entry.pointer))

    def add_commit(self, ref: str, changes: list[Change], note: Note, parent: str | None = None) -> Commit:
        with self.store.lock:
            head = self.state.refs[ref]
            if parent not in (None, head):
                raise ParentMoved("A commit has happened since. Please refresh and try again.")
            commit = self._write_commit(head, changes, note)
            known = self.state.discussions
            told = [_with_commit(opened, commit) if _ref_of(opened) == ref else opened for opened in known]
            self.update(refs={**self.state.refs, ref: commit.oid}, discussions=told)
            return commit

    def _write_commit(self, parent: str | None, changes: list[Change], note: Note) -> Commit:
        files = dict(self.commit(parent).files) if parent else {}
        for change in changes:
            _apply(files, change, parent or "")
        _refuse_file_as_folder(files)
        body = {"parent": parent, "title": note.title, "description": note.text, "author": note.author}
        body |= {"date": now(), "files": {path: asdict(files[path]) for path in sorted(files)}}
        content = json.dumps(body).encode()
        oid = hashlib.sha1(content, usedforsecurity=False).hexdigest()
        self.store.write(self.path / "commits" / f"{oid}.json", content)
        return self.commit(oid)

    def add_discussion(self, note: Note) -> int:
        return self._open(note, None)["num"]

    def add_pull_request(self, base: str, changes: list[Change], note: Note) -> tuple[int, str]:
        """A pull request on top of commit `base`: its number and its head."""
        with self.store.lock:
            commit = self._write_commit(base, changes, note) if changes else None
            opened = self._open(note, base, commit)
            return opened["num"], self.state.refs[_ref_of(opened)]

    def _open(self, note: Note, base: str | None, commit: Commit | None = None) -> dict:
        with self.store.lock:
            num, date = len(self.state.discussions) + 1, now()
            comment = {"type": "comment", "author": note.author, "date": date, "text": note.text}
            opened = {"num": num, "title": note.title, "author": note.author, "date": date, "base": base}
            opened |= {"status": "draft" if base and not commit else "open", "events": [comment]}
            refs = self.state.refs if base is None else {**self.state.refs, _ref_of(opened): base}
            if commit:
                opened = _with_commit(opened, commit)
                refs[_ref_of(opened)] = commit.oid
            self.update(refs=refs, discussions=[*self.state.discussions, opened])
            return opened

    def add_ref(self, ref: str, target: str) -> None:
        with self.store.lock:
            if not REF_NAME.fullmatch(ref.split("/", 2)[2]):
                raise BadRequest(f"Invalid reference name: {ref}")
            if ref in self.state.refs:
                raise Conflict(f"Reference already exists: {ref}")
            self.update(refs={**self.state.refs, ref: target})

    def delete_ref(self, ref: str) -> None:
        with self.store.lock:
            if ref == MAIN:
                raise BadRequest("The main branch cannot be deleted")
            if ref not in self.state.refs:
                raise RevisionMissing(f"Invalid rev id: {ref}")
            self.update(refs={name: oid for name, oid in self.state.refs.items() if name != ref})

    def update(self, **changes: object) -> None:
        """Replace the state, on disk first: memory is never ahead of what a restart would find."""
        with self.store.lock:
            state = replace(self.state, **changes)
            self.store.write(self.path / "repo.json", json.dumps(asdict(state), indent=1).encode())
            self.state = state


def _ref_of(discussion: dict) -> str | None:
    return None if discussion["base"] is None else f"refs/pr/{discussion['num']}"


def _with_commit(discussion: dict, commit: Commit) -> dict:
    event = {"type": "commit", "author": commit.author, "date": commit.date, "text": commit.title}
    status = "open" if discussion["status"] == "draft" else discussion["status"]
    return {**discussion, "status": status, "events": [*discussion["events"], {**event, "oid": commit.oid}]}


def _apply(files: dict[str, Entry], change: Change, commit: str) -> None:
    path = check_path(change.path)
    if change.entry is not None:
        files[path] = change.entry
        return
    gone = [name for name in files if (name.startswith(f"{path}/") if change.folder else name == path)]
    if not gone:
        raise EntryMissing(path, commit)
    for name in gone:
        del files[name]


def _refuse_file_as_folder(files: dict[str, Entry]) -> None:
    for path in files:
        parts = path.split("/")
        for depth in range(1, len(parts)):
            if (folder := "/".join(parts[:depth])) in files:
                raise BadRequest(f"{folder} is a file, {path} needs it to be a folder")


class Store:
    def __init__(self, root: Path):
        self.root, self.tmp = root, root / "tmp"
        self.lock = threading.RLock()
        self._open: dict[tuple[str, str], Repo] = {}
        shutil.rmtree(self.tmp, ignore_errors=True)
        self.tmp.mkdir(parents=True)

    def repo(self, kind: str, namespace: str, name: str) -> Repo:
        with self.lock:
            key = (kind, f"{namespace}/{name}")
            if key not in self._open:
                valid = kind in KINDS and NAME.fullmatch(namespace) and NAME.fullmatch(name)
                if not valid or not (self.root / kind / namespace / name / "repo.json").is_file():
                    raise RepoMissing("Repository not found")
                self._open[key] = Repo(self, kind, namespace, name)
            return self._open[key]

    def repos(self, kind: str) -> list[Repo]:
        found = sorted((self.root / kind).glob("*/*/repo.json"))
        return [self.repo(kind, path.parts[-3], path.parts[-2]) for path in found]

    def create(self, kind: str, namespace: str, name: str, *, private: bool, author: str) -> Repo:
        if kind not in KINDS or not NAME.fullmatch(namespace) or not NAME.fullmatch(name) or len(name) > 96:
            raise BadRequest(f"Invalid repo: {kind} {namespace}/{name}")
        with self.lock:
            repo = Repo(self, kind, namespace, name)
            if hasattr(repo, "state"):
                raise Conflict(f"You already created this {kind[:-1]} repo: {repo.id}")
            change = Change(".gitattributes", repo.add_regular(GIT_ATTRIBUTES.encode()))
            first = repo._write_commit(None, [change], Note("initial commit", "", author))
            repo.state = RepoState(created=now())
            repo.update(private=private, refs={MAIN: first.oid})
            return repo

    def delete(self, repo: Repo) -> None:
        with self.lock:
            gone = self.tmp / secrets.token_hex(16)
            os.rename(repo.path, gone)
            self._open.pop((repo.kind, repo.id), None)
        shutil.rmtree(gone, ignore_errors=True)

    def write(self, path: Path, content: bytes) -> None:
        part = self.tmp / secrets.token_hex(16)
        part.write_bytes(content)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(part, path)
