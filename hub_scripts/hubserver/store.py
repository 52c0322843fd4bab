"""Storage: repositories, commits, refs and blobs as plain files; no HTTP here.

    ROOT/tmp/                               half-written files, emptied at start
    ROOT/models|datasets/NAMESPACE/NAME/
        repo.json                           settings, refs, discussions: the only file that ever changes
        commits/SHA1.json                   immutable, lists every file of its revision
        blobs/SHA256                        immutable contents
    ROOT/jobs/NAMESPACE/ID.json             jobs that were asked for (see `hubserver.jobs`)

Whatever is written is written in tmp/ and renamed into its place, contents first and `repo.json` last: a stop
at any moment leaves the old state or the new one. One process serves one root.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Self

from .errors import BadRequest, Conflict, ParentMoved, RepoMissing, RevisionMissing
from .records import (
    GIT_ATTRIBUTES,
    MAIN,
    REF_NAME,
    SHA256,
    Change,
    Commit,
    Entry,
    Note,
    RepoState,
    changed,
    git_oid,
    now,
    valid_id,
)


class BlobWriter:
    """A blob on its way in, hashed as it is written; `keep` gives it its name, leaving without removes it."""

    def __init__(self, blobs: Path, tmp: Path):
        self.blobs, self.part = blobs, tmp / secrets.token_hex(16)
        self.digest, self.size = hashlib.sha256(), 0

    def __enter__(self) -> Self:
        self.file = open(self.part, "xb")
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

    def __init__(self, store: "Store", kind: str, id: str, state: RepoState):
        self.store, self.kind, self.id, self.state = store, kind, id, state
        self.namespace = id.split("/")[0]
        self.path = store.root / kind / id
        self.commit = lru_cache(maxsize=64)(self._read_commit)

    def resolve(self, revision: str) -> str:
        """The commit of a branch, a tag, a full ref or a full commit id."""
        refs = self.state.refs
        for ref in (revision, f"refs/heads/{revision}", f"refs/tags/{revision}"):
            if ref in refs:
                return refs[ref]
        if re.fullmatch(r"[0-9a-f]{40}", revision) and (self.path / "commits" / f"{revision}.json").is_file():
            return revision
        raise RevisionMissing(f"Invalid rev id: {revision}")

    def at(self, revision: str) -> Commit:
        return self.commit(self.resolve(revision))

    def writable_ref(self, revision: str) -> str:
        for ref in (revision, f"refs/heads/{revision}"):
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
            yield (commit := self.commit(oid))
            oid = commit.parent

    def blob(self, sha256: str) -> Path:
        return self.path / "blobs" / sha256

    def blob_writer(self) -> BlobWriter:
        return BlobWriter(self.path / "blobs", self.store.tmp)

    def add_regular(self, content: bytes) -> Entry:
        with self.blob_writer() as blob:
            blob.write(content)
            return Entry(len(content), git_oid(content), blob.keep(), lfs=False)

    def lfs_entry(self, path: str, sha256: object) -> Entry:
        if not (isinstance(sha256, str) and SHA256.fullmatch(sha256) and self.blob(sha256).is_file()):
            raise BadRequest(f"An LFS pointer pointed to a file that does not exist. Offending file: {path}")
        entry = Entry(self.blob(sha256).stat().st_size, "", sha256, lfs=True)
        return replace(entry, oid=git_oid(entry.pointer))

    def add_commit(self, ref: str, changes: list[Change], note: Note, parent: str | None = None) -> str:
        with self.store.lock:
            head = self.state.refs[ref]
            if parent not in (None, head):
                raise ParentMoved("A commit has happened since. Please refresh and try again.")
            oid = self.write_commit(head, changes, note)
            self.update(refs={**self.state.refs, ref: oid})
            return oid

    def write_commit(self, parent: str | None, changes: list[Change], note: Note) -> str:
        """A commit that no ref leads to yet."""
        files = changed(self.commit(parent).files if parent else {}, changes, parent or "")
        body = {"parent": parent, "title": note.title, "description": note.text, "author": note.author}
        body |= {"date": now(), "files": {path: asdict(files[path]) for path in sorted(files)}}
        content = json.dumps(body).encode()
        oid = hashlib.sha1(content, usedforsecurity=False).hexdigest()
        self.store.write(self.path / "commits" / f"{oid}.json", content)
        return oid

    def add_pull_request(self, base: str, changes: list[Change], note: Note) -> int:
        """The number of a new pull request on top of commit `base`."""
        with self.store.lock:
            num = len(self.state.discussions) + 1
            head = self.write_commit(base, changes, note) if changes else base
            pull = {"num": num, "date": now(), "base": base, **asdict(note)}
            refs = {**self.state.refs, f"refs/pr/{num}": head}
            self.update(refs=refs, discussions=[*self.state.discussions, pull])
            return num

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


class Store:
    def __init__(self, root: Path):
        self.root, self.tmp = root, root / "tmp"
        self.lock = threading.RLock()
        self._open: dict[tuple[str, str], Repo] = {}
        shutil.rmtree(self.tmp, ignore_errors=True)
        self.tmp.mkdir(parents=True)

    def repo(self, kind: str, namespace: str, name: str) -> Repo:
        key = (kind, f"{namespace}/{name}")
        with self.lock:
            if key not in self._open:
                file = self.root / kind / namespace / name / "repo.json"
                if not valid_id(kind, namespace, name) or not file.is_file():
                    raise RepoMissing("Repository not found")
                self._open[key] = Repo(self, *key, RepoState(**json.loads(file.read_bytes())))
            return self._open[key]

    def repos(self, kind: str) -> list[Repo]:
        found = sorted((self.root / kind).glob("*/*/repo.json"))
        return [self.repo(kind, path.parts[-3], path.parts[-2]) for path in found]

    def create(self, kind: str, namespace: str, name: str, *, private: bool, author: str) -> Repo:
        if not valid_id(kind, namespace, name):
            raise BadRequest(f"Invalid repo: {kind} {namespace}/{name}")
        with self.lock:
            repo = Repo(self, kind, f"{namespace}/{name}", RepoState(created=now(), private=private))
            if (repo.path / "repo.json").is_file():
                raise Conflict(f"You already created this {kind[:-1]} repo: {repo.id}")
            change = Change(".gitattributes", repo.add_regular(GIT_ATTRIBUTES.encode()))
            first = repo.write_commit(None, [change], Note("initial commit", "", author))
            repo.update(refs={MAIN: first})
            return self._open.setdefault((kind, repo.id), repo)

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
