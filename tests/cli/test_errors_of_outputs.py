"""What cannot be written or pushed, and what is left when the work is cut short."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import save_file
from support.commands import TINY_PORT, assert_refused, hf_bico, json_of
from support.hub import client_env

from hf_bico.core import chain
from hf_bico.io import writer
from hf_bico.tasks.evaluation import Evaluator
from hf_bico.workflows import port as pipeline


def test_regression_is_not_pushed(world, capsys, monkeypatch, tmp_path):
    """One of these scales is worse than none; it is written, but pushed only on request."""
    words = ("port", "demo/ft", "--to", "demo/plus", "--dataset", "demo/task", "-n", "20", "--method", "bico")
    worse = [
        alpha
        for alpha in ("-4", "4", "-40", "40")
        if json_of(capsys, monkeypatch, *words, "--alpha", alpha)["evaluation"]["regressed"]
    ]
    assert worse
    alpha = worse[0]
    ran = hf_bico(capsys, monkeypatch, *words, "--alpha", alpha, "--push-to", "demo/worse", "-q")
    assert ran.code == 2
    assert "not pushed: the port scores" in ran.err
    assert "--allow-regression" in ran.err
    assert not HfApi().repo_exists("demo/worse")
    ran = hf_bico(capsys, monkeypatch, *words, "--alpha", alpha, "--output", tmp_path / "out")
    assert ran.code == 0
    assert "worse than its base" in (tmp_path / "out" / "README.md").read_text()


def test_output_that_exists(port, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert_refused(port(**{"--output": str(tmp_path / "full")}), "is not a new or empty folder")
    assert_refused(port(**{"--output": "."}), "is not a new or empty folder")
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    assert_refused(port(**{"--output": str(tmp_path / "link")}), "is not a new or empty folder")


def test_a_repo_of_somebody_else(port):
    assert_refused(port(**{"--push-to": "other/mine"}), "demo may not write to other/mine", "--push-to")


def test_private_cannot_hide_a_public_repo(port, world):
    HfApi().create_repo("demo/open", exist_ok=True)
    assert_refused(port("--private", **{"--push-to": "demo/open"}), "exists and is public")


def test_no_space_is_noticed_before_the_work(port, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(writer.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    assert_refused(port(), "no space left", "MB are needed")


def test_no_space_while_writing(port, tmp_path):
    """A file system of one megabyte, where this machine lets one be made."""
    small = tmp_path / "small"
    small.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        with pytest.raises(writer.PortError, match="no space left"), writer.staged(small / "out") as stage:
            save_file({"big": torch.zeros(10**6)}, stage)
        assert not list(small.iterdir())
    finally:
        subprocess.run(["umount", small], check=True)


def test_missing_option_and_bad_number(world, capsys, monkeypatch):
    assert_refused(hf_bico(capsys, monkeypatch, "port", "demo/ft"), "--to")
    assert_refused(hf_bico(capsys, monkeypatch, "port", "demo/ft", "--to", "x", "--dataset", "y", "-n", "many"), "'-n'")


def child(hub, tmp_path, *words, **changed):
    """The tool as a process of its own."""
    env = client_env(hub, tmp_path / "home") | changed
    return subprocess.Popen(
        [sys.executable, "-c", "from hf_bico.cli.main import main; main()", *map(str, words)],
        env=env,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_no_network(hub, tmp_path):
    process = child(
        hub,
        tmp_path,
        *TINY_PORT,
        "--output",
        "out",
        HF_ENDPOINT="http://127.0.0.1:9",
    )
    out, err = process.communicate(timeout=100)
    assert (process.returncode, out, err.count("\n")) == (2, "", 2), err  # the first says what is done
    assert "no answer from http://127.0.0.1:9" in err


def test_offline_without_a_cache(hub, tmp_path):
    process = child(hub, tmp_path, *TINY_PORT, "--output", "out", HF_HUB_OFFLINE="1")
    out, err = process.communicate(timeout=100)
    assert (process.returncode, out, err.count("\n")) == (2, "", 2), err  # the first says what is done
    assert "HF_HUB_OFFLINE is set" in err


def test_interrupted_by_the_keyboard(hub, world, tmp_path):
    seen = len(hub.log.read_text())
    process = child(
        hub,
        tmp_path,
        *TINY_PORT,
        "-n",
        "60",
        "--batch-size",
        "1",
        "--output",
        "out",
        "--push-to",
        "demo/interrupted",
    )
    deadline = time.monotonic() + 60
    while "/api/models/demo/ft" not in hub.log.read_text()[seen:] and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Interrupted" in err
    assert {path.name for path in tmp_path.iterdir()} <= {"home"}
    assert not HfApi().repo_exists("demo/interrupted")


@pytest.mark.parametrize(
    ("owner", "name"),
    [(chain, "collect"), (Evaluator, "per_sample"), (pipeline, "write_card"), (HfApi, "create_commit")],
)
def test_interrupted_anywhere(world, capsys, monkeypatch, tmp_path, owner, name):
    """During the calibration, the evaluation, the writing and the upload: no folder, no repo, nothing beside them."""

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, name, interrupt)
    place = tmp_path / "out"
    keep = ("--output", place) if name != "create_commit" else ()
    ran = hf_bico(
        capsys,
        monkeypatch,
        *TINY_PORT,
        "-n",
        "20",
        "--seed",
        "17",  # a port of no other test, whose scores would be remembered
        "--push-to",
        "demo/half",
        "--allow-regression",
        *keep,
    )
    assert ran.code == 130
    *stages, last = ran.err.splitlines()
    assert last == "Interrupted; nothing was left half-written"
    assert all(line.endswith(" …") for line in stages), ran.err
    assert not list(tmp_path.iterdir())
    assert not HfApi().repo_exists("demo/half")


def test_a_token_is_nowhere(hub, world, tmp_path):
    token = "hf_local_other"
    process = child(
        hub,
        tmp_path,
        *TINY_PORT,
        "-n",
        "20",
        "--method",
        "bico",
        "--output",
        "out",
        "--push-to",
        "other/tokens",
        "--allow-regression",
        "--token",
        token,
        "--format",
        "json",
        HF_TOKEN="",
        HF_DEBUG="1",
    )
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert token not in out + err + hub.log.read_text()
    for folder, _, names in os.walk(tmp_path):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                assert token.encode() not in file.read(), name
    assert HfApi().repo_exists("other/tokens")
