"""`hf-bico report`: one page of what was written, from a folder, a repo or a file."""

import json
import webbrowser

import pytest
from support.alignments import aligned
from support.commands import TINY_PORT, assert_refused, hf_bico, json_of
from support.pages import assert_asks_for_nothing, assert_can_be_heard
from support.told import compare_data, port_data

from hf_bico.workflows import tell


@pytest.fixture(scope="module")
def ported(world, tmp_path_factory):
    """A port that auto made, pushed as demo/told."""
    from hf_bico.io.hub import Hub
    from hf_bico.workflows.config import PortConfig
    from hf_bico.workflows.port import run

    folder = tmp_path_factory.mktemp("told") / "ported"
    words = {"n": 20, "matching": "cka", "push_to": "demo/told", "allow_regression": True}
    run(PortConfig("demo/ft", "demo/plus", "demo/task", **words, output=folder), Hub())
    return folder


@pytest.fixture
def told(capsys, monkeypatch, tmp_path):
    """Runs the command in an empty folder; returns the root of the page that it says it wrote."""
    monkeypatch.chdir(tmp_path)

    def tell_of(place, *words):
        ran = hf_bico(capsys, monkeypatch, "report", place, "-q", *words)
        assert (ran.code, ran.err) == (0, "")
        root = assert_asks_for_nothing((tmp_path / ran.out.strip()).read_text(encoding="utf-8"))
        assert_can_be_heard(root)
        return root

    return tell_of


def test_a_port_is_told_from_its_folder_and_from_its_repo(ported, told, tmp_path):
    data = json.loads((ported / "hf_bico.json").read_text())
    here, there = told(ported), told("demo/told")
    assert here.text == there.text
    assert (ported / "report.html").is_file()
    assert (tmp_path / "told-report.html").is_file()
    layers = [cell.every("b")[0].text for cell in here.every("span", class_="cell")]
    assert layers == [entry["target"] for entry in data["moved"]]
    assert here.every("div", class_="verdict")[0].text.split()[1] == data["verdict"]["word"].split()[0]
    rows = here.every("section", id="tried")[0].every("tbody")[0].every("tr")
    assert len(rows) == 1 + len(data["method"]["choice"]["tried"])
    shares = [value for row in data["matching"]["cka"][""] for value in row]
    assert len(here.every("rect", class_="heat")) == len(shares)
    assert here.every("pre", class_="whole")[0].text == data["command"]
    assert told("demo/told", "--output", "a.html").text == here.text


def test_maps_are_told(world, told, tmp_path):
    aligned(tmp_path / "maps")
    data = json.loads((tmp_path / "maps" / "hf_bico_maps.json").read_text())
    layers = [cell.every("b")[0].text for cell in told("maps").every("span", class_="cell")]
    assert sorted(layers) == sorted(row["target"] for row in data["maps"])


def test_a_check_is_told_from_what_it_printed(world, capsys, monkeypatch, told, tmp_path):
    for name, words in (("with", ("--dataset", "demo/task", "-n", "8")), ("without", ())):
        data = json_of(capsys, monkeypatch, "check", "demo/ft", "--to", "demo/plus", *words, "--allow-regression")
        (tmp_path / f"{name}.json").write_text(json.dumps(data))
        root = told(f"{name}.json")
        assert (tmp_path / f"{name}.html").is_file()
        assert data["verdict"]["grade"] in root.every("div", class_="verdict")[0].text
        assert bool(root.every("rect", class_="heat")) == bool(words)


def test_a_comparison_is_told(world, capsys, monkeypatch, told, tmp_path):
    words = ("-n", "10", "-n", "20", "--seeds", "2", "--method", "bico", "--method", "naive", "--output", "out")
    data = json_of(capsys, monkeypatch, "compare", *TINY_PORT[1:-2], *words, "--allow-regression")
    root = told("out")
    rows = root.every("section", id="methods")[0].every("tbody")[0].every("tr")
    assert [row.every("th")[0].text for row in rows] == [entry["method"] for entry in data["summary"]]


