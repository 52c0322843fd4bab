"""The local Hub as its real clients see it: they can do here what they can there, and are refused alike."""

from __future__ import annotations

import hashlib
import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path
from threading import Barrier

import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    HfFileSystem,
    ModelCard,
    get_session,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from support.hub import SERVER, SESSION_ORGS, SESSION_USERS, Hub, client_env, start_hub

WEIGHTS = b"\0\1\2\3" * 1000
NUMBERS = count()
BAD_PATHS = ["../x", "a/../../x", "/x", "a//x", "./x", ".git/config", "a\\..\\x", "a\0b", ""]


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


# repositories and commits


def test_files_come_back_as_they_went_in(api: HfApi, repo: str) -> None:
    files = {"config.json": b"{}", "sub/x y+ü%.txt": b"text", "model.safetensors": WEIGHTS, "empty.txt": b""}
    oid = commit(api, repo, files)
    info = api.model_info(repo, files_metadata=True)
    assert info.sha == oid
    assert {s.rfilename for s in info.siblings} == {*files, ".gitattributes"}
    assert [s.rfilename for s in info.siblings if s.lfs] == ["model.safetensors"]
    folder = Path(snapshot_download(repo, revision=oid))
    assert folder.name == oid
    assert {p: (folder / p).read_bytes() for p in files} == files
    assert all(content(api, repo, path, oid) == data for path, data in files.items())


def test_a_repository_is_created_once(api: HfApi, repo: str) -> None:
    with pytest.raises(HfHubHTTPError) as error:
        api.create_repo(repo)
    assert status(error) == 409
    assert api.create_repo(repo, exist_ok=True).repo_id == repo
    assert [c.title for c in api.list_repo_commits(repo)] == ["initial commit"]


def test_models_and_datasets_are_apart(api: HfApi, repo: str) -> None:
    with pytest.raises(RepositoryNotFoundError):
        api.dataset_info(repo)
    api.create_repo(repo, repo_type="dataset")
    commit(api, repo, {"d.csv": b"a\n1\n"}, repo_type="dataset")
    assert content(api, repo, "d.csv", repo_type="dataset") == b"a\n1\n"
    assert not api.file_exists(repo, "d.csv")


def test_a_parent_that_moved_on_is_412(api: HfApi, repo: str) -> None:
    start = api.model_info(repo).sha
    head = commit(api, repo, {"a": b"1"}, parent_commit=start)
    with pytest.raises(HfHubHTTPError) as error:
        commit(api, repo, {"a": b"2"}, parent_commit=start)
    assert status(error) == 412
    assert api.model_info(repo).sha == head
    assert content(api, repo, "a") == b"1"


def test_old_commits_stay_readable(api: HfApi, repo: str) -> None:
    first, second = (commit(api, repo, {"a": data}) for data in (b"1", b"2"))
    third = commit(api, repo, {"b": b"3"})
    assert (content(api, repo, "a", first), content(api, repo, "a", second)) == (b"1", b"2")
    assert [c.commit_id for c in api.list_repo_commits(repo)][:3] == [third, second, first]
    entries = {e.path: e for e in api.list_repo_tree(repo, expand=True)}
    assert (entries["a"].last_commit.oid, entries["b"].last_commit.oid) == (second, third)


def test_the_same_content_makes_no_commit(api: HfApi, repo: str) -> None:
    files = {"a.txt": b"1", "m.safetensors": WEIGHTS}
    assert commit(api, repo, files) == commit(api, repo, files)


def test_deletions(api: HfApi, repo: str) -> None:
    commit(api, repo, {"a": b"1", "d/x": b"1", "d/y": b"1", "dx": b"1"})
    gone = [CommitOperationDelete("a"), CommitOperationDelete("d/")]
    api.create_commit(repo, gone, commit_message="less")
    assert set(api.list_repo_files(repo)) == {".gitattributes", "dx"}
    with pytest.raises(EntryNotFoundError):
        api.delete_file("a", repo)


