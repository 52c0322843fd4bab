"""No error advises an option that does not exist."""

import ast
import inspect
import re
import shlex
import shutil
from dataclasses import is_dataclass
from pathlib import Path

import typer
from support.commands import TINY_PORT, assert_refused, hf_bico, json_of

import hf_bico as package
from hf_bico.cli.main import app
from hf_bico.workflows import choices, config
from hf_bico.workflows.options import flags_of

NAMED = re.compile(r"setting\(\"(\w+)\"\)|setting\('(\w+)'\)")


def advised() -> dict[str, str]:
    """Setting → a file that advises it."""
    sources = Path(package.__file__).parent.rglob("*.py")
    return {a or b: str(path) for path in sources for a, b in NAMED.findall(path.read_text(encoding="utf-8"))}


def there() -> set[str]:
    """Names of all settings: of configs, commands, and public functions and classes of the Python API."""
    parts = [each for module in (choices, config) for _, each in inspect.getmembers(module, inspect.isclass)]
    found = {name for each in parts if is_dataclass(each) for name in flags_of(each)}
    found |= {name for command in app.registered_commands for name in inspect.signature(command.callback).parameters}
    for each in (getattr(package, name) for name in package.__all__ if name != "PortError"):
        parts = [each, *vars(each).values()] if inspect.isclass(each) else [each]
        found |= {name for part in parts if inspect.isroutine(part) or part is each for name in parameters(part)}
    return found


def parameters(part) -> set[str]:
    part = getattr(part, "__func__", part)
    return set(inspect.signature(part).parameters) if callable(part) else set()


def test_what_errors_advise_exists():
    assert {name: path for name, path in advised().items() if name not in there()} == {}
    assert len(advised()) > 20


def suggested() -> dict[str, str]:
    """Command in an error or in a verdict's next step → its file; what is filled in is an x."""
    found = {}
    for path in Path(package.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        doc = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant | ast.JoinedStr) and id(node) not in doc:
                text = ast.unparse(node)
                found |= dict.fromkeys(re.findall(r"`(hf-bico [^`]+)`", text), path.name)
    return {
        re.sub(r"{[^}]*}", "x", line): name
        for line, name in found.items()
        if "{asked}" not in line and line != "hf-bico card"
    }


def test_commands_that_are_suggested_are_whole():
    """Every one is taken by its command as it stands."""
    commands = typer.main.get_command(app).commands
    told = suggested()
    assert len(told) >= 4
    for line, path in told.items():
        _, name, *words = shlex.split(line)
        if path not in ("config.py", "choices.py"):  # what an option is for is no advice
            commands[name].make_context(name, words)


def test_a_verdict_names_the_whole_command(world, capsys, monkeypatch, tmp_path):
    """It runs as it stands, and says nothing of where on this machine something lies."""
    shutil.copytree(world / "ft", tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    words = ("port", tmp_path / "mine", "--base", "demo/base", *TINY_PORT[2:], "-n", "20", "--alpha", "0")
    said = json_of(capsys, monkeypatch, *words)["verdict"]["next"]
    command = re.search("`(hf-bico compare [^`]+)`", said)[1]
    assert command == "hf-bico compare ./mine --base demo/base --to demo/plus --dataset demo/task"
    ran = hf_bico(capsys, monkeypatch, *shlex.split(command)[1:], "-n", "8", "--seeds", "1", "--method", "naive")
    assert ran.code == 0, ran.err


def test_a_wrong_word_names_the_help(capsys, monkeypatch):
    assert_refused(hf_bico(capsys, monkeypatch, "port", "--no-such"), "; see `hf-bico port --help`")


def test_advice_is_not_written_out():
    """A setting is spelled as its caller would: an error that says "--base" is wrong in Python."""
    flags = re.compile(r"PortError\([^)]*?[\" ]--[a-z]")
    sources = Path(package.__file__).parent.rglob("*.py")
    assert [path.name for path in sources if flags.search(path.read_text(encoding="utf-8"))] == []
