"""A fleet whose cells are Hugging Face Jobs: what is submitted by the real client, and what becomes of it."""

import json
from pathlib import Path

import pytest
import yaml
from huggingface_hub import HfApi
from support.commands import assert_refused, hf_bico, json_of

from hf_bico.io.hub import Hub
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.port import run

HARDWARE = {"flavor": "a10g-small", "timeout": "2h"}
COMMON = {"dataset": "demo/task", "n": 20, "allow_regression": True}
PLAN = {
    "output": "ports",
    "push": "lab",
    "sources": ["demo/ft"],
    "targets": ["demo/plus"],
    "methods": ["bico"],
    "common": COMMON,
    "hardware": HARDWARE,
}


@pytest.fixture
def submit(world, hub, tmp_path, capsys, monkeypatch):
    """Runs a plan as jobs in an empty folder; the jobs that were submitted since the last call are its third result."""
    monkeypatch.chdir(tmp_path)
    before = set((hub.root / "jobs").glob("*/*.json"))

    def run(plan: dict, *words: str):
        Path("plan.yaml").write_text(yaml.safe_dump(plan))
        ran = hf_bico(capsys, monkeypatch, "fleet", "plan.yaml", "--on", "hf-jobs", *words)
        new = sorted(set((hub.root / "jobs").glob("*/*.json")) - before)
        before.update(new)
        return ran, new

    return run


def said(job: Path) -> dict:
    return json.loads(job.read_text())


def becomes(job: Path, stage: str, message: str | None = None) -> None:
    """Play the machine that a job runs on."""
    job.write_text(json.dumps(said(job) | {"status": {"stage": stage, "message": message}}))


def cells() -> dict:
    return json.loads(Path("ports/fleet.json").read_text())["cells"]


def test_a_cell_is_submitted_as_a_job(submit, hub):
    """With the command that would be run here, but that nothing is kept there; once, while it is at work."""
    ran, jobs = submit(PLAN)
    assert ran.code == 0, ran.err
    (job,) = jobs
    request = said(job)
    command = "uv run --with hf-bico hf-bico port demo/ft --to demo/plus --dataset demo/task -n 20 --method bico"
    words = " ".join(request["command"])
    assert words.startswith("uv run --with hf-bico hf-bico port demo/ft --to demo/plus"), words
    assert set(words.split()) == {*command.split(), "--allow-regression", "--push-to", "lab/ft-on-plus-bico"}
    assert (request["flavor"], request["timeoutSeconds"]) == ("a10g-small", 7200)
    assert request["secrets"] == {"HF_TOKEN": "demo"}  # whose token it is
    assert hub.token not in job.read_text() + ran.out + ran.err + Path("ports/fleet.json").read_text()
    entry = cells()["ft-on-plus-bico"]
    assert (entry["state"], entry["job"]) == ("running", f"demo/{request['id']}")
    assert entry["job_url"] == f"{hub.url}/jobs/demo/{request['id']}"
    assert submit(PLAN)[1] == []


def test_what_is_printed_is_what_is_submitted(submit, capsys, monkeypatch):
    printed, none = submit(PLAN, "--print")
    assert printed.code == 0 and none == [] and not Path("ports").exists()
    (shown,) = map(json.loads, printed.out.splitlines())
    _, (job,) = submit(PLAN)
    request = said(job)
    assert request["command"][-len(shown["script_args"]) :] == shown["script_args"]
    assert request["labels"] == {**shown["labels"], "name": shown["name"]}
    assert shown["flavor"] == request["flavor"] and shown["namespace"] == request["owner"]["name"]
    (words,) = json_of(capsys, monkeypatch, "fleet", "plan.yaml", "--print")
    assert words[:3] == ["hf-bico", "port", "demo/ft"] and "--output" in words  # what would be run here


def test_a_job_that_ended_well_has_its_scores_in_the_ledger(submit, world):
    plan = PLAN | {"sources": [{"source": "demo/ft", "name": "well"}]}
    _, (job,) = submit(plan)
    becomes(job, "RUNNING")
    assert submit(plan)[0].code == 0 and cells()["well-on-plus-bico"]["state"] == "running"
    words = said(job)["command"]
    chosen = {"push_to": words[words.index("--push-to") + 1], "method": "bico", "n": 20, "allow_regression": True}
    outcome = run(PortConfig("demo/ft", "demo/plus", "demo/task", **chosen), Hub())
    becomes(job, "COMPLETED")
    ran, jobs = submit(plan)
    assert ran.code == 0 and jobs == []
    entry = cells()["well-on-plus-bico"]
    assert (entry["state"], entry["url"]) == ("done", outcome.url)
    assert entry["scores"]["ported"] == outcome.evaluation.ported.value
    assert submit(plan)[1] == []  # what is done is not submitted again
    assert HfApi().repo_exists("lab/well-on-plus-bico")


def test_a_job_that_failed_says_where_its_log_is(submit, hub):
    plan = PLAN | {"sources": [{"source": "demo/ft", "name": "badly"}]}
    _, (job,) = submit(plan)
    becomes(job, "ERROR", "Job timed out")
    ran, (again,) = submit(plan)  # it is tried again
    assert ran.code == 0 and "badly-on-plus-bico: failed its job ended as ERROR (Job timed out)" in ran.err
    assert f"its log is at {hub.url}/jobs/demo/{said(job)['id']}" in ran.err
    becomes(again, "COMPLETED")
    ran, (third,) = submit(plan)
    assert "its job ended well, and pushed nothing" in ran.err
    assert said(third)["id"] != said(again)["id"]


def test_maps_are_a_job_of_their_own_and_the_ports_wait_for_it(submit):
    plan = PLAN | {"sources": [{"source": "demo/ft", "name": "over"}], "align": True}
    ran, (first,) = submit(plan)
    assert ran.code == 0, ran.err
    command = said(first)["command"]
    maps = "lab/demo-base-to-demo-plus-bico-maps"
    assert command[4:8] == ["hf-bico", "align", "hf://demo/base", "demo/plus"] and maps in command
    assert cells()["over-on-plus-bico"]["state"] == "waiting"
    HfApi().create_repo(maps)
    becomes(first, "COMPLETED")
    _, (second,) = submit(plan)
    command = said(second)["command"]
    assert command[command.index("--maps") + 1] == maps and "--method" not in command


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"push": None}, ["plan.yaml: a job's disk is lost", "push"]),
        ({"hardware": {}}, ["plan.yaml: ", "flavor"]),
        ({"push": "other"}, ["plan.yaml: push: demo may not write to other"]),
        ({"sources": ["here"]}, ["here-on-plus-bico: a job cannot read here of this machine"]),
        ({"common": COMMON | {"templates": "words.txt"}}, ["a job cannot read words.txt of this machine"]),
    ],
)
def test_a_plan_that_no_job_can_do_is_refused(submit, change, words):
    Path("here").mkdir()
    Path("here/config.json").write_text("{}")
    Path("words.txt").write_text("a {}.")
    ran, jobs = submit(PLAN | change)
    assert_refused(ran, *words)
    assert jobs == [] and not Path("ports").exists()


def test_a_refusal_of_the_hub_is_the_cells(submit):
    ran, jobs = submit(PLAN | {"hardware": HARDWARE | {"namespace": "other"}})
    assert ran.code == 1 and jobs == []
    assert "ft-on-plus-bico failed: a job: the Hub refused" in ran.err