def test_tree_and_paths_info(api: HfApi, repo: str) -> None:
    commit(api, repo, {"a": b"1", "d/e/x": b"22", "d/m.bin": WEIGHTS})
    names = [entry.path for entry in api.list_repo_tree(repo, recursive=True)]
    assert sorted(names) == [".gitattributes", "a", "d", "d/e", "d/e/x", "d/m.bin"]
    assert {entry.path for entry in api.list_repo_tree(repo, "d")} == {"d/e", "d/m.bin"}
    assert [e.path for e in api.list_repo_tree(repo, "d/e")] == ["d/e/x"]
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree(repo, "none"))
    found = api.get_paths_info(repo, ["d/m.bin", "none", "d"], expand=True)
    assert {e.path: getattr(e, "size", None) for e in found} == {"d/m.bin": 4000, "d": None}
    assert found[0].lfs.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert found[0].last_commit.title == "files"


# revisions and pull requests


def test_branches_and_tags(api: HfApi, repo: str) -> None:
    start = commit(api, repo, {"a": b"1"})
    api.create_tag(repo, tag="v1.0")
    api.create_branch(repo, branch="dev/x")
    head = commit(api, repo, {"a": b"2"}, revision="dev/x")
    refs = api.list_repo_refs(repo)
    assert {r.name: r.target_commit for r in refs.branches} == {"main": start, "dev/x": head}
    assert {r.name: r.target_commit for r in refs.tags} == {"v1.0": start}
    names = {"main": b"1", "refs/heads/main": b"1", "v1.0": b"1", start: b"1"}
    names |= {"dev/x": b"2", "refs/heads/dev/x": b"2", head: b"2"}
    assert {name: content(api, repo, "a", name) for name in names} == names
    with pytest.raises(HfHubHTTPError) as error:
        api.create_branch(repo, branch="dev/x")
    assert status(error) == 409
    with pytest.raises(BadRequestError):
        commit(api, repo, {"a": b"3"}, revision="v1.0")
    api.delete_branch(repo, branch="dev/x")
    api.delete_tag(repo, tag="v1.0")
    for gone in ("dev/x", "v1.0"):
        with pytest.raises(RevisionNotFoundError):
            api.model_info(repo, revision=gone)


def test_a_pull_request_leaves_main_alone(api: HfApi, other: HfApi, repo: str) -> None:
    head = commit(api, repo, {"a": b"1"})
    operations = [CommitOperationAdd("a", b"2\n"), CommitOperationAdd("m.safetensors", WEIGHTS)]
    opened = other.create_commit(repo, operations, commit_message="Better", create_pr=True)
    assert (opened.pr_num, opened.pr_revision) == (1, "refs/pr/1")
    assert api.model_info(repo).sha == head
    assert api.model_info(repo, revision="refs/pr/1").sha == opened.oid
    assert content(api, repo, "a") == b"1"
    assert content(api, repo, "a", "refs/pr/1") == b"2\n"
    assert content(api, repo, "m.safetensors", "refs/pr/1") == WEIGHTS
    refs = api.list_repo_refs(repo, include_pull_requests=True).pull_requests
    assert [(r.ref, r.target_commit) for r in refs] == [("refs/pr/1", opened.oid)]
    details = api.get_discussion_details(repo, 1)
    assert (details.title, details.author, details.status) == ("Better", "other", "open")
    assert details.is_pull_request and details.target_branch == "refs/heads/main"
    assert [e.type for e in details.events] == ["comment", "commit"]
    assert "-1" in details.diff and "+2" in details.diff and "+size 4000" in details.diff


def test_a_pull_request_takes_more_commits_from_its_author_only(api: HfApi, other: HfApi, repo: str) -> None:
    api.create_pull_request(repo, "by the owner")
    other.create_pull_request(repo, "by another")
    assert [d.num for d in api.get_repo_discussions(repo)] == [2, 1]
    assert api.get_discussion_details(repo, 2).status == "draft"
    oid = commit(other, repo, {"a": b"1"}, revision="refs/pr/2")
    assert api.model_info(repo, revision="refs/pr/2").sha == oid
    assert api.get_discussion_details(repo, 2).status == "open"
    for refused in ("refs/pr/1", "main"):
        with pytest.raises(HfHubHTTPError) as error:
            commit(other, repo, {"a": b"1"}, revision=refused)
        assert status(error) == 403


