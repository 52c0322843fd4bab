"""Many fine-tunes by one plan: each cell a process of its own, and a ledger that says what is done."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.utils import WeakFileLock
from rich.console import Console
from safetensors.torch import load_file
from support.alignments import WEIGHTS, ported, same, tuned_from
from support.commands import assert_refused, hf_bico, json_of

from hf_bico.cli.fleet import _progress
from hf_bico.workflows.fleet import local, results
from hf_bico.workflows.fleet.ledger import Entry, State

COMMON = {"dataset": "demo/task", "base": "demo/base", "n": 20, "allow_regression": True}
ONE = {"output": "ports", "sources": ["demo/ft"], "targets": ["demo/plus"], "methods": ["bico"], "common": COMMON}
"""A plan of one cell."""


@pytest.fixture
def fleet(world, tmp_path, capsys, monkeypatch):
    """Runs a plan in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(plan: dict, *words: str):
        Path("plan.yaml").write_text(yaml.safe_dump(plan))
        return hf_bico(capsys, monkeypatch, "fleet", "plan.yaml", *words)

    return run


def cells() -> dict:
    """What the ledger says."""
    return json.loads(Path("ports/fleet.json").read_text())["cells"]


def test_every_fine_tune_is_ported_once(fleet, world):
    """Of a folder of folders and by name, with settings of its own; one that fails stops none."""
    for seed in (1, 2):
        tuned_from(world, Path("many") / f"ft{seed}", seed=seed)
    Path("many/notes").mkdir()
    sources = ["many", {"source": "demo/ft", "seed": 5, "n": 24}, "demo/nothing"]
    plan = ONE | {"sources": sources, "common": COMMON | {"seed": 1}}
    ran = fleet(plan, "--jobs", "2")
    assert ran.code == 1, ran
    assert "nothing-on-plus-bico failed: model demo/nothing was not found" in ran.err
    found = cells()
    names = ["ft1-on-plus-bico", "ft2-on-plus-bico", "ft-on-plus-bico", "nothing-on-plus-bico"]
    assert list(found) == names
    assert [found[name]["state"] for name in names] == ["done", "done", "done", "failed"]
    assert found[names[3]]["code"] == 2 and "not found" in found[names[3]]["error"]
    assert {path.name for path in Path("ports").iterdir()} == {*names[:3], "fleet.json", ".fleet.lock"}
    own = ported(Path("own"), "many/ft1", seed=1, allow_regression=True)
    assert same(load_file(f"ports/{names[0]}/{WEIGHTS}"), own)
    report = json.loads(Path(f"ports/{names[2]}/hf_bico.json").read_text())
    assert (report["calibration"]["seed"], report["calibration"]["n"]) == (5, 24)
    entry = found[names[2]]
    assert entry["scores"]["ported"] == report["evaluation"]["ported"]["value"]
    assert entry["recovered"] == report["evaluation"]["recovered"] and entry["output"] == f"ports/{names[2]}"
    rows = [line.split() for line in ran.out.splitlines() if "plus" in line]
    assert [row[0] for row in rows] == names
    assert rows[2][5] == f"{entry['scores']['ported']:.4g}" and rows[3][-1] == "failed"


def test_what_is_done_with_the_same_settings_is_not_done_again(fleet):
    """Others are: those whose settings have changed, and those that are gone."""
    two = ONE | {"sources": ["demo/ft", {"source": "demo/ft", "name": "again", "seed": 1}]}
    assert fleet(two, "--jobs", "2").code == 0
    first = cells()
    ran = fleet(two | {"sources": [two["sources"][0], two["sources"][1] | {"seed": 2}]})
    assert ran.code == 0 and "ft-on-plus-bico: running" not in ran.err
    second = cells()
    assert second["ft-on-plus-bico"] == first["ft-on-plus-bico"]
    assert second["again-on-plus-bico"]["key"] != first["again-on-plus-bico"]["key"]
    report = json.loads(Path("ports/again-on-plus-bico/hf_bico.json").read_text())
    assert report["calibration"]["seed"] == 2
    before = load_file(f"ports/ft-on-plus-bico/{WEIGHTS}")
    assert fleet(ONE | {"common": COMMON | {"split": "nothing"}}).code == 1  # what fails leaves the earlier port
    assert same(load_file(f"ports/ft-on-plus-bico/{WEIGHTS}"), before)
    assert [path.name for path in Path("ports").iterdir() if path.name.endswith(local.BEFORE)] == []
    shutil.rmtree("ports/ft-on-plus-bico")
    assert "ft-on-plus-bico: done" in fleet(ONE).err and Path("ports/ft-on-plus-bico").is_dir()
    assert set(cells()) == set(first)  # what a plan no longer has stays


def test_a_folder_of_somebody_else_is_left_alone(fleet):
    Path("ports/ft-on-plus-bico").mkdir(parents=True)
    Path("ports/ft-on-plus-bico/mine").write_text("mine")
    for _ in range(2):
        ran = fleet(ONE)
        assert ran.code == 1 and "ports/ft-on-plus-bico is there" in ran.err
        assert Path("ports/ft-on-plus-bico/mine").read_text() == "mine"
    assert cells()["ft-on-plus-bico"]["state"] == "failed"


