"""The local Hub for tests: `start_hub` starts one, `client_env` is for children, `session_hub` for pytest.

huggingface_hub and datasets read their environment once, when they are imported. So either a child process
gets `client_env`, or `session_hub` is entered before anything imports them (conftest.py), or an `HfApi` is
given `endpoint=` and `token=`.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

SERVER = Path(__file__).parents[2] / "hub_scripts" / "local_hub.py"
DEMO = {"demo": "hf_local_demo"}
SESSION_USERS = {**DEMO, "other": "hf_local_other", "visitor": "mock-oauth-token-for-local-dev"}
"""The last is who Gradio logs in outside a Space."""
SESSION_ORGS = {"lab": ("demo",), "org": ("demo",)}


@dataclass(frozen=True)
class Hub:
    """A running Hub; `token` is that of its first user."""

    url: str
    token: str
    root: Path
    log: Path
    process: subprocess.Popen


@contextmanager
def start_hub(
    root: Path,
    *,
    users: Mapping[str, str] = DEMO,
    orgs: Mapping[str, Sequence[str]] | None = None,
    port: int = 0,
) -> Iterator[Hub]:
    """Serve `root` until the end of the `with`. The log is kept next to the root, never in it."""
    root, log = Path(root), Path(f"{root}.log")
    root.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(SERVER), "--root", str(root), "--port", str(port)]
    command += [f"--user={name}:{token}" for name, token in users.items()]
    command += [f"--org={name}:{','.join(members)}" for name, members in (orgs or {}).items()]
    with open(log, "ab") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr)
    with process:
        try:
            yield Hub(_address(process, log), next(iter(users.values())), root, log, process)
        finally:
            _stop(process)


def _address(process: subprocess.Popen, log: Path, seconds: float = 60) -> str:
    ready, _, _ = select.select([process.stdout], [], [], seconds)
    line = process.stdout.readline().decode() if ready else ""
    if not line.startswith("Hub at "):
        raise RuntimeError(f"The local Hub did not start: {line!r}\n{log.read_text()[-2000:]}")
    return line.removeprefix("Hub at ").strip()


def _stop(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()


def client_env(hub: Hub, home: Path, *, token: str | None = None) -> dict[str, str]:
    """The environment of a child process that uses this Hub, and none of the developer's own HF settings."""
    own = ("HF_", "HUGGING", "TRANSFORMERS_", "DATASETS_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    return env | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_TOKEN": hub.token if token is None else token,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


@contextmanager
def session_hub() -> Iterator[Hub]:
    """One Hub for this whole process, told to it by `os.environ`. Enter before any client is imported."""
    early = sorted({"huggingface_hub", "datasets"} & sys.modules.keys())
    if early:
        raise RuntimeError(f"{early} imported before the local Hub started: they would talk to the real Hub")
    before = dict(os.environ)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="local-hub-")))
        hub = stack.enter_context(start_hub(folder / "hub", users=SESSION_USERS, orgs=SESSION_ORGS))
        stack.callback(_set_environ, before)
        _set_environ(client_env(hub, folder / "home"))
        from hf_bico.io.patience import be_patient

        be_patient()  # what the tests themselves ask the Hub is asked again too, where it closed a connection
        yield hub


def _set_environ(values: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(values)
