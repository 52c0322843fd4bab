"""A machine that fails: no room on the disk, places that cannot be written to, no home."""

import os
import subprocess
import sys

import pytest
from support.broken import Broken, assert_one_line
from support.hub import client_env

FEW = 12
"""Steps of writing at which the disk is full, in continuous integration."""
SIZES = (4096, 20_000, 60_000)
"""Bytes that a file may have; the weights have more."""


def assert_refused(broken: Broken, ran, repo: str) -> None:
    """One line and exit code 2; nothing is written, nothing pushed, and a rerun is right."""
    assert_one_line(ran, 2)
    assert ran.error.startswith("Error: "), ran
    assert not broken.out.exists() or broken.assert_nothing_half("port", repo) == 0
    assert broken.commits(repo) == []
    broken.assert_rerun_is_right("port", repo)


def full_from(broken: Broken, point: int, cold: bool):
    broken.forget(cold=cold)
    return broken.do("port", at=point, then="ENOSPC")


@pytest.mark.parametrize("cold", [True, False], ids=["cold", "warm"])
def test_a_disk_that_is_full_from_a_step_on(ready, every, note, cold):
    ready.forget(cold=cold)
    ran, _ = ready.do("port", at=10**9, then="ENOSPC", tell=True)
    assert ran.code == 0
    total = len(ran.events)
    assert total > 50
    step = 1 if every else total // (FEW // 2)
    for point in range(1, total + 1, step):
        ran, repo = full_from(ready, point, cold)
        if ran.code == 0:  # what failed was not needed
            assert ready.outcome("port", ran, repo) == "right"
        else:
            assert_refused(ready, ran, repo)
        note("ENOSPC", "port", "right" if ran.code == 0 else "one line")


@pytest.mark.parametrize("size", SIZES)
def test_files_that_may_not_grow(ready, note, size):
    """A limit of the system: a write fails in the middle of a file."""
    ready.forget(cold=size == SIZES[0])
    ran, repo = ready.do("port", limit=size)
    assert_refused(ready, ran, repo)
    note("RLIMIT_FSIZE", "port", "one line")


@pytest.fixture
def tiny(ready):
    """Mounts a file system of so many bytes over the folder that results go to."""
    place = ready.root / "disk"

    def mount(size: int):
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        if subprocess.run(command, capture_output=True).returncode:
            place.rmdir()
            pytest.skip("this user may not mount")
        return place

    yield mount
    if place.exists():
        subprocess.run(["umount", str(place)], check=True)
        place.rmdir()


@pytest.mark.parametrize("size", [4096, 65536, 100_000])
def test_a_real_disk_that_is_full(ready, tiny, note, size):
    place = tiny(size)
    repo = f"demo/broken-{next(ready.numbers)}"
    ran = ready.runner.run(*ready.words("port", repo, str(place / "out")))
    assert_one_line(ran, 2)
    assert "no space left" in ran.error
    assert list(place.iterdir()) == []
    assert ready.commits(repo) == []
    note("a full tmpfs", "port", "one line")


@pytest.mark.parametrize("name", ["home", "out", "tmp", "home/hub", "home/assets", "home/datasets"])
def test_a_file_where_a_folder_belongs(ready, note, name):
    """As a folder that may not be written to; root may write to all of them."""
    place = ready.root / name
    kept = place.with_name(f"kept-{place.name}")
    if place.exists():
        place.rename(kept)
    place.touch()
    try:
        ran, repo = ready.do("port")
        if ran.code:
            assert_one_line(ran, 2)
            assert ready.commits(repo) == []
    finally:
        place.unlink(missing_ok=True)
        if kept.exists():
            kept.rename(place)
    note("a file in place of a folder", name, "one line" if ran.code else "right")


HOMES = {"none": {"HOME": None}, "a file": {"HOME": "{root}/file"}, "no room": {"HOME": "/dev/full"}}


@pytest.mark.parametrize("home", HOMES)
def test_a_home_that_is_none(ready, note, home):
    """A process of its own, as libraries look for their home when they are imported."""
    (ready.root.parent / "file").touch()
    env = client_env(ready.hub, ready.home) | {"PYTHONPATH": os.pathsep.join(sys.path)}
    del env["HF_HOME"]
    for name, value in HOMES[home].items():
        env.pop(name, None)
        if value is not None:
            env[name] = value.format(root=ready.root.parent)
    words = [*ready.words("port", "demo/broken-home")[:-4], "--dry-run"]
    env["HF_HUB_CACHE"] = str(ready.home / "hub") if home == "none" else ""
    env = {key: value for key, value in env.items() if value}
    ran = subprocess.run(
        [sys.executable, "-m", "hf_bico", *words], capture_output=True, text=True, env=env, timeout=100
    )
    assert "Traceback" not in ran.stderr, ran
    assert ran.returncode in ((0,) if home == "none" else (0, 2)), ran
    before = ran.stderr.splitlines()[:-1]
    assert ran.returncode == 0 or (len(before) <= 1 and all(line.endswith(" …") for line in before)), ran.stderr
    note("HOME is " + home, "port", "one line" if ran.returncode else "right")
