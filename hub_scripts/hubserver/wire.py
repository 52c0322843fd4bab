"""Reading requests: parts of the address, JSON bodies, and commits line by line."""

import base64
import binascii
import json
from collections.abc import AsyncIterator

from starlette.requests import Request

from .errors import BadRequest

QUOTED_SLASH = "\x1f"


def part(request: Request, name: str, default: str = "") -> str:
    return request.path_params.get(name, default).replace(QUOTED_SLASH, "/")


def flag(request: Request, name: str) -> bool:
    return request.query_params.get(name, "").lower() in ("1", "true")


async def body(request: Request) -> dict:
    return parsed(await request.body() or b"{}")


async def lines(request: Request) -> AsyncIterator[dict]:
    rest = bytearray()
    async for chunk in request.stream():
        *ends, tail = chunk.split(b"\n")
        for end in ends:
            yield parsed(bytes(rest + end))
            rest.clear()
        rest += tail
    if rest:
        yield parsed(bytes(rest))


def parsed(text: bytes) -> dict:
    try:
        value = json.loads(text)
    except ValueError:
        raise BadRequest("Malformed JSON") from None
    if not isinstance(value, dict):
        raise BadRequest("A JSON object was expected")
    return value


def items(data: dict, key: str) -> list[dict]:
    value = data.get(key)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise BadRequest(f"{key} must be an array of objects")
    return value


def decoded(path: object, text: object) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise BadRequest(f"{path} is not in base64") from None
