"""A Hugging Face Hub on loopback, for tests and demos: models, datasets, LFS, revisions, pull requests.

    python hub_scripts/local_hub.py --root DIR [--port P] [--user NAME:TOKEN]... [--org ORG:USER,USER]...

Prints `Hub at http://127.0.0.1:PORT` and serves until SIGTERM or SIGINT. Everything is kept under the root
(see `local_hub_store`), but for users and tokens: they live as long as the process. Clients set `HF_ENDPOINT`
to that address and `HF_HUB_DISABLE_XET=1`, nothing else.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import difflib
import hashlib
import hmac
import html
import json
import logging
import re
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, unquote

import uvicorn
import yaml
from local_hub_store import (
    LFS_SUFFIXES,
    NAME,
    SHA256,
    BadRequest,
    Change,
    Commit,
    Conflict,
    Entry,
    EntryMissing,
    Note,
    ParentMoved,
    Repo,
    RepoMissing,
    RevisionMissing,
    Store,
    StoreError,
    check_path,
    git_oid,
)
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

MAX_BODY = 64 << 20  # of JSON, or of one line of a commit; LFS uploads have no limit
MAX_REGULAR = 10 << 20
QUOTED_SLASH = "\x1f"
STATUS = {BadRequest: 400, Conflict: 409, ParentMoved: 412}  # any other StoreError is a 404
CODES = {RepoMissing: "RepoNotFound", RevisionMissing: "RevisionNotFound", EntryMissing: "EntryNotFound"}


class KindConvertor(StringConvertor):
    regex = "models|datasets"


register_url_convertor("kind", KindConvertor())


class Refused(Exception):
    """An answer other than success that the store knows nothing of: authentication, permission, gates."""

    def __init__(self, status: int, message: str, code: str | None = None):
        super().__init__(message)
        self.status, self.code = status, code


class Accounts:
    def __init__(self, users: dict[str, str], orgs: dict[str, list[str]]):
        self.by_token = {token: name for name, token in users.items()}
        self.orgs = orgs

    def user(self, request: Request) -> str | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if not scheme:
            return None
        if scheme.lower() != "bearer" or token not in self.by_token:
            raise Refused(401, "Invalid credentials in Authorization header")
        return self.by_token[token]

    def known(self, request: Request) -> str:
        if (user := self.user(request)) is None:
            raise Refused(401, "Invalid username or password.")
        return user

    def owns(self, user: str | None, namespace: str) -> bool:
        return user is not None and (user == namespace or user in self.orgs.get(namespace, ()))


class Upload:
    """Signs the address of an LFS upload: clients PUT there without their token."""

    key = secrets.token_bytes(32)

    @classmethod
    def ticket(cls, repo: Repo, oid: str, size: int | str) -> str:
        return hmac.new(cls.key, f"{repo.kind}/{repo.id}/{oid}/{size}".encode(), hashlib.sha256).hexdigest()


def part(request: Request, name: str) -> str:
    return request.path_params[name].replace(QUOTED_SLASH, "/")


def flag(request: Request, name: str) -> bool:
    return request.query_params.get(name, "").lower() in ("1", "true")


def find(request: Request, kind: str, namespace: str, name: str) -> Repo:
    """A repository, if the user may know of it."""
    accounts = request.app.state.accounts
    user = accounts.user(request)
    repo = request.app.state.store.repo(kind, namespace, name)
    if repo.state.private and not accounts.owns(user, repo.namespace):
        raise RepoMissing("Repository not found")
    return repo


def open_repo(request: Request) -> Repo:
    kind = request.path_params.get("kind", "models")
    return find(request, kind, part(request, "ns"), part(request, "name"))


def open_files(request: Request) -> Repo:
    """The repository, if its user may read the files, which is what a gate guards."""
    repo, accounts = open_repo(request), request.app.state.accounts
    if repo.state.gated and not accounts.owns(accounts.user(request), repo.namespace):
        text = f"Access to {repo.kind[:-1]} {repo.id} is restricted and you are not in the authorized list."
        raise Refused(403, f"{text} Visit {address(request, repo)} to ask for access.", "GatedRepo")
    return repo


def owned(request: Request, repo: Repo) -> Repo:
    user = request.app.state.accounts.known(request)
    if not request.app.state.accounts.owns(user, repo.namespace):
        raise Refused(403, f"Forbidden: {user} has no write access to {repo.id}")
    return repo


def open_owned(request: Request) -> Repo:
    request.app.state.accounts.known(request)
    return owned(request, open_repo(request))


def open_for_commit(request: Request) -> Repo:
    """Owners write anywhere; who may read the files may open a pull request, and add to their own."""
    user = request.app.state.accounts.known(request)
    repo = open_files(request)
    own = {f"refs/pr/{opened['num']}" for opened in repo.state.discussions if opened["author"] == user}
    return repo if flag(request, "create_pr") or part(request, "rev") in own else open_owned(request)


def address(request: Request, repo: Repo) -> str:
    return f"{request.base_url}{'datasets/' if repo.kind == 'datasets' else ''}{repo.id}"


def parsed(content: bytes) -> dict:
    try:
        value = json.loads(content)
    except ValueError:
        raise BadRequest("Malformed JSON") from None
    if not isinstance(value, dict):
        raise BadRequest("A JSON object was expected")
    return value


async def body(request: Request) -> dict:
    """A JSON object, or a form as a dictionary of lists."""
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BODY:
            raise Refused(413, "Request entity too large")
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return parse_qs(content.decode())
    return parsed(bytes(content) or b"{}")


def items(data: dict, key: str) -> list[dict]:
    value = data.get(key)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise BadRequest(f"{key} must be an array of objects")
    return value


def decoded(path: str, content: object) -> bytes:
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise BadRequest(f"{path} is not in base64") from None


async def lines(request: Request) -> AsyncIterator[dict]:
    rest = bytearray()
    async for chunk in request.stream():
        *ends, tail = chunk.split(b"\n")
        for end in ends:
            yield parsed(bytes(rest + end))
            rest.clear()
        rest += tail
        if len(rest) > MAX_BODY:
            raise Refused(413, "A file this large must be sent as LFS")
    if rest:
        yield parsed(bytes(rest))


def card_of(text: str) -> dict:
    """The metadata of a README: its YAML front matter as plain JSON values."""
    block = re.match(r"\s*---[\r\n]+([\S\s]*?)[\r\n]+---(?:\r?\n|$)", text)
    try:
        value = yaml.safe_load(block[1]) if block else {}
    except yaml.YAMLError as error:
        raise BadRequest(f"Invalid YAML: {error}") from None
    if not isinstance(value or {}, dict):
        raise BadRequest("The metadata must be a mapping")
    return json.loads(json.dumps(value or {}, default=str), parse_constant=lambda _: None)


def card_errors(card: dict) -> list[str]:
    texts = {key: card.get(key) for key in ("base_model", "datasets", "metrics", "tags", "language")}
    wrong = [key for key, value in texts.items() if not _is_text(value)]
    errors = [f'"{key}" must be a string or an array of strings' for key in wrong]
    for key in ("library_name", "pipeline_tag", "base_model_relation"):
        if not isinstance(card.get(key, ""), str):
            errors.append(f'"{key}" must be a string')
    models = card.get("model-index", [])
    if not isinstance(models, list) or not all(isinstance(m, dict) and "results" in m for m in models):
        errors.append('"model-index" must be an array of models with results')
    return errors


def _is_text(value: object) -> bool:
    many = value if isinstance(value, list) else [value]
    return value is None or all(isinstance(item, str) for item in many)


# answers about a revision


def listing(commit: Commit, folder: str, recursive: bool) -> dict[str, Entry | None]:
    """Path to file, or to None for a folder, of all that is in `folder`."""
    prefix, found = f"{folder}/" if folder else "", {}
    for path, entry in commit.files.items():
        if path.startswith(prefix):
            names = path[len(prefix) :].split("/")
            for depth in range(1, len(names) if recursive else min(2, len(names))):
                found[prefix + "/".join(names[:depth])] = None
            if recursive or len(names) == 1:
                found[path] = entry
    if folder and not found:
        raise EntryMissing(folder, commit.oid)
    return found


def rows(repo: Repo, commit: Commit, found: dict[str, Entry | None], expand: bool) -> list[dict]:
    last = last_commits(repo, commit, set(found)) if expand else {}
    out = []
    for path, entry in found.items():
        row = {"type": "directory", "path": path, "size": 0, "oid": git_oid(f"{commit.oid}/{path}".encode())}
        if entry is not None:
            row |= {"type": "file", "size": entry.size, "oid": entry.oid}
            if entry.lfs:
                row["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": len(entry.pointer)}
        if path in last:
            row["lastCommit"] = {"id": last[path].oid, "title": last[path].title, "date": last[path].date}
        out.append(row)
    return out


def last_commits(repo: Repo, commit: Commit, paths: set[str]) -> dict[str, Commit]:
    """For each path the newest commit that changed it or, for a folder, something in it."""
    found: dict[str, Commit] = {}
    for newer in repo.history(commit.oid):
        older = repo.commit(newer.parent).files if newer.parent else {}
        names = newer.files.keys() | older.keys()
        for name in (name for name in names if newer.files.get(name) != older.get(name)):
            parts = name.split("/")
            for depth in range(1, len(parts) + 1):
                found.setdefault("/".join(parts[:depth]), newer)
        if paths <= found.keys():
            break
    return found


def info(request: Request) -> Response:
    repo = open_repo(request)
    commit = repo.commit(repo.resolve(part(request, "rev") if "rev" in request.path_params else "main"))
    return JSONResponse(summary(repo, commit, flag(request, "blobs")))


def summary(repo: Repo, commit: Commit, blobs: bool = False) -> dict:
    siblings = []
    for path, entry in commit.files.items():
        siblings.append({"rfilename": path})
        if blobs:
            siblings[-1] |= {"size": entry.size, "blobId": entry.oid}
        if blobs and entry.lfs:
            lfs = {"sha256": entry.sha256, "size": entry.size, "pointerSize": len(entry.pointer)}
            siblings[-1]["lfs"] = lfs
    out = {"_id": git_oid(repo.id.encode())[:24], "id": repo.id, "author": repo.namespace, "sha": commit.oid}
    out |= {"lastModified": commit.date, "createdAt": repo.state.created, "private": repo.state.private}
    out |= {"gated": repo.state.gated, "disabled": False, "downloads": 0, "likes": 0, "siblings": siblings}
    return out | card_fields(repo, commit)


def card_fields(repo: Repo, commit: Commit) -> dict:
    try:
        text = repo.blob(commit.files["README.md"].sha256).read_text()
        card = card_of(text)
    except (KeyError, ValueError, StoreError):
        return {"tags": []}
    tags = [tag for key in ("library_name", "tags") for tag in _list(card.get(key))]
    tags += [f"{key}:{value}" for key in ("base_model", "license") for value in _list(card.get(key))]
    known = {key: card[key] for key in ("library_name", "pipeline_tag", "model-index") if key in card}
    return {"cardData": card, "tags": tags, **known}


def _list(value: object) -> list[str]:
    return [str(item) for item in (value if isinstance(value, list) else [value] if value else [])]


def tree(request: Request) -> Response:
    repo = open_repo(request)
    commit = repo.commit(repo.resolve(part(request, "rev")))
    folder = part(request, "path") if "path" in request.path_params else ""
    found = listing(commit, folder.strip("/"), flag(request, "recursive"))
    return JSONResponse(rows(repo, commit, found, flag(request, "expand")))


async def paths_info(request: Request) -> Response:
    repo, data = open_repo(request), await body(request)
    commit = repo.commit(repo.resolve(part(request, "rev")))
    everything = listing(commit, "", recursive=True)
    found = {path: everything[path] for path in _list(data.get("paths")) if path in everything}
    expand = str(_list(data.get("expand"))[:1]).lower() in ("['true']", "['1']")
    return JSONResponse(rows(repo, commit, found, expand))


def commits(request: Request) -> Response:
    repo = open_repo(request)
    out = []
    for commit in repo.history(repo.resolve(part(request, "rev"))):
        out.append({"id": commit.oid, "title": commit.title, "message": commit.description})
        out[-1] |= {"date": commit.date, "authors": [{"user": commit.author}]}
        if request.query_params.get("expand[]") == "formatted":
            out[-1]["formatted"] = {"title": commit.title, "message": commit.description}
    return JSONResponse(out)


def resolve(request: Request) -> Response:
    """A file. LFS files are sent from here too, where the Hub would redirect to a CDN."""
    repo = open_files(request)
    oid = repo.resolve(part(request, "rev"))
    entry = repo.entry(oid, path := part(request, "path"))
    etag = f'"{entry.sha256 if entry.lfs else entry.oid}"'
    headers = {"X-Repo-Commit": oid, "ETag": etag}
    if entry.lfs:
        headers |= {"X-Linked-Etag": etag, "X-Linked-Size": str(entry.size)}
    media_type = "application/octet-stream" if entry.lfs else "text/plain; charset=utf-8"
    where = {"filename": path.rsplit("/", 1)[-1], "content_disposition_type": "inline"}
    return FileResponse(repo.blob(entry.sha256), headers=headers, media_type=media_type, **where)


# refs and settings


def refs(request: Request) -> Response:
    repo = open_repo(request)
    out: dict[str, list] = {"branches": [], "converts": [], "tags": [], "pullRequests": []}
    prefixes = {"refs/heads/": "branches", "refs/tags/": "tags", "refs/pr/": "pullRequests"}
    for ref, oid in repo.state.refs.items():
        prefix = "/".join(ref.split("/")[:2]) + "/"
        name = ref if prefix == "refs/pr/" else ref.removeprefix(prefix)
        out[prefixes[prefix]].append({"name": name, "ref": ref, "targetCommit": oid})
    if not flag(request, "include_prs"):
        del out["pullRequests"]
    return JSONResponse(out)


async def branch(request: Request) -> Response:
    repo, ref = open_owned(request), f"refs/heads/{part(request, 'rev')}"
    if request.method == "DELETE":
        repo.delete_ref(ref)
    else:
        repo.add_ref(ref, repo.resolve(str((await body(request)).get("startingPoint", "main"))))
    return JSONResponse({})


async def tag(request: Request) -> Response:
    repo, name = open_owned(request), part(request, "rev")
    if request.method == "DELETE":
        repo.delete_ref(f"refs/tags/{name}")
    else:
        repo.add_ref(f"refs/tags/{(await body(request)).get('tag')}", repo.resolve(name))
    return JSONResponse({})


async def settings(request: Request) -> Response:
    repo, data = open_owned(request), await body(request)
    if data.get("gated", False) not in ("auto", "manual", False):
        raise BadRequest("gated must be auto, manual or false")
    if data.get("visibility", "public") not in ("public", "private"):
        raise BadRequest("visibility must be public or private")
    changes = {"gated": data["gated"]} if "gated" in data else {}
    if "visibility" in data:
        changes["private"] = data["visibility"] == "private"
    repo.update(**changes)
    return JSONResponse(data)


def auth_check(request: Request) -> Response:
    (open_owned if request.url.path.endswith("/write") else open_files)(request)
    return JSONResponse({})


async def create(request: Request) -> Response:
    accounts, store = request.app.state.accounts, request.app.state.store
    user, data = accounts.known(request), await body(request)
    kind, namespace = f"{data.get('type') or 'model'}s", str(data.get("organization") or user)
    if not accounts.owns(user, namespace):
        raise Refused(403, f"{user} has no rights to create a {kind[:-1]} under the namespace {namespace}")
    private = data.get("visibility") == "private" or data.get("private") is True
    url = f"{request.base_url}{'datasets/' if kind == 'datasets' else ''}{namespace}/{data.get('name')}"
    try:
        repo = store.create(kind, namespace, str(data.get("name")), private=private, author=user)
    except Conflict as error:
        return JSONResponse({"error": str(error), "url": url}, 409)
    return JSONResponse({"url": url, "name": repo.id, "id": repo.id})


async def delete(request: Request) -> Response:
    user, data = request.app.state.accounts.known(request), await body(request)
    namespace = str(data.get("organization") or user)
    repo = find(request, f"{data.get('type') or 'model'}s", namespace, str(data.get("name")))
    request.app.state.store.delete(owned(request, repo))
    return JSONResponse({})


def repos(request: Request) -> Response:
    accounts, query = request.app.state.accounts, request.query_params
    user, out = accounts.user(request), []
    for repo in request.app.state.store.repos(request.path_params["kind"]):
        seen = not repo.state.private or accounts.owns(user, repo.namespace)
        wanted = query.get("author", repo.namespace) == repo.namespace and query.get("search", "") in repo.id
        if seen and wanted:
            out.append(summary(repo, repo.commit(repo.resolve("main"))))
    return JSONResponse(out[: int(query.get("limit", 1000))])


# commits and discussions


async def preupload(request: Request) -> Response:
    repo, data = open_for_commit(request), await body(request)
    current = repo.commit(repo.resolve(part(request, "rev"))).files
    out = []
    for item in items(data, "files"):
        path, size = check_path(item.get("path")), item.get("size")
        binary = b"\0" in decoded(path, item.get("sample", ""))
        large = isinstance(size, int) and size > MAX_REGULAR
        old, lfs = current.get(path), large or binary or path.lower().endswith(LFS_SUFFIXES)
        row = {"path": path, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
        out.append(row | ({"oid": old.sha256 if old.lfs else old.oid} if old else {}))
    return JSONResponse({"files": out})


async def lfs_batch(request: Request) -> Response:
    request.app.state.accounts.known(request)
    repo, data = open_files(request), await body(request)
    objects = [lfs_object(request, repo, wanted) for wanted in items(data, "objects")]
    return JSONResponse({"transfer": "basic", "objects": objects})


def lfs_object(request: Request, repo: Repo, wanted: dict) -> dict:
    oid, size = wanted.get("oid"), wanted.get("size")
    out = {"oid": oid, "size": size}
    if not isinstance(oid, str) or not SHA256.fullmatch(oid) or not isinstance(size, int):
        return {**out, "error": {"code": 422, "message": "Not a sha256 and a size"}}
    if repo.has_blob(oid):
        return out
    query = f"size={size}&ticket={Upload.ticket(repo, oid, size)}"
    href = f"{request.base_url}lfs/{repo.kind}/{repo.id}/{oid}?{query}"
    return {**out, "actions": {"upload": {"href": href}}}


async def upload(request: Request) -> Response:
    kind, namespace, name = (part(request, key) for key in ("kind", "ns", "name"))
    repo = request.app.state.store.repo(kind, namespace, name)
    oid, query = part(request, "oid"), request.query_params
    expected = Upload.ticket(repo, oid, query.get("size", ""))
    if not hmac.compare_digest(expected.encode(), query.get("ticket", "").encode()):
        raise Refused(403, "This upload address was not given out by this Hub")
    size = int(query["size"])
    with repo.blob_writer() as blob:
        async for chunk in request.stream():
            blob.write(chunk)
            if blob.size > size:
                raise BadRequest(f"More than the {size} bytes announced")
        blob.keep(oid)
    return Response()


async def commit(request: Request) -> Response:
    repo, header, changes = open_for_commit(request), {}, []
    async for line in lines(request):
        if line.get("key") == "header" and isinstance(line.get("value"), dict):
            header = line["value"]
        else:
            changes.append(await run_in_threadpool(change_of, repo, line))
    user = request.app.state.accounts.known(request)
    note = Note(str(header.get("summary", "")), str(header.get("description", "")), user)
    revision, parent, pull = part(request, "rev"), header.get("parentCommit"), None
    if flag(request, "create_pr"):
        num, oid = repo.add_pull_request(repo.resolve(str(parent or revision)), changes, note)
        pull = f"{address(request, repo)}/discussions/{num}"
    else:
        oid = repo.add_commit(repo.writable_ref(revision), changes, note, parent).oid
    url = f"{address(request, repo)}/commit/{oid}"
    return JSONResponse({"success": True, "commitUrl": url, "commitOid": oid, "pullRequestUrl": pull})


def change_of(repo: Repo, line: dict) -> Change:
    match line:
        case {"key": "file", "value": {"path": path, "content": str(content)}}:
            data = decoded(check_path(path), content)
            if len(data) > MAX_REGULAR:
                raise BadRequest(f"{path} is larger than 10 MiB and must be sent as LFS")
            return Change(path, repo.add_regular(data))
        case {"key": "lfsFile", "value": {"path": path, "oid": oid}}:
            return Change(check_path(path), repo.lfs_entry(path, oid))
        case {"key": "deletedFile" | "deletedFolder" as key, "value": {"path": str(path)}}:
            return Change(path.rstrip("/"), folder=key == "deletedFolder")
    raise BadRequest(f"Unknown commit operation: {line.get('key')}")


async def discussions(request: Request) -> Response:
    repo = open_repo(request)
    if request.method == "GET":
        found = [discussion(repo, opened) for opened in reversed(repo.state.discussions)]
        return JSONResponse({"discussions": found, "count": len(found), "start": 0})
    user, data = request.app.state.accounts.known(request), await body(request)
    note = Note(str(data.get("title", "")), str(data.get("description", "")), user)
    if data.get("pullRequest"):
        num, _ = repo.add_pull_request(repo.resolve("main"), [], note)
    else:
        num = repo.add_discussion(note)
    return JSONResponse({"num": num, "pullRequest": bool(data.get("pullRequest"))})


def discussion(repo: Repo, opened: dict) -> dict:
    out = {"num": opened["num"], "title": opened["title"], "status": opened["status"]}
    out |= {"createdAt": opened["date"], "author": {"name": opened["author"]}}
    repo_name = {"name": repo.id, "type": repo.kind[:-1]}
    return {**out, "repo": repo_name, "isPullRequest": opened["base"] is not None}


def event(num: int, index: int, data: dict) -> dict:
    out = {"id": f"{num:08x}{index:016x}", "type": data["type"], "createdAt": data["date"]}
    out["author"] = {"name": data["author"]}
    if data["type"] == "commit":
        return {**out, "data": {"subject": data["text"], "oid": data["oid"]}}
    latest = {"raw": data["text"], "html": html.escape(data["text"]), "updatedAt": data["date"]}
    return {**out, "data": {"edited": False, "hidden": False, "latest": latest, "history": []}}


def discussion_details(request: Request) -> Response:
    repo, num = open_repo(request), request.path_params["num"]
    if not 0 < num <= len(repo.state.discussions):
        raise HTTPException(404)
    opened = repo.state.discussions[num - 1]
    out = discussion(repo, opened)
    out["events"] = [event(num, index, data) for index, data in enumerate(opened["events"])]
    if opened["base"] is not None:
        old, new = repo.commit(opened["base"]), repo.commit(repo.resolve(f"refs/pr/{num}"))
        out |= {"changes": {"base": "refs/heads/main"}, "filesWithConflicts": []}
        if flag(request, "diff"):
            out["diff"] = difference(repo, old, new)
    return JSONResponse(out)


def difference(repo: Repo, old: Commit, new: Commit) -> str:
    """As git shows it: LFS files by their pointers."""
    out = []
    for path in sorted(old.files.keys() | new.files.keys()):
        before, after = old.files.get(path), new.files.get(path)
        if before != after:
            out.append(f"diff --git a/{path} b/{path}\n")
            names = (f"a/{path}" if before else "/dev/null", f"b/{path}" if after else "/dev/null")
            out += difflib.unified_diff(text_of(repo, before), text_of(repo, after), *names)
    return "".join(out)


def text_of(repo: Repo, entry: Entry | None) -> list[str]:
    if entry is None:
        return []
    content = entry.pointer if entry.lfs else repo.blob(entry.sha256).read_bytes()
    return [line + "\n" for line in content.decode(errors="replace").splitlines()]


# the rest


def whoami(request: Request) -> Response:
    accounts = request.app.state.accounts
    user = accounts.known(request)
    member = [name for name in accounts.orgs if accounts.owns(user, name)]
    orgs = [{"type": "org", "name": name, "fullname": name, "roleInOrg": "admin"} for name in member]
    auth = {"type": "access_token", "accessToken": {"displayName": "local", "role": "write"}}
    return JSONResponse({"type": "user", "name": user, "fullname": user, "orgs": orgs, "auth": auth})


async def validate_yaml(request: Request) -> Response:
    data = await body(request)
    try:
        card = card_of(str(data.get("content", "")))
        errors = card_errors(card)
    except BadRequest as error:
        card, errors = {}, [str(error)]
    empty = [] if card or errors else [{"message": "empty or missing yaml metadata in repo card"}]
    answer = {"errors": [{"message": error} for error in errors], "warnings": empty}
    return JSONResponse(answer, 400 if errors else 200)


def on_error(request: Request, error: Exception) -> Response:
    match error:
        case StoreError():
            status, code = STATUS.get(type(error), 404), CODES.get(type(error))
        case Refused():
            status, code = error.status, error.code
        case HTTPException():
            status, code = error.status_code, None
            if status == 404 and re.match(r"/api/(models|datasets)/[^/]+/|/[^/]+/resolve/", request.url.path):
                code = "RepoNotFound"  # a name without a namespace, of which this Hub has none
    message = getattr(error, "detail", str(error))
    headers = {"X-Error-Message": re.sub(r"[^ -~]", " ", message)}
    if code:
        headers["X-Error-Code"] = code
    if isinstance(error, EntryMissing):
        headers["X-Repo-Commit"] = error.commit
    return JSONResponse({"error": message}, status, headers)


class QuotedSlashes:
    """Routes by the segments as sent: a quoted slash inside one (`refs%2Fpr%2F1`) does not split it."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            segments = scope["raw_path"].decode("latin-1").split("/")
            scope["path"] = "/".join(unquote(segment).replace("/", QUOTED_SLASH) for segment in segments)
        await self.app(scope, receive, send)


