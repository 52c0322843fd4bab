"""No error advises an option that does not exist."""

import inspect
import re
from pathlib import Path

import hf_bico
from hf_bico.cli.main import app
from hf_bico.workflows import config
from hf_bico.workflows.options import flags_of

NAMED = re.compile(r"setting\(\"(\w+)\"\)|setting\('(\w+)'\)")


def advised() -> dict[str, str]:
    """Setting → a file that advises it."""
    sources = Path(hf_bico.__file__).parent.rglob("*.py")
    return {a or b: str(path) for path in sources for a, b in NAMED.findall(path.read_text(encoding="utf-8"))}


def there() -> set[str]:
    """Names of all settings: of configs, commands, and public functions and classes of the Python API."""
    configs = [each for _, each in inspect.getmembers(config, inspect.isclass) if each.__module__ == config.__name__]
    found = {name for each in configs for name in flags_of(each)}
    found |= {name for command in app.registered_commands for name in inspect.signature(command.callback).parameters}
    for each in (getattr(hf_bico, name) for name in hf_bico.__all__ if name != "PortError"):
        parts = [each, *vars(each).values()] if inspect.isclass(each) else [each]
        found |= {name for part in parts if inspect.isroutine(part) or part is each for name in parameters(part)}
    return found


def parameters(part) -> set[str]:
    part = getattr(part, "__func__", part)
    return set(inspect.signature(part).parameters) if callable(part) else set()


def test_what_errors_advise_exists():
    assert {name: path for name, path in advised().items() if name not in there()} == {}
    assert len(advised()) > 20


def test_advice_is_not_written_out():
    """A setting is spelled as its caller would: an error that says "--base" is wrong in Python."""
    flags = re.compile(r"PortError\([^)]*?[\" ]--[a-z]")
    sources = Path(hf_bico.__file__).parent.rglob("*.py")
    assert [path.name for path in sources if flags.search(path.read_text(encoding="utf-8"))] == []
