"""Commits and the uploads that go before them, LFS or not."""

import hashlib
import hmac
import secrets

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .access import address, known, open_files, open_for_commit
from .errors import BadRequest, Forbidden
from .records import LFS_SUFFIXES, SHA256, Change, Note, check_path
from .store import Repo
from .wire import body, decoded, flag, items, lines, part

MAX_REGULAR = 10 << 20
KEY = secrets.token_bytes(32)


async def preupload(request: Request) -> Response:
    repo, data = open_for_commit(request), await body(request)
    current = repo.at(part(request, "rev")).files
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
    known(request)
    repo, data = open_files(request), await body(request)
    return JSONResponse({"objects": [lfs_object(request, repo, wanted) for wanted in items(data, "objects")]})


def lfs_object(request: Request, repo: Repo, wanted: dict) -> dict:
    oid, size = wanted.get("oid"), wanted.get("size")
    if not isinstance(oid, str) or not SHA256.fullmatch(oid) or not isinstance(size, int):
        raise BadRequest("Every object needs a sha256 and a size")
    if repo.blob(oid).is_file():
        return {"oid": oid, "size": size}
    query = f"size={size}&ticket={ticket(repo, oid, str(size))}"
    href = f"{request.base_url}lfs/{repo.kind}/{repo.id}/{oid}?{query}"
    return {"oid": oid, "size": size, "actions": {"upload": {"href": href}}}


def ticket(repo: Repo, oid: str, size: str) -> str:
    """Signs the address of an LFS upload: clients PUT there without their token."""
    return hmac.new(KEY, f"{repo.kind}/{repo.id}/{oid}/{size}".encode(), hashlib.sha256).hexdigest()


async def upload(request: Request) -> Response:
    repo = request.app.state.store.repo(*(part(request, key) for key in ("kind", "ns", "name")))
    oid, query = part(request, "oid"), request.query_params
    expected = ticket(repo, oid, query.get("size", ""))
    if not hmac.compare_digest(expected.encode(), query.get("ticket", "").encode()):
        raise Forbidden("This upload address was not given out by this Hub")
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
    note = Note(str(header.get("summary", "")), str(header.get("description", "")), known(request))
    revision, parent, pull = part(request, "rev"), header.get("parentCommit"), None
    if flag(request, "create_pr"):
        num = repo.add_pull_request(repo.resolve(str(parent or revision)), changes, note)
        oid, pull = repo.resolve(f"refs/pr/{num}"), f"{address(request, repo)}/discussions/{num}"
    else:
        oid = repo.add_commit(repo.writable_ref(revision), changes, note, parent)
    url = f"{address(request, repo)}/commit/{oid}"
    return JSONResponse({"commitUrl": url, "commitOid": oid, "pullRequestUrl": pull})


def change_of(repo: Repo, line: dict) -> Change:
    match line:
        case {"key": "file", "value": {"path": path, "content": str(content)}}:
            data = decoded(path, content)
            if len(data) > MAX_REGULAR:
                raise BadRequest(f"{path} is larger than 10 MiB and must be sent as LFS")
            return Change(path, repo.add_regular(data))
        case {"key": "lfsFile", "value": {"path": path, "oid": oid}}:
            return Change(path, repo.lfs_entry(path, oid))
        case {"key": "deletedFile" | "deletedFolder" as key, "value": {"path": str(path)}}:
            return Change(path.rstrip("/"), folder=key == "deletedFolder")
    raise BadRequest(f"Unknown commit operation: {line.get('key')}")
