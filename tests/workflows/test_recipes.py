"""A recipe says a port as its command does; what is wrong in one is said in one line; no repo's recipe is ever run."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from support.commands import TINY_PORT, assert_refused, hf_bico

from hf_bico import PortConfig, PortError
from hf_bico.workflows import port
from hf_bico.workflows.options import RECIPE_FILE
from hf_bico.workflows.recipe import is_recipe, read_recipe
from hf_bico.workflows.redo import Redo, told_place

NEEDED = "source: demo/ft\ntarget: demo/plus\ndataset: demo/task\n"


@pytest.fixture
def told(monkeypatch, capsys, tmp_path):
    """Returns the config that the words of a command give, without porting."""
    monkeypatch.chdir(tmp_path)

    def of(*words) -> PortConfig:
        seen = []

        def run(config, *_):
            seen.append(config)
            raise PortError("enough")

        monkeypatch.setattr(port, "run", run)
        ran = hf_bico(capsys, monkeypatch, "port", *words)
        assert ran.code == 2 and ran.err.endswith("Error: enough\n"), ran
        return seen[0]

    return of


@pytest.fixture
def written(tmp_path):
    """Writes a recipe, and returns its path."""

    def write(text: str, name: str = RECIPE_FILE) -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


def test_a_ports_own_recipe_gives_the_same_bits(pushed, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    ran = hf_bico(capsys, monkeypatch, "port", pushed[0] / RECIPE_FILE, "--output", "again")
    assert ran.code == 0, ran.err
    again, first = (load_file(folder / "open_clip_model.safetensors") for folder in (tmp_path / "again", pushed[0]))
    assert again.keys() == first.keys() and all(torch.equal(again[key], first[key]) for key in first)
    said, before = (yaml.safe_load((folder / RECIPE_FILE).read_text()) for folder in (tmp_path / "again", pushed[0]))
    assert said == before | {"output": "again"}
    assert before["output"] == pushed[0].name, "of an absolute path its last name alone"


def test_the_recipe_and_the_command_of_a_port_say_the_same(pushed, told):
    report = json.loads((pushed[0] / "hf_bico.json").read_text())
    by_recipe = told(pushed[0] / RECIPE_FILE)
    assert by_recipe == told(*shlex.split(report["command"])[2:])
    assert "@" in by_recipe.source and "@" in by_recipe.base and "@" in by_recipe.target and "@" in by_recipe.dataset


@pytest.mark.parametrize(
    "settings",
    [
        {"alpha": 0.1 + 0.2, "energy": 1e-5, "n": 7},
        {"method_options": ("ridge=1", "rtol=0.5"), "trust_base": True, "push": False},
        {"layers": "5", "skip": "null", "columns": "label=yes,image=a: b", "split": "1e3"},
        {"alpha": "auto", "commit_message": "- α: #1 'so'", "private": True},
        {"bank": Path("/somewhere/else/texts.txt"), "matching": "pairs.yaml", "per_class": 3},
    ],
    ids=["numbers", "lists", "texts", "words", "files"],
)
def test_any_settings_are_the_same_as_words_and_as_a_recipe(settings, told, written):
    redo = Redo("port", PortConfig, {"source": "a/b", "target": "c/d", "dataset": "e/f", **settings})
    assert told(written(redo.recipe)) == told(*shlex.split(redo.command)[2:])
    assert "/somewhere" not in redo.recipe


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Path("mine"), "mine"),
        (Path("runs/first"), "runs/first"),
        (Path("../beside"), "../beside"),
        (Path("/home/somebody/runs/first"), "first"),
        (None, "ported"),
    ],
    ids=str,
)
def test_the_folder_is_the_users_own_and_no_path_of_a_machine(given, said, told, written):
    settings = {"source": "a/b", "target": "c/d", "dataset": "e/f", "output": told_place(given, "ported")}
    redo = Redo("port", PortConfig, settings)
    assert redo.command.endswith(f" --output {said}")
    assert told(written(redo.recipe)).output == told(*shlex.split(redo.command)[2:]).output == Path(said)


def test_what_is_said_beside_a_recipe_wins(told, written):
    recipe = written(f"{NEEDED}per_class: 3\nmethod: bico\nmethod_options: [rtol=0.5]\nalpha: 2\nseed: 4\n")
    config = told(recipe, "--alpha", "0.5", "--to", "demo/other", "-n", "9", "--method", "naive")
    assert (config.alpha, config.target, config.seed) == (0.5, "demo/other", 4)
    assert (config.n, config.per_class, config.method, config.method_options) == (9, None, "naive", ())
    over = told(recipe, "--maps", "demo/maps")
    assert (over.maps, over.method, over.method_options) == ("demo/maps", PortConfig.method, ())


def test_settings_go_by_their_options_names_too(told, written):
    text = "source: a/b\nto: c/d\ndataset: e/f\nas: lora\nset: {steps: 2}\nbatch-size: 3\n"
    config = told(written(text, "mine.YML"))
    assert (config.target, config.form, config.method_options, config.batch_size) == ("c/d", "lora", ("steps=2",), 3)


def test_what_a_recipe_lacks_may_be_said_beside_it(told, written, capsys, monkeypatch):
    recipe = written("source: demo/ft\n")
    assert told(recipe, "--to", "demo/plus", "--dataset", "demo/task").target == "demo/plus"
    assert_refused(hf_bico(capsys, monkeypatch, "port", recipe), "dataset is missing; target is missing")
    assert_refused(hf_bico(capsys, monkeypatch, "port", "demo/ft", "--to", "demo/plus"), "--dataset is missing")
    assert_refused(hf_bico(capsys, monkeypatch, "port", "gone.yaml"), "there is no recipe gone.yaml")


def test_of_a_folder_that_is_a_port_the_recipe_is_pointed_to(told, written, tmp_path, capsys, monkeypatch):
    (tmp_path / "my port").mkdir()
    written(NEEDED, f"my port/{RECIPE_FILE}")
    for place in ("my port", "my port/", "./my port"):
        ran = hf_bico(capsys, monkeypatch, "port", place, "--output", "out")
        assert_refused(ran, f"{place} is the folder of a port", "`hf-bico port 'my port/recipe.yaml'`", "--to")
    assert told(*shlex.split(ran.err.split("`")[1])[2:]).source == "demo/ft"
    assert told("my port", "--to", "demo/plus", "--dataset", "demo/task").source == "my port", "it is a model too"


WRONG = {
    "unknown keys and wrong types": (
        NEEDED + "no_such: 1\nsede: 3\nn: many\nstreaming: maybe\nonly: [norms]\nmax_length: 0\nsplit:\n",
        "no_such is not a setting; sede is not a setting (did you mean seed?); n is a whole number, not 'many'; "
        "streaming is true or false, not 'maybe'; only is a text, not ['norms']; max_length is 1 or more, not 0; "
        "split has no value: give one, or leave it out",
    ),
    "a setting twice": (f"{NEEDED}to: demo/other", "target is said twice, as target and to"),
    "no mapping": ("- demo/ft", "a recipe is lines of setting: value, such as source: org/ft, not a list"),
    "an empty file": ("", "not null"),
    "no YAML": ("source: [", "is no readable YAML"),
    "an object of Python's": (f"{NEEDED}seed: !!python/object/apply:os.mkdir [evil]", "is no readable YAML"),
    "a bomb": ("a: &a [x, x, x, x, x, x, x, x]\n" + "".join(f"b{i}: &b{i} [{', '.join([f'*{b}'] * 9)}]\n" for i, b in (
        enumerate(["a", *(f"b{k}" for k in range(8))])
    )), "too large with its aliases"),
    "an endless number": (f"{NEEDED}seed: 1{'0' * 400}", "seed is a whole number"),
    "a file that is not there": (f"{NEEDED}templates: nothing.txt", "templates: there is no file nothing.txt"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_all_that_is_wrong_is_said_in_one_line(name, written, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    text, why = WRONG[name]
    recipe = written(text)
    assert_refused(hf_bico(capsys, monkeypatch, "port", recipe, "--output", "out"), f"{recipe}: ", why)
    assert list(tmp_path.iterdir()) == [recipe]


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"source: \xff")
    with pytest.raises(PortError, match="it is no text"):
        read_recipe(tmp_path / "x.yaml", ())


def test_a_repo_with_a_recipe_is_a_repo(world, capsys, monkeypatch, tmp_path):
    """Its recipe is not looked at, whatever it says; nor is what only looks like the name of one."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(world / "ft", "ft.yaml")
    evil = {"source": "x", "target": "y", "dataset": "z", "method": "naive", "output": "evil", "push_to": "demo/evil"}
    Path("ft.yaml", RECIPE_FILE).write_text(yaml.safe_dump(evil))
    words = ("port", "./ft.yaml", *TINY_PORT[2:], "--base", "demo/base", "-n", "20", "--output", "out")
    ran = hf_bico(capsys, monkeypatch, *words)
    assert ran.code == 0, ran.err
    assert {path.name for path in tmp_path.iterdir()} == {"ft.yaml", "out"}
    said = yaml.safe_load(Path("out", RECIPE_FILE).read_text())
    assert (said["source"], said["method"], said["output"]) == ("./ft.yaml", "bico", "out")
    assert str(tmp_path) not in Path("out", RECIPE_FILE).read_text()
    assert not is_recipe("demo/recipe.yaml") and not is_recipe("hf://demo/recipe.yaml") and not is_recipe("ft.yaml")
