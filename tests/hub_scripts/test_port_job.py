"""The script of one job: what the client reads from its header, what it submits, and what the job then does."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from support.commands import TINY_PORT
from support.hub import client_env

SCRIPT = Path(__file__).parents[2] / "hub_scripts" / "jobs" / "port_job.py"
WORDS = [*TINY_PORT[1:], "-n", "20", "--allow-regression", "--push-to", "demo/by-a-job"]


def header() -> dict:
    """The script's header, read as PEP 723 says."""
    block = r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$"
    (found,) = re.finditer(block, SCRIPT.read_text(encoding="utf-8"))
    assert found["type"] == "script"
    return tomllib.loads("".join(line[2:] + "\n" for line in found["content"].splitlines()))


def hf(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([Path(sys.executable).parent / "hf", *words], capture_output=True, text=True, timeout=120)


def run(*words: str, env: dict | None = None) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, SCRIPT, *words], env=env, capture_output=True, text=True, timeout=300)


def test_the_header_says_what_it_needs():
    found = header()
    assert found["dependencies"] == ["hf-bico"] and found["requires-python"] == ">=3.11"
    assert found["tool"]["hf-jobs"].keys() == {"flavor", "timeout", "secrets"}


def test_hf_takes_hardware_time_and_secret_from_the_header(hub):
    table = header()["tool"]["hf-jobs"]
    ran = hf("jobs", "uv", "run", "--dry-run", str(SCRIPT), *WORDS)
    assert ran.returncode == 0, ran.stderr
    told = dict(re.findall(r"^  (\S+) +(.+?)(?: \(from script\))?$", ran.stdout, re.MULTILINE))
    assert (told["flavor"], told["timeout"]) == (table["flavor"], table["timeout"])
    assert ran.stdout.count("(from script)") == 3 and "HF_TOKEN" in told["secrets"]
    assert hub.token not in ran.stdout + ran.stderr
    assert told["args"].split() == WORDS
    other = hf("jobs", "uv", "run", "--dry-run", "--flavor", "cpu-basic", str(SCRIPT), *WORDS)
    assert re.search(r"flavor +cpu-basic\n", other.stdout)


def test_a_job_is_submitted_and_its_port_is_pushed(hub, world, tmp_path):
    """The script is on the Hub, as the local Hub has no bucket for files of this machine; the job is played."""
    api, table = HfApi(), header()["tool"]["hf-jobs"]
    api.create_repo("demo/scripts")
    api.create_commit("demo/scripts", [CommitOperationAdd(SCRIPT.name, SCRIPT)], commit_message="The script")
    url = f"{hub.url}/demo/scripts/resolve/main/{SCRIPT.name}"
    secrets = {name: os.environ[name] for name in table.pop("secrets")}
    with pytest.warns(UserWarning, match="experimental"):
        job = api.run_uv_job(url, script_args=WORDS, secrets=secrets, **table)
    request = json.loads((hub.root / "jobs" / "demo" / f"{job.id}.json").read_text())
    assert request["command"] == ["uv", "run", url, *WORDS]
    assert (request["flavor"], request["timeoutSeconds"]) == ("a10g-small", 7200)
    assert request["secrets"] == {"HF_TOKEN": "demo"}  # whose token it is

    ran = run(*request["command"][3:], env=client_env(hub, tmp_path / "home"))
    assert ran.returncode == 0, ran.stderr
    report = json.loads(Path(api.hf_hub_download("demo/by-a-job", "hf_bico.json")).read_text())
    assert report["lineage"]["target"]["name"] == "demo/plus" and report["calibration"]["n"] == 20


def test_a_port_that_would_be_lost_is_refused():
    ran = run("demo/ft", "--to", "demo/plus", "--dataset", "demo/task", "--output", "ported")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "Error: a job's disk is lost when it ends: add --push or --push-to REPO\n"
    first, error = run("demo/ft", "--to", "demo/plus", "--dataset", "demo/nothing", "--push").stderr.splitlines()
    assert first.startswith("Porting ") and error.startswith("Error: ")
