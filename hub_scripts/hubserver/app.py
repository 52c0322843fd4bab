"""The application: which request goes where, and how a refusal is told."""

import re
from collections.abc import Callable
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from . import cards, commits, files, jobs, pages, refs, repos
from .errors import EntryMissing, HubError, RepoMissing
from .store import Store
from .wire import QUOTED_SLASH


class KindConvertor(StringConvertor):
    regex = "models|datasets"


class OwnerConvertor(StringConvertor):
    regex = "(?!(?:api|datasets|lfs|models|spaces)/)[^/]+"


register_url_convertor("kind", KindConvertor())
register_url_convertor("owner", OwnerConvertor())

REPO = "/api/{kind:kind}/{ns}/{name}"
ROUTES = [
    ("GET", "/api/whoami-v2", repos.whoami),
    ("POST", "/api/validate-yaml", cards.validate_yaml),
    ("POST", "/api/repos/create", repos.create),
    ("DELETE", "/api/repos/delete", repos.delete),
    ("GET", "/api/{kind:kind}", repos.repos),
    ("GET", REPO, repos.info),
    ("GET", REPO + "/revision/{rev}", repos.info),
    ("PUT", REPO + "/settings", repos.settings),
    ("GET", REPO + "/auth-check", repos.auth_check),
    ("GET", REPO + "/tree/{rev}", files.tree),
    ("GET", REPO + "/tree/{rev}/{path:path}", files.tree),
    ("POST", REPO + "/paths-info/{rev}", files.paths_info),
    ("GET", REPO + "/commits/{rev}", files.commits),
    ("GET", "/{kind:kind}/{ns}/{name}/resolve/{rev}/{path:path}", files.resolve),
    ("GET", "/{ns}/{name}/resolve/{rev}/{path:path}", files.resolve),
    ("GET", REPO + "/refs", refs.refs),
    ("POST DELETE", REPO + "/branch/{rev}", refs.branch),
    ("POST DELETE", REPO + "/tag/{rev}", refs.tag),
    ("GET", REPO + "/discussions", refs.pulls),
    ("POST", REPO + "/discussions", refs.open_pull),
    ("GET", REPO + "/discussions/{num:int}", refs.pull_details),
    ("POST", REPO + "/preupload/{rev}", commits.preupload),
    ("POST", REPO + "/commit/{rev}", commits.commit),
    ("POST", "/{kind:kind}/{ns}/{name}.git/info/lfs/objects/batch", commits.lfs_batch),
    ("POST", "/{ns}/{name}.git/info/lfs/objects/batch", commits.lfs_batch),
    ("POST", "/api/jobs/{ns}", jobs.submit),
    ("GET", "/api/jobs/{ns}/{id}", jobs.inspect),
    ("PUT", "/lfs/{kind:kind}/{ns}/{name}/{oid}", commits.upload),
    ("GET", "/{kind:kind}/{ns}/{name}", pages.repo_page),
    ("GET", "/{ns:owner}/{name}", pages.repo_page),
]


def quoted_slashes(app: Starlette) -> Callable:
    """Routes by the segments as sent: a quoted slash inside one (`refs%2Fpr%2F1`) does not split it."""

    async def routed(scope, receive, send) -> None:
        if scope["type"] == "http":
            segments = scope["raw_path"].decode("latin-1").split("/")
            scope["path"] = "/".join(unquote(segment).replace("/", QUOTED_SLASH) for segment in segments)
        await app(scope, receive, send)

    return routed


def refused(request: Request, error: HubError) -> Response:
    headers = {"X-Error-Message": re.sub(r"[^ -~]", " ", str(error))}
    if error.code:
        headers["X-Error-Code"] = error.code
    if isinstance(error, EntryMissing):
        headers["X-Repo-Commit"] = error.commit
    return JSONResponse({"error": str(error)}, error.status, headers)


def unrouted(request: Request, _: Exception) -> Response:
    """Repositories without a namespace have no route: of those this Hub has none."""
    repo = re.match(r"/api/(models|datasets)/|/[^/]+/resolve/", request.url.path)
    return refused(request, RepoMissing("Repository not found") if repo else HubError("Not Found"))


def build(store: Store, users: dict[str, str], orgs: dict[str, list[str]]) -> Callable:
    """The application; `users` are names and tokens, `orgs` names and members."""
    routes = [Route(path, endpoint, methods=methods.split()) for methods, path, endpoint in ROUTES]
    app = Starlette(routes=routes, exception_handlers={HubError: refused, 404: unrouted})
    app.router.redirect_slashes = False
    app.state.store, app.state.orgs = store, orgs
    app.state.tokens = {token: name for name, token in users.items()}
    return quoted_slashes(app)