API = "/api/{kind:kind}/{ns}/{name}"
ROUTES = [
    ("GET", "/api/whoami-v2", whoami),
    ("POST", "/api/validate-yaml", validate_yaml),
    ("POST", "/api/repos/create", create),
    ("DELETE", "/api/repos/delete", delete),
    ("GET", "/api/{kind:kind}", repos),
    ("GET", API, info),
    ("GET", API + "/revision/{rev}", info),
    ("GET", API + "/tree/{rev}", tree),
    ("GET", API + "/tree/{rev}/{path:path}", tree),
    ("POST", API + "/paths-info/{rev}", paths_info),
    ("GET", API + "/commits/{rev}", commits),
    ("GET", API + "/refs", refs),
    ("POST DELETE", API + "/branch/{rev}", branch),
    ("POST DELETE", API + "/tag/{rev}", tag),
    ("PUT", API + "/settings", settings),
    ("GET", API + "/auth-check", auth_check),
    ("GET", API + "/auth-check/write", auth_check),
    ("POST", API + "/preupload/{rev}", preupload),
    ("POST", API + "/commit/{rev}", commit),
    ("GET POST", API + "/discussions", discussions),
    ("GET", API + "/discussions/{num:int}", discussion_details),
    ("POST", "/{kind:kind}/{ns}/{name}.git/info/lfs/objects/batch", lfs_batch),
    ("POST", "/{ns}/{name}.git/info/lfs/objects/batch", lfs_batch),
    ("PUT", "/lfs/{kind:kind}/{ns}/{name}/{oid}", upload),
    ("GET", "/{kind:kind}/{ns}/{name}/resolve/{rev}/{path:path}", resolve),
    ("GET", "/{ns}/{name}/resolve/{rev}/{path:path}", resolve),
]