def test_a_pull_request_starts_from_the_parent_given(api: HfApi, repo: str) -> None:
    old = commit(api, repo, {"a": b"1"})
    commit(api, repo, {"b": b"1"})
    commit(api, repo, {"c": b"1"}, parent_commit=old, create_pr=True)
    assert set(api.list_repo_files(repo, revision="refs/pr/1")) == {".gitattributes", "a", "c"}


# who may


def test_whoami(api: HfApi, hub: Hub) -> None:
    me = api.whoami()
    assert (me["name"], [org["name"] for org in me["orgs"]]) == ("demo", list(SESSION_ORGS))
    with pytest.raises(HfHubHTTPError) as error:
        HfApi(endpoint=hub.url, token="hf_wrong").whoami()
    assert status(error) == 401


def test_writing_needs_the_owners_token(hub: Hub, other: HfApi, anyone: HfApi, repo: str) -> None:
    for client, expected in ((other, 403), (anyone, 401), (HfApi(endpoint=hub.url, token="hf_wrong"), 401)):
        attempts = (
            partial(commit, client, repo, {"a": b"1"}),
            partial(client.create_repo, "demo/mine"),
            partial(client.delete_repo, repo),
            partial(client.create_tag, repo, tag="t"),
            partial(client.create_branch, repo, branch="b"),
            partial(client.update_repo_settings, repo, gated="auto"),
        )
        for attempt in attempts:
            with pytest.raises(HfHubHTTPError) as error:
                attempt()
            assert status(error) == expected
    assert anyone.model_info(repo).gated is False


def test_an_organisation_belongs_to_its_members(api: HfApi, other: HfApi) -> None:
    repo = f"lab/repo-{next(NUMBERS)}"
    with pytest.raises(HfHubHTTPError) as error:
        other.create_repo(repo)
    assert status(error) == 403
    api.create_repo(repo)
    commit(api, repo, {"a": b"1"})
    assert content(other, repo, "a") == b"1"


def test_a_private_repository_does_not_exist_for_others(api: HfApi, other: HfApi, anyone: HfApi) -> None:
    repo = api.create_repo(f"demo/repo-{next(NUMBERS)}", private=True).repo_id
    commit(api, repo, {"a": b"1"})
    assert api.model_info(repo).private and content(api, repo, "a") == b"1"
    for client in (other, anyone):
        download = partial(client.hf_hub_download, filename="b")
        for attempt in (client.model_info, client.list_repo_files, download):
            with pytest.raises(RepositoryNotFoundError) as error:
                attempt(repo)
            assert status(error) == 404
        assert repo not in [m.id for m in client.list_models(author="demo")]
    with pytest.raises(RepositoryNotFoundError):
        commit(other, repo, {"a": b"1"}, create_pr=True)
    api.update_repo_settings(repo, private=False)
    assert content(anyone, repo, "a") == b"1"


def test_a_gate_guards_the_files(api: HfApi, other: HfApi, anyone: HfApi, repo: str) -> None:
    commit(api, repo, {"a": b"1", "b": b"2"})
    api.update_repo_settings(repo, gated="manual")
    assert content(api, repo, "a") == b"1"
    for client in (other, anyone):
        assert client.model_info(repo).gated == "manual"
        for attempt in (client.auth_check, partial(client.hf_hub_download, filename="b")):
            with pytest.raises(GatedRepoError, match="ask for access") as error:
                attempt(repo)
            assert status(error) == 403


def test_what_is_missing_has_its_own_error(api: HfApi, repo: str) -> None:
    with pytest.raises(RepositoryNotFoundError) as missing:
        api.model_info("demo/none")
    assert status(missing) == 404
    for unknown in ("demo/none", "none"):
        with pytest.raises(RepositoryNotFoundError):
            hf_hub_download(unknown, "a")
    for revision in ("none", "0" * 40, "refs/pr/9"):
        with pytest.raises(RevisionNotFoundError):
            hf_hub_download(repo, "a", revision=revision)
    with pytest.raises(EntryNotFoundError) as error:
        hf_hub_download(repo, "none")
    assert error.value.response.headers["X-Repo-Commit"] == api.model_info(repo).sha


def test_delete(api: HfApi, repo: str) -> None:
    commit(api, repo, {"a": b"1"})
    api.delete_repo(repo)
    assert not api.repo_exists(repo)
    api.create_repo(repo)
    assert api.list_repo_files(repo) == [".gitattributes"]


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


