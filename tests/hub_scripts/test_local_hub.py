"""The local Hub as its real clients see it: they can do here what they can there, and are refused alike."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
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
from support.hub import SESSION_ORGS, Hub
from support.hub_clients import NUMBERS, WEIGHTS, commit, content, status

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
