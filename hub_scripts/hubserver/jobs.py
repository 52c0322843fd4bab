"""Jobs: what was asked for is kept, and nothing is run. A test that plays the machine rewrites the kept file.

ROOT/jobs/NAMESPACE/ID.json             the request, its secrets by whose token they are, and how far the job is
"""

import json
import secrets
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .access import known, owns
from .errors import BadRequest, Forbidden, HubError
from .records import NAME, now
from .wire import body, part

KNOWN = {
    "command",
    "arguments",
    "environment",
    "secrets",
    "flavor",
    "timeoutSeconds",
    "attempts",
    "labels",
    "volumes",
    "dockerImage",
    "spaceId",
}
"""What a request may say."""


async def submit(request: Request) -> Response:
    """Keep a job; no secret is written."""
    user, namespace, spec = known(request), _namespace(request), await body(request)
    if unknown := spec.keys() - KNOWN:
        raise BadRequest(f"Unknown fields of a job: {', '.join(sorted(unknown))}")
    if ("dockerImage" in spec) == ("spaceId" in spec):
        raise BadRequest("A job needs a dockerImage or a spaceId")
    command = spec.get("command")
    if not isinstance(command, list) or not command or not all(isinstance(word, str) for word in command):
        raise BadRequest("command must be an array of strings")
    if not isinstance(spec.get("flavor"), str):
        raise BadRequest("flavor must be a string")
    tokens = request.app.state.tokens
    job = {
        **spec,
        "id": secrets.token_hex(12),
        "createdAt": now(),
        "secrets": {name: tokens.get(value) for name, value in (spec.get("secrets") or {}).items()},
        "status": {"stage": "SCHEDULING", "message": None},
        "owner": {"id": namespace, "name": namespace, "type": "user" if namespace == user else "org"},
    }
    request.app.state.store.write(_file(request, namespace, job["id"]), json.dumps(job, indent=1).encode())
    return JSONResponse(job)


def inspect(request: Request) -> Response:
    """Answer with a job as its file is now."""
    known(request)
    namespace, id = _namespace(request), part(request, "id")
    file = _file(request, namespace, id)
    if not NAME.fullmatch(id) or not file.is_file():
        raise HubError("Job not found")
    return JSONResponse(json.loads(file.read_bytes()))


def _namespace(request: Request) -> str:
    namespace = part(request, "ns")
    if not NAME.fullmatch(namespace) or not owns(request, namespace):
        raise Forbidden(f"Forbidden: no rights to the jobs of {namespace}")
    return namespace


def _file(request: Request, namespace: str, id: str) -> Path:
    return request.app.state.store.root / "jobs" / namespace / f"{id}.json"
