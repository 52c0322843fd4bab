"""One local Hub for the whole run, started before any client is imported, with a tiny world on it."""

import tempfile
from contextlib import ExitStack

import pytest
from support.hub import session_hub
from support.seldom import is_seldom

pytest_plugins = [f"support.{name}" for name in ("datasets", "deltas", "hub_clients", "papers", "ports", "refusals")]
_stack = ExitStack()
_hub = _stack.enter_context(session_hub())


LONGEST = ("test_docs.py", "test_devices.py", "test_fleet.py", "test_ranks.py")
"""Files that take minutes, and go first: a file stays in one process, and one that began last would be waited for."""


def pytest_addoption(parser):
    parser.addoption("--every", action="store_true", help="also the tests of support/seldom.py, and all faults")


def pytest_unconfigure(config):
    _stack.close()


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--every") and not any("::" in word for word in config.args):
        left = [item for item in items if is_seldom(item.nodeid)]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session", autouse=True)
def own_temporary_folder(tmp_path_factory):
    """What a failed push keeps goes with the other files of the run."""
    before, tempfile.tempdir = tempfile.tempdir, str(tmp_path_factory.mktemp("temporary"))
    yield
    tempfile.tempdir = before


@pytest.fixture(scope="session")
def every(request) -> bool:
    """Whether all is asked for, or what continuous integration has time for."""
    return request.config.getoption("--every")


@pytest.fixture(scope="session")
def hub():
    return _hub


@pytest.fixture(scope="session")
def world(hub, tmp_path_factory):
    """The tiny world's folders; on the Hub they are demo/base, demo/ft, demo/plus and the dataset demo/task."""
    from huggingface_hub import HfApi
    from support.world import write_world

    root = tmp_path_factory.mktemp("world")
    write_world(root)
    api = HfApi()
    for name in ("base", "ft", "plus", "task"):
        kind = "dataset" if name == "task" else "model"
        api.create_repo(f"demo/{name}", repo_type=kind)
        api.upload_folder(folder_path=root / name, repo_id=f"demo/{name}", repo_type=kind)
    return root
