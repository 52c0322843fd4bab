"""Clients of the local Hub, and a repo of one of them."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest
from huggingface_hub import (
    CommitOperationAdd,
    HfApi,
)
from huggingface_hub.errors import (
    HfHubHTTPError,
)
from support.hub import SESSION_USERS, Hub

WEIGHTS = b"\0\1\2\3" * 1000
NUMBERS = count()


@pytest.fixture
def api(hub: Hub) -> HfApi:
    return HfApi(endpoint=hub.url, token=hub.token)


@pytest.fixture
def other(hub: Hub) -> HfApi:
    return HfApi(endpoint=hub.url, token=SESSION_USERS["other"])


@pytest.fixture
def anyone(hub: Hub) -> HfApi:
    return HfApi(endpoint=hub.url, token=False)


@pytest.fixture
def repo(api: HfApi) -> str:
    return api.create_repo(f"demo/repo-{next(NUMBERS)}").repo_id


def commit(api: HfApi, repo: str, files: dict[str, bytes], **options) -> str:
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    return api.create_commit(repo, operations, commit_message="files", **options).oid


def content(api: HfApi, repo: str, path: str, revision: str = "main", **options) -> bytes:
    return Path(api.hf_hub_download(repo, path, revision=revision, **options)).read_bytes()


def status(error: pytest.ExceptionInfo[HfHubHTTPError]) -> int:
    return error.value.response.status_code
