"""Who asks, and which repositories they may see, read and write."""

from starlette.requests import Request

from .errors import Forbidden, Gated, RepoMissing, Unauthorized
from .store import Repo
from .wire import flag, part


def user(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if not scheme:
        return None
    if scheme.lower() != "bearer" or token not in request.app.state.tokens:
        raise Unauthorized("Invalid credentials in Authorization header")
    return request.app.state.tokens[token]


def known(request: Request) -> str:
    if (name := user(request)) is None:
        raise Unauthorized("Invalid username or password.")
    return name


def owns(request: Request, namespace: str) -> bool:
    name = user(request)
    return name is not None and (name == namespace or name in request.app.state.orgs.get(namespace, ()))


def visible(request: Request, repo: Repo) -> bool:
    return not repo.state.private or owns(request, repo.namespace)


def find(request: Request, kind: str, namespace: str, name: str) -> Repo:
    user(request)  # a wrong token is refused even where none is needed
    repo = request.app.state.store.repo(kind, namespace, name)
    if not visible(request, repo):
        raise RepoMissing("Repository not found")
    return repo


def open_repo(request: Request) -> Repo:
    return find(request, part(request, "kind", "models"), part(request, "ns"), part(request, "name"))


def open_files(request: Request) -> Repo:
    """The repository, if its user may read the files, which is what a gate guards."""
    repo = open_repo(request)
    if repo.state.gated and not owns(request, repo.namespace):
        text = f"Access to {repo.kind[:-1]} {repo.id} is restricted and you are not in the authorized list."
        raise Gated(f"{text} Visit {address(request, repo)} to ask for access.")
    return repo


def owned(request: Request, repo: Repo) -> Repo:
    if not owns(request, repo.namespace):
        raise Forbidden(f"Forbidden: {known(request)} has no write access to {repo.id}")
    return repo


def open_owned(request: Request) -> Repo:
    known(request)
    return owned(request, open_repo(request))


def open_for_commit(request: Request) -> Repo:
    """Owners write anywhere; who may read the files may open a pull request, and add to their own."""
    name, repo = known(request), open_files(request)
    own = {f"refs/pr/{pull['num']}" for pull in repo.state.discussions if pull["author"] == name}
    return repo if flag(request, "create_pr") or part(request, "rev") in own else owned(request, repo)


def address(request: Request, repo: Repo) -> str:
    return f"{request.base_url}{'datasets/' if repo.kind == 'datasets' else ''}{repo.id}"