def test_maps_are_made_once_for_a_pair_of_bases(fleet, world):
    """And give the ports that `port --maps` gives; a method whose maps cannot be kept makes its own."""
    tuned_from(world, Path("ft1"))
    plan = ONE | {"methods": ["bico", "naive"], "align": True}
    ran = fleet(plan, "--jobs", "2")
    assert ran.code == 0, ran.err
    assert "the maps of naive cannot be kept" in ran.err
    when = Path("ports/maps/demo-base-to-demo-plus-bico/hf_bico_maps.json").stat().st_mtime_ns
    assert "--maps" not in cells()["ft-on-plus-naive"]["command"]
    assert fleet(plan | {"sources": ["demo/ft", "ft1"], "methods": ["bico"]}).code == 0
    assert Path("ports/maps/demo-base-to-demo-plus-bico/hf_bico_maps.json").stat().st_mtime_ns == when
    found = cells()
    assert [name for name in found if name.startswith("maps/")] == ["maps/demo-base-to-demo-plus-bico"]
    assert "--maps ports/maps/demo-base-to-demo-plus-bico" in found["ft1-on-plus-bico"]["command"]
    options = {"maps": "ports/maps/demo-base-to-demo-plus-bico", "allow_regression": True}
    own = ported(Path("own"), "ft1", **options)
    assert same(load_file(f"ports/ft1-on-plus-bico/{WEIGHTS}"), own)


def test_maps_that_cannot_be_made_fail_what_needs_them(fleet):
    common = {name: value for name, value in COMMON.items() if name != "base"}
    plan = ONE | {"sources": ["demo/ft", "demo/none"], "align": {"dataset": "demo/nothing"}, "common": common}
    ran = fleet(plan)
    assert ran.code == 1
    assert "none-on-plus-bico failed: model demo/none was not found" in ran.err  # whose base nobody knows
    assert "ft-on-plus-bico failed: maps/demo-base-to-demo-plus-bico were not made: dataset demo/nothing" in ran.err


def test_ctrl_c_stops_the_children_and_leaves_the_ledger_right(fleet, world, tmp_path):
    """What was running waits; the next call does that alone."""
    slow = {"source": "demo/ft", "name": "slow", "n": 60, "batch_size": 1, "method_options": {"steps": 50}}
    Path("plan.yaml").write_text(yaml.safe_dump(ONE | {"sources": ["demo/ft", slow]}))
    words = [sys.executable, "-c", "from hf_bico.cli.main import main; main()", "fleet", "plan.yaml"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: Path("ports/fleet.json").is_file() and cells()["slow-on-plus-bico"]["state"] == "running")
    children = children_of(process.pid)
    assert children
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert {name: entry["state"] for name, entry in cells().items()} == {
        "ft-on-plus-bico": "done",
        "slow-on-plus-bico": "waiting",
    }
    assert not Path("ports/slow-on-plus-bico").exists()
    data = json.loads(Path("ports/fleet.json").read_text())
    data["cells"]["slow-on-plus-bico"]["state"] = "running"  # as a process that was killed leaves it
    Path("ports/fleet.json").write_text(json.dumps(data))
    ran = fleet(ONE | {"sources": ["demo/ft", slow | {"n": 20, "batch_size": 8, "method_options": {}}]})
    assert ran.code == 0 and "ft-on-plus-bico: running" not in ran.err.replace("slow", "")
    assert cells()["slow-on-plus-bico"]["state"] == "done"


def until(so, seconds: float = 90) -> None:
    """Wait for something."""
    limit = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < limit, "it does not happen"
        time.sleep(0.05)


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_the_ledger_may_be_a_dataset_repo(fleet, capsys, monkeypatch):
    """The same from any machine; a commit that another made meanwhile is not lost."""
    plan = ONE | {"ledger": "demo/ledger"}
    assert fleet(plan).code == 0
    assert not Path("ports/fleet.json").exists()
    api = HfApi()
    assert api.repo_info("demo/ledger", repo_type="dataset").private
    data = json.loads(Path(hf_hub_download("demo/ledger", "fleet.json", repo_type="dataset")).read_text())
    assert data["cells"]["ft-on-plus-bico"]["state"] == "done"
    head = api.repo_info("demo/ledger", repo_type="dataset").sha
    again = json_of(capsys, monkeypatch, "fleet", "plan.yaml")
    assert again == data and api.repo_info("demo/ledger", repo_type="dataset").sha == head


def test_ports_may_be_pushed_alone(fleet):
    """Nothing is kept on this machine then; what was pushed is not done again."""
    plan = ONE | {"output": None, "push": "lab", "ledger": "demo/pushes"}
    ran = fleet(plan, "-q")
    assert ran.code == 0 and "/lab/ft-on-plus-bico/commit/" in ran.out and ran.err == ""
    assert HfApi().file_exists("lab/ft-on-plus-bico", "hf_bico.json")
    assert fleet(plan, "-q").out == ran.out  # the same commit
    assert {path.name for path in Path().iterdir()} == {"plan.yaml"}


def test_two_fleets_in_one_folder_do_not_meet(fleet, tmp_path):
    Path("ports").mkdir()
    with WeakFileLock("ports/.fleet.lock"):
        assert_refused(fleet(ONE), "another fleet is at work in ports")


def test_errors_are_shown_as_they_are(capsys):
    """Brackets in them are no marks of a terminal's."""
    entry = Entry("key", "port", "a", "b", "bico", "hf-bico port", State.FAILED, error="no [/such] [red]thing")
    Console(width=200).print(_progress({"a-on-b": entry}))
    assert "no [/such] [red]thing" in capsys.readouterr().out


def test_a_crash_is_told_by_its_last_words():
    """And a signal by its number."""
    assert results.reason(["Traceback\n", "  File\n", "KeyError: 'a'\n"], 1) == "KeyError: 'a'"
    assert results.reason(["Error: no such thing\n", "Notice\n"], 2) == "no such thing"
    assert "signal 9: perhaps the memory is full" in results.reason([], -9)
