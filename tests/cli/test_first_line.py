"""A command says what it does at once, before anything slow is imported; where programs read, it says nothing."""

import subprocess
import sys

import pytest
from support.commands import hf_bico

COMMANDS = {
    "port": (("a/b", "--to", "c/d", "--dataset", "e/f"), "Porting a/b → c/d …"),
    "check": (("a/b", "--to", "c/d"), "Checking a/b → c/d …"),
    "compare": (("a/b", "--to", "c/d", "--dataset", "e/f"), "Comparing ports of a/b → c/d …"),
    "align": (("a/b", "c/d", "--dataset", "e/f", "--output", "maps"), "Making maps of a/b → c/d …"),
    "fleet": (("plan.yaml",), "Reading plan.yaml …"),
    "extract": (("a/b", "--output", "x.safetensors"), "Taking the task vector of a/b …"),
    "apply": (("x.safetensors", "--to", "c/d", "--output", "y"), "Adding x.safetensors to c/d …"),
    "card": (("ported",), "Writing the card of ported …"),
    "methods": ((), "Looking the methods up …"),
}
HEAVY = {"torch", "transformers", "datasets", "huggingface_hub", "numpy", "scipy"}
SEEN = f"""
import sys
from rich.console import Console
from hf_bico.cli import console, main

def told(line, **_):
    print(line, *sorted({HEAVY!r} & sys.modules.keys()), sep="|")
    raise KeyboardInterrupt

console.stderr.print = told
main.main()
"""


@pytest.mark.parametrize("name", COMMANDS)
def test_the_first_line_comes_before_anything_heavy(name, tmp_path):
    words, line = COMMANDS[name]
    ran = subprocess.run([sys.executable, "-c", SEEN, name, *words], cwd=tmp_path, capture_output=True, text=True)
    assert ran.stdout.splitlines()[0] == line, ran.stderr


@pytest.mark.parametrize("words", [("--format", "json"), ("--format", "quiet"), ("-q",)])
def test_programs_are_told_nothing(words, capsys, monkeypatch):
    ran = hf_bico(capsys, monkeypatch, "methods", *words)
    assert (ran.code, ran.err) == (0, "")


def test_a_commit_is_told_by_its_first_digits_and_nothing_steers_the_terminal(capsys, monkeypatch):
    name = f"a/b@{'0123456789' * 4}"
    ran = hf_bico(capsys, monkeypatch, "check", name, "--to", "c/d\x1b[31m", "--max-length", "0")
    assert ran.code == 2
    ran = hf_bico(capsys, monkeypatch, "check", name, "--to", "c/d\x1b[31m", "--device", "abacus")
    assert ran.err.splitlines()[0] == "Checking a/b@0123456 → c/d\\x1b[31m …"


def test_that_nothing_is_kept_is_said_before_the_work(world, capsys, monkeypatch, tmp_path):
    """To people, of a port that has no place; nobody has to wait for minutes to be told."""

    def told(*words: str) -> list[str]:
        ran = hf_bico(capsys, monkeypatch, "port", "demo/gone", "--to", "demo/plus", "--dataset", "demo/task", *words)
        _, *notes, error = ran.err.splitlines()
        assert ran.code == 2 and error.startswith("Error: "), ran
        return notes

    said = ["Note: nothing will be kept but what is printed here: give --output DIR or --push"]
    assert told("--format", "human") == said
    for place in (("--output", str(tmp_path / "out")), ("--push",), ("--push-to", "demo/out"), ("--dry-run",)):
        assert told("--format", "human", *place) == []
    assert told("--format", "agent") == []
