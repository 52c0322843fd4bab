"""Users and repositories: who am I, create, delete, list, describe, settings."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .access import address, find, known, open_files, open_owned, open_repo, owned, owns, visible
from .cards import card_fields
from .errors import BadRequest, Conflict, Forbidden
from .files import lfs_info
from .records import Commit
from .store import Repo
from .wire import body, flag, part


def whoami(request: Request) -> Response:
    orgs = [{"name": name} for name in request.app.state.orgs if owns(request, name)]
    name = known(request)
    picture = f"{request.base_url}avatars/{name}.svg"
    return JSONResponse({"type": "user", "name": name, "fullname": name, "avatarUrl": picture, "orgs": orgs})


async def create(request: Request) -> Response:
    store, user, data = request.app.state.store, known(request), await body(request)
    kind, namespace, name = _named(data, user)
    if not owns(request, namespace):
        raise Forbidden(f"{user} has no rights to create a {kind[:-1]} under the namespace {namespace}")
    private = data.get("visibility") == "private"
    try:
        repo = store.create(kind, namespace, name, private=private, author=user)
    except Conflict as error:
        repo = store.repo(kind, namespace, name)
        return JSONResponse({"error": str(error), "url": address(request, repo)}, 409)
    return JSONResponse({"url": address(request, repo)})


async def delete(request: Request) -> Response:
    user = known(request)
    repo = find(request, *_named(await body(request), user))
    request.app.state.store.delete(owned(request, repo))
    return JSONResponse({})


def _named(data: dict, user: str) -> tuple[str, str, str]:
    """Kind, namespace and name."""
    return f"{data.get('type') or 'model'}s", str(data.get("organization") or user), str(data.get("name"))


def repos(request: Request) -> Response:
    """List those of an author, or with a text in their names, if that is asked for."""
    store, author = request.app.state.store, request.query_params.get("author")
    text = request.query_params.get("search", "").lower()
    seen = [repo for repo in store.repos(part(request, "kind")) if visible(request, repo)]
    found = [repo for repo in seen if author in (None, repo.namespace) and text in repo.id.lower()]
    return JSONResponse([summary(repo, repo.at("main")) for repo in found])


def info(request: Request) -> Response:
    repo = open_repo(request)
    return JSONResponse(summary(repo, repo.at(part(request, "rev", "main")), flag(request, "blobs")))


def summary(repo: Repo, commit: Commit, blobs: bool = False) -> dict:
    siblings = []
    for path, entry in commit.files.items():
        details = {"size": entry.size, "blobId": entry.oid, **lfs_info(entry)} if blobs else {}
        siblings.append({"rfilename": path, **details})
    out = {"id": repo.id, "author": repo.namespace, "sha": commit.oid, "siblings": siblings}
    out |= {"lastModified": commit.date, "createdAt": repo.state.created}
    return out | {"private": repo.state.private, "gated": repo.state.gated, **card_fields(repo, commit)}


async def settings(request: Request) -> Response:
    repo, data = open_owned(request), await body(request)
    gated = data.get("gated", repo.state.gated)
    visibility = data.get("visibility", "private" if repo.state.private else "public")
    if gated not in ("auto", "manual", False) or visibility not in ("public", "private"):
        raise BadRequest("gated must be auto, manual or false, visibility public or private")
    repo.update(gated=gated, private=visibility == "private")
    return JSONResponse({})


def auth_check(request: Request) -> Response:
    open_files(request)
    return JSONResponse({})
