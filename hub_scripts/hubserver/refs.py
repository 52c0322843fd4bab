"""Branches, tags and pull requests, which are all the discussions that there are here."""

import difflib
from itertools import takewhile

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .access import known, open_owned, open_repo
from .errors import BadRequest, HubError
from .records import MAIN, Commit, Entry, Note
from .store import Repo
from .wire import body, part


def refs(request: Request) -> Response:
    out: dict[str, list] = {"heads": [], "tags": [], "pr": []}
    for ref, oid in open_repo(request).state.refs.items():
        _, group, name = ref.split("/", 2)
        out[group].append({"name": ref if group == "pr" else name, "ref": ref, "targetCommit": oid})
    named = {"branches": out["heads"], "tags": out["tags"], "pullRequests": out["pr"]}
    return JSONResponse({**named, "converts": []})


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


def pulls(request: Request) -> Response:
    repo = open_repo(request)
    found = [described(repo, pull) for pull in reversed(repo.state.discussions)]
    return JSONResponse({"discussions": found, "count": len(found), "start": 0})


async def open_pull(request: Request) -> Response:
    repo, user, data = open_repo(request), known(request), await body(request)
    if not data.get("pullRequest"):
        raise BadRequest("This Hub has no discussions but pull requests")
    note = Note(str(data.get("title", "")), str(data.get("description", "")), user)
    return JSONResponse({"num": repo.add_pull_request(repo.resolve("main"), [], note)})


def pull_details(request: Request) -> Response:
    repo, num = open_repo(request), request.path_params["num"]
    if not 0 < num <= len(repo.state.discussions):
        raise HubError(f"There is no pull request {num}")
    pull = repo.state.discussions[num - 1]
    old, new = repo.commit(pull["base"]), repo.at(f"refs/pr/{num}")
    out = described(repo, pull) | {"changes": {"base": MAIN}, "filesWithConflicts": []}
    return JSONResponse({**out, "events": events(repo, pull, new), "diff": difference(repo, old, new)})


def described(repo: Repo, pull: dict) -> dict:
    status = "draft" if repo.resolve(f"refs/pr/{pull['num']}") == pull["base"] else "open"
    out = {"num": pull["num"], "title": pull["title"], "status": status, "isPullRequest": True}
    out |= {"createdAt": pull["date"], "author": {"name": pull["author"]}}
    return {**out, "repo": {"name": repo.id, "type": repo.kind[:-1]}}


def events(repo: Repo, pull: dict, head: Commit) -> list[dict]:
    """The text that opened a pull request and the commits on it, oldest first."""
    comment = {"id": f"pr-{pull['num']}", "type": "comment", "createdAt": pull["date"]}
    comment["author"] = {"name": pull["author"]}
    comment["data"] = {"edited": False, "hidden": False, "latest": {"raw": pull["text"]}}
    made = []
    for commit in takewhile(lambda commit: commit.oid != pull["base"], repo.history(head.oid)):
        made.append({"id": commit.oid, "type": "commit", "createdAt": commit.date})
        made[-1] |= {"author": {"name": commit.author}, "data": {"subject": commit.title, "oid": commit.oid}}
    return [comment, *reversed(made)]


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
