"""The command line, run in this process as the console script runs it."""

import json
import sys
from typing import Any, NamedTuple

from hf_bico.cli import main as cli

TINY_PORT = ("port", "demo/ft", "--to", "demo/plus", "--dataset", "demo/task", "--method", "bico")
"""A port in the tiny world."""


class Ran(NamedTuple):
    code: int
    out: str
    err: str


def hf_bico(capsys, monkeypatch, *words: str) -> Ran:
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["hf-bico", *map(str, words)])
    try:
        cli.main()
        code = 0
    except SystemExit as stop:
        code = stop.code
    return Ran(code, *capsys.readouterr())


def json_of(capsys, monkeypatch, *words: str, code: int = 0) -> Any:
    """Return what a command tells programs, which ends with this code."""
    ran = hf_bico(capsys, monkeypatch, *words, "--format", "json")
    assert ran.code == code, ran
    return json.loads(ran.out)


def assert_refused(ran: Ran, *words: str) -> None:
    """Exit code 2, nothing on stdout, and one line that says these words; before it stages and notes alone."""
    assert ran.code == 2, ran
    assert ran.out == ""
    *stages, error = ran.err.splitlines()
    assert all(line.endswith(" …") or line.startswith("Note: ") for line in stages), ran.err
    assert error.startswith("Error: ")
    for word in words:
        assert word in error, ran.err
