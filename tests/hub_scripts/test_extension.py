"""`hf bico`: the extension's script, and the real `hf` that installs, lists, runs, updates and removes it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.github import commit, serve_github

import hf_bico

FOLDER = Path(__file__).parents[2] / "hub_scripts" / "extension"
SCRIPT = FOLDER / "hf-bico"
TOOLS = "/usr/bin:/bin"
"""Where sh is, and none of the programs that the script looks for."""
WORDS = ["port", "a b", "", "--n=1", "*"]
BINS = Path(sys.executable).parent


@pytest.fixture
def program(tmp_path):
    """Puts a program into a folder of its own; it says its name, its words and its input, and ends with 7."""

    def put(name: str, folder: str = "") -> Path:
        place = tmp_path / (folder or f"with-{name}")
        place.mkdir(exist_ok=True)
        (place / name).write_text(f'#!/bin/sh\necho {name}; printf "<%s>" "$@"; echo; cat; exit 7\n')
        (place / name).chmod(0o755)
        return place

    return put


def run(*path: Path | str, script: Path = SCRIPT, words=WORDS, **env: str) -> subprocess.CompletedProcess:
    env |= {"PATH": ":".join(map(str, [*path, TOOLS]))}
    return subprocess.run([script, *words], input="in\n", env=env, capture_output=True, text=True, timeout=60)


def said(name: str, *words: str) -> str:
    return f"{name}\n{''.join(f'<{word}>' for word in words)}\nin\n"


def test_an_installed_command_has_the_words_the_input_and_the_last_say(program):
    ran = run(program("uvx"), program("hf-bico"))
    assert (ran.returncode, ran.stdout, ran.stderr) == (7, said("hf-bico", *WORDS), "")


def test_it_is_the_real_command_that_is_called():
    ran = run(BINS, words=["--version"])
    assert (ran.returncode, ran.stdout) == (0, f"hf-bico {hf_bico.__version__}\n")
    wrong = run(BINS, words=["port", "--nothing"])
    assert wrong.returncode == 2 and wrong.stdout == "" and wrong.stderr.startswith("Error: ")


def test_without_it_uv_fetches_it_and_else_pipx(program):
    ran = run(program("pipx"), program("uvx"))
    assert (ran.returncode, ran.stdout) == (7, said("uvx", "--from", "hf-bico", "hf-bico", *WORDS))
    ran = run(program("pipx"))
    assert (ran.returncode, ran.stdout) == (7, said("pipx", "run", "--spec", "hf-bico", "hf-bico", *WORDS))


def test_without_any_it_says_what_to_install_in_one_line():
    ran = run()
    assert (ran.returncode, ran.stdout) == (127, "")
    (line,) = ran.stderr.splitlines()
    assert line.startswith("Error: ") and "`pip install hf-bico`" in line and "uv" in line and "pipx" in line


def test_it_never_calls_itself(program, tmp_path):
    """Not by its own folder on PATH, by a link, by another copy, or by the way round through that."""
    (links := tmp_path / "links").mkdir()
    (links / "hf-bico").symlink_to(SCRIPT)
    copy, other = (shutil.copytree(FOLDER, tmp_path / name) for name in ("copy", "other"))
    assert run(FOLDER, links, copy, other).returncode == 127
    ran = run(links, copy, FOLDER, other, program("hf-bico"))
    assert (ran.returncode, ran.stdout) == (7, said("hf-bico", *WORDS))
    assert run(copy, other, script=copy / "hf-bico").returncode == 127


def test_what_is_no_program_or_lies_here_is_not_called(program, tmp_path, monkeypatch):
    here = program("hf-bico")
    monkeypatch.chdir(here)
    assert run("", ".", "../with-hf-bico").returncode == 127
    (here / "hf-bico").chmod(0o644)
    (tmp_path / "folder" / "hf-bico").mkdir(parents=True)
    assert run(here, tmp_path / "folder").returncode == 127


@pytest.fixture
def hf(tmp_path):
    """Runs the real `hf` of a user who has hf-bico on PATH, where lab/hf-bico is the extension's repository."""
    if missing := [name for name in ("git", "openssl") if not shutil.which(name)]:
        pytest.skip(f"GitHub is played with git and openssl, and there is no {', '.join(missing)}")
    repo = shutil.copytree(FOLDER, tmp_path / "repo")
    head = commit(repo)
    with serve_github({"lab/hf-bico": repo}, tmp_path) as github:
        env = {name: value for name, value in os.environ.items() if name.lower() not in ("no_proxy", "all_proxy")}
        env |= github.env | {"HOME": str(tmp_path / "home"), "PATH": f"{BINS}:{TOOLS}", "HF_HUB_DISABLE_TELEMETRY": "1"}

        def call(*words: str, more: dict | None = None, input: str = "") -> subprocess.CompletedProcess:
            command = [BINS / "hf", *words]
            return subprocess.run(
                command, env=env | (more or {}), input=input, capture_output=True, text=True, timeout=120
            )

        call.repo, call.head, call.github = repo, head, github
        call.place = tmp_path / "home" / ".local" / "share" / "hf" / "extensions" / "hf-bico"
        yield call


def test_hf_installs_lists_runs_updates_and_removes_it(hf, program):
    installed = hf("extensions", "install", "lab/hf-bico")
    assert installed.returncode == 0, installed.stderr
    assert (hf.place / "hf-bico").read_bytes() == SCRIPT.read_bytes() and os.access(hf.place / "hf-bico", os.X_OK)
    assert not (hf.place / "venv").exists() and not any("archive" in each for each in hf.github.seen)  # no pip
    (listed,) = json.loads(hf("extensions", "list", "--format", "json").stdout)
    assert (listed["command"], listed["source"], listed["type"]) == ("hf bico", "lab/hf-bico", "binary")
    assert listed["description"] == json.loads((FOLDER / "manifest.json").read_text())["description"]
    assert listed["version"] == hf.head[:7] and listed["latest"] is True

    for words in (("bico",), ("extensions", "exec", "bico")):
        ran = hf(*words, "--version")
        assert (ran.returncode, ran.stdout) == (0, f"hf-bico {hf_bico.__version__}\n"), ran.stderr
    ours = {"PATH": f"{program('hf-bico')}:{TOOLS}"}
    ran = hf("bico", *WORDS, more=ours, input="in\n")
    assert (ran.returncode, ran.stdout) == (7, said("hf-bico", *WORDS))
    ran = hf("bico", "port", more={"PATH": f"{hf.place}:{TOOLS}"})  # itself on PATH, and nothing else
    assert ran.returncode == 127 and "is not installed" in ran.stderr

    (hf.repo / "hf-bico").write_text("#!/bin/sh\necho new\n")
    commit(hf.repo)
    assert hf("extensions", "update", "bico").returncode == 0
    assert hf("bico").stdout == "new\n"
    assert hf("extensions", "remove", "bico").returncode == 0
    assert not hf.place.exists()