# other clients


def test_ranges(hub: Hub, api: HfApi, repo: str) -> None:
    data = bytes(range(256)) * 40
    commit(api, repo, {"m.bin": data})
    fs = HfFileSystem(endpoint=hub.url, token=hub.token)
    with fs.open(f"{repo}/m.bin", block_size=64) as file:
        file.seek(1000)
        assert file.read(100) == data[1000:1100]
    assert fs.cat_file(f"{repo}/m.bin", start=5, end=9) == data[5:9]
    assert fs.ls(repo, detail=False) == [f"{repo}/.gitattributes", f"{repo}/m.bin"]
    url = f"{hub.url}/{repo}/resolve/main/m.bin"
    answer = get_session().get(url, headers={"Range": "bytes=3-5"})
    assert (answer.status_code, answer.content) == (206, data[3:6])
    assert answer.headers["Content-Range"] == f"bytes 3-5/{len(data)}"
    assert get_session().get(url, headers={"Range": "bytes=99999-"}).status_code == 416
    head = get_session().head(url).headers
    assert head["X-Linked-Size"] == head["Content-Length"] == str(len(data))
    assert head["X-Linked-Etag"] == f'"{hashlib.sha256(data).hexdigest()}"'


def test_cards(api: HfApi, repo: str) -> None:
    meta = "license: mit\nbase_model: demo/base\nmodel-index:\n- name: m\n  results: []\n"
    card = ModelCard(f"---\n{meta}---\n# Hello\n")
    card.validate()
    card.push_to_hub(repo, token=api.token)
    assert ModelCard.load(repo).data.base_model == "demo/base"
    info = api.model_info(repo)
    assert info.card_data.license == "mit" and {"license:mit", "base_model:demo/base"} <= set(info.tags)
    for bad in ("---\na: [\n---\n", "---\nbase_model: 3\n---\n"):
        with pytest.raises(ValueError, match="metadata"):
            commit(api, repo, {"README.md": bad.encode()})


def test_a_dataset_pushed_is_the_dataset_loaded(api: HfApi, hub: Hub) -> None:
    from datasets import Dataset, load_dataset

    repo, rows = f"demo/data-{next(NUMBERS)}", {"x": list(range(50)), "y": [str(i) for i in range(50)]}
    pushed = Dataset.from_dict(rows).push_to_hub(repo, token=hub.token, num_shards=3)
    assert pushed.oid == api.dataset_info(repo).sha
    assert load_dataset(repo, split="train").to_dict() == rows
    assert load_dataset(repo, split="train", revision=pushed.oid).to_dict() == rows
    streamed = load_dataset(repo, split="train", streaming=True)
    assert [row["x"] for row in streamed] == rows["x"]


def test_an_image_folder(api: HfApi) -> None:
    from datasets import load_dataset
    from PIL import Image

    repo = api.create_repo(f"demo/images-{next(NUMBERS)}", repo_type="dataset").repo_id
    files = {}
    for label, shade in (("cat", 10), ("dog", 200)):
        Image.new("RGB", (4, 4), (shade,) * 3).save(buffer := io.BytesIO(), "png")
        files[f"train/{label}/0.png"] = buffer.getvalue()
    commit(api, repo, files, repo_type="dataset")
    for streaming in (False, True):
        found = list(load_dataset(repo, split="train", streaming=streaming))
        assert [(row["label"], row["image"].getpixel((0, 0))[0]) for row in found] == [(0, 10), (1, 200)]


def test_open_clip(api: HfApi, repo: str) -> None:
    import open_clip
    import torch
    from safetensors.torch import save

    towers = {
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 64, "patch_size": 8},
        "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
    }
    config = {"model_cfg": {"embed_dim": 8, **towers}, "preprocess_cfg": {}}
    model = open_clip.CLIP(**config["model_cfg"])
    files = {"open_clip_config.json": json.dumps(config).encode()}
    commit(api, repo, files | {"open_clip_model.safetensors": save(model.state_dict())})
    loaded, _, preprocess = open_clip.create_model_and_transforms(f"hf-hub:{repo}")
    expected = model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())
    assert preprocess is not None


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