def test_it_says_what_it_wrote_and_opens_it(capsys, monkeypatch, tmp_path):
    (tmp_path / "hf_bico.json").write_text(json.dumps(port_data()))
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda place: opened.append(place) or len(opened) > 1)
    page = tmp_path / "report.html"
    without = json_of(capsys, monkeypatch, "report", tmp_path)
    assert without["output"] == str(page)
    assert not opened
    ran = hf_bico(capsys, monkeypatch, "report", tmp_path, "--open")
    assert f"Written to {page}" in ran.out
    assert "No browser was found" in ran.err
    assert opened == [page.resolve().as_uri()]
    assert hf_bico(capsys, monkeypatch, "report", tmp_path, "--open", "--quiet").err == ""


@pytest.mark.parametrize("name", tell.FILES[:1] + tell.FILES[2:])
def test_files_that_are_damaged_are_one_line_and_nothing_is_written(name, capsys, monkeypatch, tmp_path):
    (tmp_path / name).write_text('{"schema": 4, "moved": NaN}')
    assert_refused(hf_bico(capsys, monkeypatch, "report", tmp_path), name)
    (tmp_path / name).write_text('{"schema": 4, "moved": []}')
    assert_refused(hf_bico(capsys, monkeypatch, "report", tmp_path), name, "PortReport")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_folder_or_a_repo_without_a_report_is_one_line(world, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for place in ("empty", "demo/base"):
        assert_refused(hf_bico(capsys, monkeypatch, "report", place), "no report", "hf_bico.json")
    assert_refused(hf_bico(capsys, monkeypatch, "report", "./nowhere"), "there is no folder")
    assert_refused(hf_bico(capsys, monkeypatch, "report", "nobody/nothing"), "nobody/nothing")
    kinds = "name a folder or a repo that a port, an alignment or a comparison wrote, or a JSON file"
    for name in ("a.txt", "hub.log"):
        (tmp_path / name).write_text("")
        for place in (name, f"./{name}"):
            assert_refused(
                hf_bico(capsys, monkeypatch, "report", place), f"{place} is a file that holds no report", kinds
            )
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "a.txt", "hub.log"}


def test_only_a_page_is_overwritten(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.json").write_text(json.dumps(compare_data()))
    (tmp_path / "mine.html").write_text("<p>mine</p>")
    (tmp_path / "folder.html").mkdir()
    for place, why in (("mine.html", "no page of hf_bico"), ("folder.html", "no file"), ("page.txt", ".html")):
        assert_refused(hf_bico(capsys, monkeypatch, "report", "a.json", "--output", place), place, why, "--output")
    assert (tmp_path / "mine.html").read_text() == "<p>mine</p>"
    (tmp_path / "new").mkdir()
    for _ in range(2):
        assert hf_bico(capsys, monkeypatch, "report", "a.json", "--output", "new/page.html").code == 0
    assert "<h1>demo/ft on demo/plus</h1>" in (tmp_path / "new" / "page.html").read_text()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]


def test_a_file_is_written_to_a_folder_that_is_there(world, capsys, monkeypatch, tmp_path):
    """Whichever command writes it; only a result that is a folder is made with those above it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.json").write_text(json.dumps(compare_data()))
    (tmp_path / "file").touch()
    for command, source, name in (("report", "a.json", "page.html"), ("extract", "demo/ft", "tau.safetensors")):
        ran = hf_bico(capsys, monkeypatch, command, source, "--output", f"no/such/{name}")
        assert_refused(ran, "there is no folder no/such: make it", "--output")
        assert_refused(hf_bico(capsys, monkeypatch, command, source, "--output", f"file/{name}"), "is not a folder")
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", "file"}
    deep = ("--method", "naive", "-n", "4", "--eval-n", "8", "--output", "such/a/port")
    assert hf_bico(capsys, monkeypatch, *TINY_PORT[:-2], *deep).code == 0
    assert (tmp_path / "such" / "a" / "port" / "hf_bico.json").is_file()
