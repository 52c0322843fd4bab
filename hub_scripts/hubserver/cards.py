"""The metadata of a README: its YAML front matter."""

import json
import re

import yaml
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .errors import BadRequest
from .records import Commit
from .store import Repo
from .wire import body


def card_of(text: str) -> dict:
    """The metadata as plain JSON values."""
    block = re.match(r"\s*---[\r\n]+([\S\s]*?)[\r\n]+---(?:\r?\n|$)", text)
    try:
        value = (yaml.safe_load(block[1]) if block else None) or {}
    except yaml.YAMLError as error:
        raise BadRequest(f"Invalid YAML: {error}") from None
    if not isinstance(value, dict):
        raise BadRequest("The metadata must be a mapping")
    return json.loads(json.dumps(value, default=str), parse_constant=lambda _: None)


def check_card(card: dict) -> None:
    for key in ("base_model", "datasets", "metrics", "tags", "language"):
        if not all(isinstance(value, str) for value in _many(card, key)):
            raise BadRequest(f'"{key}" must be a string or an array of strings')
    for key in ("library_name", "pipeline_tag", "base_model_relation"):
        if not isinstance(card.get(key, ""), str):
            raise BadRequest(f'"{key}" must be a string')
    models = card.get("model-index", [])
    if not isinstance(models, list) or not all(isinstance(m, dict) and "results" in m for m in models):
        raise BadRequest('"model-index" must be an array of models with results')


def card_fields(repo: Repo, commit: Commit) -> dict:
    """What a card adds to the description of its repository."""
    try:
        card = card_of(repo.blob(commit.files["README.md"].sha256).read_text())
    except (KeyError, ValueError, BadRequest):
        return {"tags": []}
    tags = [str(tag) for key in ("library_name", "tags") for tag in _many(card, key)]
    tags += [f"{key}:{value}" for key in ("base_model", "license") for value in _many(card, key)]
    known = {key: card[key] for key in ("library_name", "pipeline_tag", "model-index") if key in card}
    return {"cardData": card, "tags": tags, **known}


def _many(card: dict, key: str) -> list:
    value = card.get(key)
    return value if isinstance(value, list) else [] if value is None else [value]


async def validate_yaml(request: Request) -> Response:
    text = str((await body(request)).get("content", ""))
    try:
        check_card(card_of(text))
    except BadRequest as error:
        return JSONResponse({"errors": [{"message": str(error)}], "warnings": []}, 400)
    return JSONResponse({"errors": [], "warnings": []})
