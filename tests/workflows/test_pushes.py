"""What a push makes on the Hub, and whose repo it never overwrites."""

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import HfApi, hf_hub_download
from support.commands import assert_refused, hf_bico
from support.ports import PORT
from support.world import config, write_dataset, write_model

from hf_bico import PortError
from hf_bico.io.hub import Hub
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.port import run


def test_default_name_private_and_message(world, capsys, monkeypatch):
    ran = hf_bico(capsys, monkeypatch, *PORT, "--push", "--private", "--commit-message", "By hand", "-q")
    assert ran.code == 0
    assert ran.out.strip().startswith(f"{HfApi().endpoint}/demo/ft-on-plus/commit/")
    assert ran.err == ""
    info = HfApi().model_info("demo/ft-on-plus")
    assert info.private
    assert HfApi().list_repo_commits("demo/ft-on-plus")[0].title == "By hand"


def test_pull_request_leaves_main_alone(pushed, capsys, monkeypatch):
    head = HfApi().model_info("demo/plus").sha
    ran = hf_bico(capsys, monkeypatch, *PORT, "--push-to", "demo/plus", "--create-pr", "--format", "json")
    assert ran.code == 0
    assert "/discussions/1" in json.loads(ran.out)["url"]
    assert HfApi().model_info("demo/plus").sha == head
    proposed = hf_hub_download("demo/plus", "hf_bico.json", revision="refs/pr/1")
    assert json.loads(Path(proposed).read_text())["method"]["name"] == "bico"


def test_a_head_that_moved_is_not_overwritten(pushed):
    """Someone commits to the repo while the port is at work."""
    api, repo = HfApi(), pushed[1]

    def track(items, what, total):
        if what == "Calibrating":
            api.upload_file(path_or_fileobj=b"mine", path_in_repo="notes.txt", repo_id=repo)
        return items

    chosen = PortConfig(
        "demo/ft", "demo/plus", "demo/task", method="bico", n=20, push_to=repo, allow_regression=True, seed=1
    )
    with pytest.raises(PortError, match="has moved since") as refusal:
        run(chosen, Hub(), track)
    kept = Path(str(refusal.value).split("kept in ")[1].rstrip(")"))
    assert (kept / "open_clip_model.safetensors").exists()
    shutil.rmtree(kept.parent)
    assert api.list_repo_commits(repo)[0].title == "Upload notes.txt with huggingface_hub"


def test_a_repo_that_appears_meanwhile_is_not_overwritten(world):
    api = HfApi()

    def track(items, what, total):
        if what == "Calibrating":
            api.create_repo("demo/meanwhile")
        return items

    chosen = PortConfig(
        "demo/ft", "demo/plus", "demo/task", method="bico", n=20, push_to="demo/meanwhile", allow_regression=True
    )
    with pytest.raises(PortError, match="has moved since"):
        run(chosen, Hub(), track)


def test_somebody_elses_repo_is_not_overwritten(world, capsys, monkeypatch):
    assert_refused(hf_bico(capsys, monkeypatch, *PORT, "--push-to", "demo/base"), "not a port of demo/ft", "--push-to")


def test_a_folder_of_the_same_name_does_not_stand_in_for_the_hub(pushed, world, tmp_path, capsys, monkeypatch):
    write_dataset(tmp_path / "demo" / "task", {"train": 25, "test": 25})
    write_model(tmp_path / "demo" / "base", config(32, 2, 32), seed=9)
    monkeypatch.chdir(tmp_path)
    ran = hf_bico(
        capsys,
        monkeypatch,
        "port",
        "demo/ft",
        "--to",
        "demo/plus",
        "--dataset",
        "hf://demo/task",
        "-n",
        "20",
        "--output",
        "out",
        "--format",
        "json",
    )
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["calibration"]["content_sha256"] == pushed[2].report["calibration"]["content_sha256"]
