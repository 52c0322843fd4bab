"""docs/api.md is what the code says, and everything public says something."""

import re
from pathlib import Path

import pytest
import typer

import hf_bico
from hf_bico.cli.main import app

ROOT = Path(__file__).parents[2]
COMMANDS = typer.main.get_command(app).commands


@pytest.fixture(scope="module")
def text():
    return (ROOT / "docs" / "api.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tools():
    """The generator's two modules: what writes the page, and what reads the source."""
    from hub_scripts.reference import page, source

    return page, source


def test_the_page_is_up_to_date(text, tools):
    writer, _ = tools
    assert text == writer.page(), f"docs/api.md is out of date; run: {writer.COMMAND}"


def test_the_page_has_every_public_name(text):
    assert set(hf_bico.__all__) <= set(re.findall(r"^### (\w+)$", text, re.MULTILINE))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_page_has_every_option(text, name):
    part = re.search(rf"^### hf-bico {name}\n(.*?)(?=^### |\Z)", text, re.MULTILINE | re.DOTALL)[1]
    told = set(re.findall(r"(?<!\S)--?[a-z][\w-]*", " ".join(re.findall("- `(.+?)`", part))))
    assert told == {each for param in COMMANDS[name].params for each in param.opts if each[0] == "-"}


def test_the_page_says_what_objects_are(text):
    """Fields and methods with their words, also inherited ones; defaults by value; an alias; errors."""
    parts = dict(re.findall(r"^### (\w+)\n(.*?)(?=^### |\Z)", text, re.MULTILINE | re.DOTALL))
    assert "- `rtol: float = 1e-05`\\\n  Singular values of a cross-moment" in parts["BiCo"]
    assert "- `centred: bool = True`\\\n  Subtract the mean over the rows" in parts["Weighted"]
    assert re.search(r"- `delta: [^`]+`\\\n  The target's change by state-dict name", parts["Ported"])
    assert "- `apply_(alpha: float = 1.0) -> nn.Module`\\\n  Add the port to the target in place" in parts["Ported"]
    assert "Loss = Callable[[nn.Module, Any], Tensor]\n```\n\n(model, batch) → the loss" in parts["Loss"]
    assert "**Raises**\n\n- `PortError`: what `job_of` refuses" in parts["port"]


def undocumented(source, made) -> list[str]:
    """A public name and its methods that no docstring, own or inherited, explains. A field may say all by its name."""
    _, methods = source.parts(made)
    return [made.name] * (not made.doc) + [f"{made.name}.{each.name}" for each in methods if not each.doc]


def test_everything_public_has_a_docstring(tools):
    _, source = tools
    assert [name for made in source.public() for name in undocumented(source, made)] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_a_help_text(name):
    assert COMMANDS[name].help
    assert [param.name for param in COMMANDS[name].params if not param.help] == []