def build(store: Store, accounts: Accounts) -> QuotedSlashes:
    handlers = {StoreError: on_error, Refused: on_error, HTTPException: on_error}
    routes = [Route(path, endpoint, methods=methods.split()) for methods, path, endpoint in ROUTES]
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False
    app.state.store, app.state.accounts = store, accounts
    return QuotedSlashes(app)


def pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition(":")
    if not NAME.fullmatch(name) or not value:
        raise argparse.ArgumentTypeError("NAME:VALUE was expected")  # never the text: it may hold a token
    return name, value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="folder that keeps everything")
    parser.add_argument("--port", type=int, default=0, help="0, the default, picks a free one")
    text = "repeatable; demo:hf_local_demo if none is given"
    parser.add_argument("--user", type=pair, action="append", metavar="NAME:TOKEN", help=text)
    parser.add_argument("--org", type=pair, action="append", default=[], metavar="ORG:USER,USER")
    args = parser.parse_args()
    users = dict(args.user or [("demo", "hf_local_demo")])
    app = build(Store(args.root), Accounts(users, {name: members.split(",") for name, members in args.org}))
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, lambda *_: sys.exit(0))
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s")
    with socket.create_server(("127.0.0.1", args.port)) as listener:
        print(f"Hub at http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=3)).run([listener])


if __name__ == "__main__":
    main()
