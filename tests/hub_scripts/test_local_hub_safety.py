"""The local Hub lets nothing in or out that it must not, and its process stops cleanly."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from huggingface_hub import (
    CommitOperationAdd,
    HfApi,
    get_session,
)
from huggingface_hub.errors import (
    BadRequestError,
    HfHubHTTPError,
)
from support.hub import SERVER, Hub, client_env, start_hub
from support.hub_clients import WEIGHTS, commit, content

BAD_PATHS = ["../x", "a/../../x", "/x", "a//x", "./x", ".git/config", "a\\..\\x", "a\0b", ""]


# what must not be let in


@pytest.mark.parametrize("path", BAD_PATHS)
@pytest.mark.parametrize("step", ["preupload", "file", "lfsFile"])
def test_a_path_out_of_the_repo_is_refused(hub: Hub, api: HfApi, repo: str, path: str, step: str) -> None:
    head = commit(api, repo, {"m.bin": WEIGHTS})
    before = {p for p in hub.root.parent.rglob("*") if p.name == "x"}
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    values = {"file": {"path": path, "content": "eA=="}, "lfsFile": {"path": path, "oid": sha256}}
    url, headers = f"{hub.url}/api/models/{repo}", {"Authorization": f"Bearer {hub.token}"}
    if step == "preupload":
        files = [{"path": path, "sample": "", "size": 0}]
        answer = get_session().post(f"{url}/preupload/main", headers=headers, json={"files": files})
    else:
        lines = [{"key": "header", "value": {"summary": "s"}}, {"key": step, "value": values[step]}]
        data = "\n".join(map(json.dumps, lines))
        answer = get_session().post(f"{url}/commit/main", headers=headers, content=data)
    assert answer.status_code == 400
    assert api.model_info(repo).sha == head
    assert {p for p in hub.root.parent.rglob("*") if p.name == "x"} == before


def test_reading_outside_of_the_repository_finds_nothing(hub: Hub, repo: str) -> None:
    for path in ("..%2F..%2Frepo.json", "%2e%2e/repo.json", "%2Fetc%2Fpasswd", "..%2Frepo.json"):
        answer = get_session().get(f"{hub.url}/{repo}/resolve/main/{path}")
        assert answer.status_code == 404
    for name in ("..%2F..%2Ftmp", "%2e%2e", "."):
        answer = get_session().get(f"{hub.url}/api/models/demo/{name}")
        assert answer.status_code == 404


def test_an_upload_with_another_sha256_is_refused(hub: Hub, api: HfApi, repo: str) -> None:
    operation = CommitOperationAdd("m.safetensors", WEIGHTS)
    operation.upload_info.sha256 = bytes(32)
    with pytest.raises(RuntimeError, match="uploading") as error:
        api.create_commit(repo, [operation], commit_message="wrong")
    assert status_of_cause(error.value) == 400
    assert api.list_repo_files(repo) == [".gitattributes"]
    assert not list(hub.root.rglob("0" * 64)) and not list((hub.root / "tmp").iterdir())


def status_of_cause(error: BaseException) -> int:
    return error.__cause__.response.status_code


def test_an_upload_address_is_good_for_one_object(hub: Hub, api: HfApi, other: HfApi, repo: str) -> None:
    objects = [{"oid": hashlib.sha256(b"x").hexdigest(), "size": 1}]
    url, headers = f"{hub.url}/{repo}.git/info/lfs/objects/batch", {"Authorization": f"Bearer {other.token}"}
    assert get_session().post(url, json={"objects": objects}).status_code == 401

    def ask() -> dict:
        return get_session().post(url, headers=headers, json={"objects": objects}).json()["objects"][0]

    found = ask()
    href = found["actions"]["upload"]["href"]
    assert get_session().put(href.replace("size=1", "size=2"), content=b"xx").status_code == 403
    longer = get_session().put(href, content=b"xx")
    assert longer.status_code == 400 and "announced" in longer.json()["error"]
    assert get_session().put(href, content=b"x").status_code == 200
    assert "actions" not in ask()


def test_a_commit_of_a_blob_never_uploaded_is_refused(api: HfApi, repo: str) -> None:
    operation = CommitOperationAdd("m.bin", WEIGHTS)
    api.preupload_lfs_files(repo, [operation])
    operation.upload_info.sha256 = bytes(32)
    with pytest.raises(BadRequestError, match="does not exist"):
        api.create_commit(repo, [operation], commit_message="m")


def test_a_file_cannot_be_a_folder(api: HfApi, repo: str) -> None:
    with pytest.raises(BadRequestError):
        commit(api, repo, {"a": b"1", "a/b": b"2"})


# the process


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Hub]:
    with start_hub(tmp_path / "hub") as hub:
        yield hub


def test_a_restart_keeps_everything(tmp_path: Path) -> None:
    seen = []
    for start in range(2):
        with start_hub(tmp_path / "hub") as hub:
            api = HfApi(endpoint=hub.url, token=hub.token)
            if start == 0:
                api.create_repo("demo/a", private=True)
                commit(api, "demo/a", {"a": b"1", "m.bin": WEIGHTS})
                commit(api, "demo/a", {"a": b"2"}, create_pr=True)
                api.create_tag("demo/a", tag="v1")
                api.update_repo_settings("demo/a", gated="auto")
            refs = api.list_repo_refs("demo/a", include_pull_requests=True)
            files = [(e.path, e.blob_id) for e in api.list_repo_tree("demo/a")]
            details = api.get_discussion_details("demo/a", 1)
            weights = content(api, "demo/a", "m.bin", local_dir=tmp_path / str(start))
            info = vars(api.model_info("demo/a"))
            seen.append((info, refs, files, details.diff, details.title, weights))
    [first, second] = seen
    assert first == second and first[-1] == WEIGHTS
    assert first[0]["private"] and first[0]["gated"] == "auto"


def test_no_token_is_written_anywhere(own: Hub, tmp_path: Path) -> None:
    script = (
        "from huggingface_hub import HfApi; a = HfApi(); a.create_repo('demo/a'); a.upload_file("
        "path_or_fileobj=b'\\0', path_in_repo='m.bin', repo_id='demo/a', create_pr=True)"
    )
    subprocess.run([sys.executable, "-c", script], env=client_env(own, tmp_path / "home"), check=True)
    with pytest.raises(HfHubHTTPError):
        HfApi(endpoint=own.url, token="hf_secret_guess").whoami()
    written = [own.log, *(p for p in own.root.rglob("*") if p.is_file())]
    assert "/commit/main" in own.log.read_text() and len(written) > 4
    for path in written:
        assert own.token.encode() not in path.read_bytes() and b"hf_secret_guess" not in path.read_bytes()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_cleanly_and_prints_one_line(tmp_path: Path, number: int) -> None:
    command = [sys.executable, str(SERVER), "--root", str(tmp_path / "hub"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        line = process.stdout.readline().decode()
        url = line.removeprefix("Hub at ").strip()
        assert HfApi(endpoint=url, token="hf_local_demo").whoami()["name"] == "demo"
        process.send_signal(number)
        assert process.stdout.read() == b"" and process.wait(10) == 0
    assert url.startswith("http://127.0.0.1:")


def test_a_large_upload_is_not_held_in_memory(own: Hub, tmp_path: Path) -> None:
    size = 192 << 20
    with open(tmp_path / "big.bin", "wb") as file:
        file.truncate(size)
    api = HfApi(endpoint=own.url, token=own.token)
    api.create_repo("demo/a")
    api.upload_file(path_or_fileobj=str(tmp_path / "big.bin"), path_in_repo="big.bin", repo_id="demo/a")
    status_file = Path(f"/proc/{own.process.pid}/status")
    if status_file.exists():
        peak = next(line for line in status_file.read_text().splitlines() if line.startswith("VmHWM"))
        assert int(peak.split()[1]) << 10 < size
    [found] = api.get_paths_info("demo/a", "big.bin")
    assert (own.root / "models/demo/a/blobs" / found.lfs.sha256).stat().st_size == size


def test_an_upload_cut_short_leaves_nothing(own: Hub) -> None:
    HfApi(endpoint=own.url, token=own.token).create_repo("demo/a")
    before = set(own.root.rglob("*"))
    url, headers = f"{own.url}/demo/a.git/info/lfs/objects/batch", {"Authorization": f"Bearer {own.token}"}
    objects = [{"oid": "1" * 64, "size": 1 << 20}]
    [found] = get_session().post(url, headers=headers, json={"objects": objects}).json()["objects"]

    def half() -> Iterator[bytes]:
        yield bytes(1 << 16)
        for _ in range(100):
            if any((own.root / "tmp").iterdir()):
                raise ConnectionError("gone")
            time.sleep(0.05)

    with pytest.raises(ConnectionError, match="gone"):
        get_session().put(found["actions"]["upload"]["href"], content=half())
    for _ in range(100):
        if set(own.root.rglob("*")) == before:
            return
        time.sleep(0.05)
    raise AssertionError("the upload left files behind")


def test_of_commits_at_once_on_one_parent_one_wins(hub: Hub, api: HfApi, repo: str) -> None:
    parent = api.model_info(repo).sha

    def attempt(number: int) -> int:
        try:
            commit(api, repo, {f"f{number}": b"1"}, parent_commit=parent)
        except HfHubHTTPError as error:
            return error.response.status_code
        return 200

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(attempt, range(8))) == [200] + [412] * 7
    assert len(api.list_repo_files(repo)) == 2


def test_the_store_lets_one_thread_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SERVER.parent)
    from hub_scripts.hubserver.store import MAIN, Change, Note, ParentMoved, Store

    repo = Store(tmp_path / "hub").create("models", "demo", "a", private=False, author="demo")
    parent, entry = repo.resolve("main"), repo.add_regular(b"1")
    note, start = Note("one", "", "demo"), Barrier(16)

    def attempt(number: int) -> bool:
        start.wait()
        try:
            repo.add_commit(MAIN, [Change(f"f{number}", entry)], note, parent)
        except ParentMoved:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(attempt, range(16))) == 1
