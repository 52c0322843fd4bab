"""What a revision holds: files, trees, paths and history."""

from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from .access import open_files, open_repo
from .errors import EntryMissing
from .records import Commit, Entry, folders, git_oid
from .store import Repo
from .wire import flag, part


def resolve(request: Request) -> Response:
    """A file. LFS files are sent from here too, where the Hub would redirect to a CDN."""
    repo, path = open_files(request), part(request, "path")
    commit = repo.at(part(request, "rev"))
    entry = commit.files.get(path)
    if entry is None:
        raise EntryMissing(path, commit.oid)
    etag = f'"{entry.sha256 if entry.lfs else entry.oid}"'
    headers = {"X-Repo-Commit": commit.oid, "ETag": etag}
    if entry.lfs:
        headers |= {"X-Linked-Etag": etag, "X-Linked-Size": str(entry.size)}
    return FileResponse(repo.blob(entry.sha256), headers=headers)


def tree(request: Request) -> Response:
    repo = open_repo(request)
    commit = repo.at(part(request, "rev"))
    folder = part(request, "path").strip("/")
    inside = f"{folder}/" if folder else ""
    found = {path: entry for path, entry in everything(commit).items() if path.startswith(inside)}
    if folder and not found:
        raise EntryMissing(folder, commit.oid)
    if not flag(request, "recursive"):
        found = {path: entry for path, entry in found.items() if "/" not in path[len(inside) :]}
    return JSONResponse(rows(repo, commit, found, flag(request, "expand")))


async def paths_info(request: Request) -> Response:
    repo, data = open_repo(request), parse_qs((await request.body()).decode(errors="replace"))
    commit = repo.at(part(request, "rev"))
    known = everything(commit)
    found = {path: known[path] for path in data.get("paths", []) if path in known}
    return JSONResponse(rows(repo, commit, found, data.get("expand") == ["true"]))


def commits(request: Request) -> Response:
    repo = open_repo(request)
    out = []
    for commit in repo.history(repo.resolve(part(request, "rev"))):
        out.append({"id": commit.oid, "title": commit.title, "message": commit.description})
        out[-1] |= {"date": commit.date, "authors": [{"user": commit.author}]}
    return JSONResponse(out)


def everything(commit: Commit) -> dict[str, Entry | None]:
    """Path to file, or to None for a folder."""
    found: dict[str, Entry | None] = {}
    for path, entry in commit.files.items():
        found |= dict.fromkeys(folders(path))
        found[path] = entry
    return found


def rows(repo: Repo, commit: Commit, found: dict[str, Entry | None], expand: bool) -> list[dict]:
    last = last_commits(repo, commit, found.keys()) if expand else {}
    out = []
    for path, entry in found.items():
        row = {"type": "directory", "path": path, "size": 0, "oid": git_oid(f"{commit.oid}/{path}".encode())}
        if entry is not None:
            row |= {"type": "file", "size": entry.size, "oid": entry.oid, **lfs_info(entry)}
        if path in last:
            row["lastCommit"] = {"id": last[path].oid, "title": last[path].title, "date": last[path].date}
        out.append(row)
    return out


def lfs_info(entry: Entry) -> dict:
    """The digest under both names by which clients look for it."""
    lfs = {"oid": entry.sha256, "sha256": entry.sha256, "size": entry.size, "pointerSize": len(entry.pointer)}
    return {"lfs": lfs} if entry.lfs else {}


def last_commits(repo: Repo, commit: Commit, paths: set[str]) -> dict[str, Commit]:
    """For each path the newest commit that changed it or, for a folder, something in it."""
    found: dict[str, Commit] = {}
    for newer in repo.history(commit.oid):
        older = repo.commit(newer.parent).files if newer.parent else {}
        for name in newer.files.keys() | older.keys():
            if newer.files.get(name) != older.get(name):
                for path in (*folders(name), name):
                    found.setdefault(path, newer)
        if paths <= found.keys():
            break
    return found
