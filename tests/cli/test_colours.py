"""Colours are on a terminal alone, for people alone; the text is the same without them."""

import os
import pty
import re
import subprocess
import sys

import pytest
from rich.console import Console

from hf_bico.cli.console import TONES, Grid, toned
from hf_bico.reports.verdict import Grade
from hf_bico.reports.worth import Word

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
WRONG = ("methods", "--no-such")
"""A command that ends before anything is imported."""


def on_a_terminal(*words: str, **env: str) -> str:
    """What a command prints on a terminal, stdout and stderr together."""
    ours, theirs = pty.openpty()
    known = {
        name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE")
    }
    command = [sys.executable, "-m", "hf_bico", *words]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=known | {"TERM": "xterm", "COLUMNS": "300"} | env
    ) as ran:
        os.close(theirs)
        told = b""
        while True:
            try:
                some = os.read(ours, 65536)
            except OSError:  # its end is closed
                break
            if not some:
                break
            told += some
    os.close(ours)
    assert ran.returncode in (0, 2)
    return told.decode().replace("\r\n", "\n")


def test_an_error_is_red_on_a_terminal_and_the_same_text_without():
    told = on_a_terminal(*WRONG)
    plain = subprocess.run([sys.executable, "-m", "hf_bico", *WRONG], capture_output=True, text=True)
    assert told.startswith("\x1b[31mError:\x1b[0m No such option")
    assert ESCAPE.sub("", told) == plain.stderr
    assert plain.stderr.startswith("Error: No such option") and plain.stdout == ""


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_no_colours_where_none_are_wanted(env):
    assert "\x1b" not in on_a_terminal(*WRONG, **env)


@pytest.mark.parametrize("format", ["agent", "json", "quiet"])
def test_no_colours_where_no_human_reads(format):
    assert "\x1b" not in on_a_terminal("check", "a/b", "--to", "c/d", "--device", "abacus", "--format", format)


def test_help_is_the_same_text_without_colours():
    told = on_a_terminal("methods", "--help", COLUMNS="80")
    plain = subprocess.run(
        [sys.executable, "-m", "hf_bico", "methods", "--help"],
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "80"},
    )
    assert "\x1b[" in told and ESCAPE.sub("", told) == plain.stdout


def test_every_verdict_has_its_colour():
    good, bad = {Grade.GOOD, Word.WORKS}, {Grade.POOR, Grade.IMPOSSIBLE, Word.HARMFUL}
    for word in (*Grade, *Word):
        assert TONES[word.value] == ("green" if word in good else "red" if word in bad else "yellow")


def test_a_table_has_the_colours_of_one_column():
    grid = Grid(("method", "verdict"), [("good", "works*"), ("bico", "no gain, best")], tone="verdict")
    console = Console(force_terminal=True, color_system="standard", width=80)
    with console.capture() as caught:
        console.print(grid.table())
    told = caught.get()
    assert "\x1b[32mworks*" in told and "\x1b[33mno gain, best" in told and "\x1b[32mgood" not in told
    assert toned("unheard of") == ("unheard of", "")
