"""The kinds of faults of a Hub and a network, each a thing that the proxy of `support.faulty` does."""

from typing import Any

from support.faulty import Fault

STATUSES = (400, 401, 403, 404, 408, 409, 410, 412, 413, 416, 418)
STATUSES += (422, 423, 425, 429, 451, 500, 501, 502, 503, 504, 507)
HTML = b"<html><body><h1>Internal Server Error</h1>\n<p>nginx</p></body></html>"
JSON = {"a list": b"[]", "null": b"null", "a number": b"7", "a text": b'"text"', "an empty object": b"{}"}
JSON |= {"an empty body": b"", "cut JSON": b'{"sha": ["', "a list of numbers": b"[1, 2]"}
OTHER: dict[str, dict[str, Any]] = {
    "429 with a time to wait": {"what": "status", "status": 429, "headers": {"Retry-After": "3"}},
    "500 as a page": {"what": "status", "status": 500, "body": HTML, "headers": {"Content-Type": "text/html"}},
    "a page to log in": {"what": "login"},
    "no HTTP": {"what": "garbage"},
    "reset before": {"what": "reset"},
    "lost after": {"what": "lost"},
    "closed while idle": {"what": "idle"},
    "a body cut short": {"what": "cut"},
    "too long a Content-Length": {"what": "long"},
    "too short a Content-Length": {"what": "short"},
    "redirected to itself": {"what": "status", "status": 302, "headers": {"Location": "{path}"}},
    "redirected to another host": {"what": "status", "status": 302, "headers": {"Location": "{other}{path}"}},
    "no ETag": {"what": "changed", "headers": {"ETag": None, "X-Linked-Etag": None}},
    "another ETag": {"what": "changed", "headers": {"ETag": '"0123456789abcdef"', "X-Linked-Etag": None}},
    "no commit in the headers": {"what": "changed", "headers": {"X-Repo-Commit": None}},
    "another commit in the headers": {"what": "changed", "headers": {"X-Repo-Commit": "0" * 40}},
    "gzip that is none": {"what": "changed", "headers": {"Content-Encoding": "gzip"}},
    "no length": {"what": "changed", "headers": {"X-Linked-Size": None, "Content-Type": None}},
}
KINDS: dict[str, dict[str, Any]] = {
    **{f"status {status}": {"what": "status", "status": status, "body": b'{"error": "busy"}'} for status in STATUSES},
    **{f"{name} for JSON": {"what": "json", "body": body} for name, body in JSON.items()},
    **OTHER,
}
"""Name → what a fault of it is."""


def fault(kind: str, method: str, path: str, times: int, other: str) -> Fault:
    """A fault of a kind at some requests.

    Args:
        other: the address of another server.
    """
    made = dict(KINDS[kind])
    headers = {name: value and value.replace("{other}", other) for name, value in made.pop("headers", {}).items()}
    return Fault(method=method, path=path, times=times, headers=headers, **made)
