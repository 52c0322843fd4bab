"""What is printed in which format: as the Hub's own command has it, agents are found by the Hub's client."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import TINY_PORT, hf_bico
from support.hub import client_env

from hf_bico.cli.console import Format, Grid

HARNESSES = {"standardEnvVars": ["AI_AGENT", "AGENT"], "harnesses": {"some-agent": {"envVars": {"SOME_AGENT": "*"}}}}
"""What the Hub says of agents, as its client keeps it."""


def methods(home: Path, hub, *words: str, known_agents=HARNESSES, **env: str) -> subprocess.CompletedProcess:
    """The command `methods` in a process of its own, whose client knows some agents."""
    home.mkdir(exist_ok=True)
    (home / ".agent_harnesses.json").write_text(json.dumps(known_agents))
    known = {name: value for name, value in client_env(hub, home).items() if name not in ("AI_AGENT", "AGENT")}
    command = [sys.executable, "-m", "hf_bico", "methods", *words]
    return subprocess.run(command, env=known | env, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("words", "env", "agent"),
    [
        ((), {}, False),
        ((), {"SOME_AGENT": "1"}, True),
        ((), {"AI_AGENT": "another"}, True),
        (("--format", "human"), {"SOME_AGENT": "1"}, False),
        (("--format", "agent"), {}, True),
        (("--format", "auto"), {"AGENT": "some-agent"}, True),
    ],
)
def test_auto_is_what_the_hubs_client_finds(words, env, agent, hub, tmp_path):
    ran = methods(tmp_path / "home", hub, *words, **env)
    assert ran.returncode == 0, ran.stderr
    assert ("\t" in ran.stdout) is agent
    assert ran.stdout.split()[:4] == ["method", "what", "it", "does"]
    assert ran.stdout.startswith("method\twhat it does\t") is agent


@pytest.mark.parametrize("answer", [["a list"], {"harnesses": {"x": 1}}], ids=str)
def test_an_answer_that_is_none_is_no_agent(answer, hub, tmp_path):
    ran = methods(tmp_path / "home", hub, known_agents=answer, SOME_AGENT="1")
    assert ran.returncode == 0, ran.stderr
    assert "\t" not in ran.stdout


def test_there_are_the_formats_of_the_hubs_own_command():
    from huggingface_hub.cli._output import OutputFormat

    assert {each.value for each in Format} == {each.value for each in OutputFormat}


def test_a_grid_is_a_line_a_row_for_agents():
    grid = Grid(("a", "b"), [("1", "two\twords\nmore"), ("[bold]x[/]", "\x1b[31m")], "said")
    assert list(grid.lines()) == ["said", "a\tb", "1\ttwo words more", "[bold]x[/]\t\\x1b[31m"]


def test_a_ports_scores_for_agents_and_people(world, capsys, monkeypatch):
    """The same figures, as lines with tabs and as a table; on stderr the same stages."""
    agent, human = (
        hf_bico(capsys, monkeypatch, *TINY_PORT, "-n", "20", "--format", each) for each in ("agent", "human")
    )
    assert agent.code == human.code == 0, agent.err
    header, *rows = (line.split("\t") for line in agent.out.splitlines() if "\t" in line)
    assert header[0] == "model" and len(rows) == 4
    for row in rows:
        assert len(row) == len(header)
        assert all(cell in human.out for cell in row)
    assert "\t" not in human.out and "─" in human.out and "─" not in agent.out
    assert "Verdict: " in agent.out and "Verdict: " in human.out


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ((*TINY_PORT, "--dry-run"), ("source", "linear maps", "search and evaluation", "would be pushed to")),
        (("check", *TINY_PORT[1:]), ("by layer", "by block")),
    ],
    ids=["dry-run", "check"],
)
def test_facts_are_lines_with_tabs_for_agents(words, names, world, capsys, monkeypatch):
    """What people read in columns: the same names, and the same is said of them."""
    said = (hf_bico(capsys, monkeypatch, *words, "-n", "8", "--format", each).out for each in ("agent", "human"))
    agent, human = (each.splitlines() for each in said)
    told = dict(line.split("\t", 1) for line in agent if "\t" in line)
    for name in names:
        assert told[name] and any(line.startswith(f"{name} ") for line in human)
    assert not any("\t" in line for line in human)
    if "--dry-run" in words:
        assert agent[0] == human[0] and all(line.count("\t") == 1 for line in agent[1:])


def test_long_cells_are_whole_where_no_terminal_is(capsys, monkeypatch, world):
    ran = hf_bico(capsys, monkeypatch, "methods", "--format", "human")
    every = json.loads(hf_bico(capsys, monkeypatch, "methods", "--format", "json").out)
    assert all(each["summary"] in ran.out for each in every)
