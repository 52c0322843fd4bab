"""Help fits the terminal and breaks no word, groups the options in one order, and its examples are commands."""

import re
import shlex
from dataclasses import fields

import pytest
import typer
from support.commands import hf_bico

from hf_bico.cli.help import EXAMPLES, FIRST
from hf_bico.cli.main import app
from hf_bico.workflows import config as configs
from hf_bico.workflows.options import GROUPS, group_of, options_of

COMMANDS = typer.main.get_command(app).commands
WIDTHS = (60, 80, 100, 120)


def shown(capsys, monkeypatch, *words: str, width: int = 80) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    ran = hf_bico(capsys, monkeypatch, *words, "--help")
    assert ran.code == 0 and ran.err == ""
    return ran.out


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("words", [(), *((name,) for name in COMMANDS)], ids=str)
def test_no_line_is_too_long_and_no_word_is_broken(words, width, capsys, monkeypatch):
    page = shown(capsys, monkeypatch, *words, width=width)
    assert max(map(len, page.splitlines())) <= width
    wide = shown(capsys, monkeypatch, *words, width=1000)

    def told(text: str) -> list[str]:
        return re.sub(r" \\\n", " ", text).split()

    assert told(page) == told(wide)
    for param in (COMMANDS[words[0]] if words else typer.main.get_command(app)).params:
        assert all(word in wide.split() for word in param.help.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_groups_are_in_one_order_and_say_all_options_once(name, capsys, monkeypatch):
    page = shown(capsys, monkeypatch, name)
    heads = [line for line in page.splitlines() if line in (*GROUPS, "Examples")]
    assert heads == [each for each in (*GROUPS, "Examples") if each in heads]
    assert heads[-1] == "Examples"
    for param in COMMANDS[name].params:
        if param.param_type_name == "option":
            assert len(re.findall(rf"^  (?:-\w, )?{re.escape(param.opts[-1])}(?![\w-])", page, re.MULTILINE)) == 1


@pytest.mark.parametrize("config", [kind for name, kind in vars(configs).items() if name.endswith("Config")])
def test_every_option_has_a_group_and_it_is_the_same_in_all_commands(config):
    for each, _ in options_of(config):
        assert group_of(config, each.name) in GROUPS
    port = {each.name for each in fields(configs.PortConfig)}
    for each in fields(config):
        if each.name in port:
            assert group_of(config, each.name) == group_of(configs.PortConfig, each.name)


@pytest.mark.parametrize("example", [each for some in (*EXAMPLES.values(), FIRST) for each in some])
def test_examples_are_commands(example, tmp_path, monkeypatch):
    program, name, *words = shlex.split(example)
    assert program == "hf-bico"
    if "--help" not in words:
        COMMANDS[name].make_context(name, words)


def test_every_command_has_examples_of_its_own():
    assert EXAMPLES.keys() == COMMANDS.keys()
    assert all(each.split()[1] == name for name, some in EXAMPLES.items() for each in some[:1])


@pytest.mark.parametrize("width", WIDTHS[1:])
def test_a_command_is_told_in_one_line(width, capsys, monkeypatch):
    page = shown(capsys, monkeypatch, width=width)
    for name, command in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(command.help.splitlines()[0])}$", page, re.MULTILINE), name
        assert command.help.split("\n\n")[0].count("\n") == 0


def test_what_is_needed_is_said(capsys, monkeypatch):
    told = " ".join(shown(capsys, monkeypatch, "port").split())
    assert "The new base model. [required, unless a recipe says it]" in told
    assert "The new base model. [required]" in " ".join(shown(capsys, monkeypatch, "check").split())
