"""Values of a YAML file as the settings of a config: what is of another type, or of an unknown name, is said."""

from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hf_bico.core.errors import PortError
from hf_bico.workflows.options import Option, flag_of, is_list, options_of

SHOWN = 60
"""The most characters of a wrong value that an error shows."""


def value_of(where: str, found: Option, kind: Any, given: Any) -> Any:
    """Return a setting's value as its config has it.

    Args:
        where: what to call it in errors.
        kind: its type.

    Raises:
        PortError: it is of another type, too small, or a file that is not there.
    """
    if is_list(kind):
        return tuple(_each(where, given))
    number = isinstance(given, int | float) and not isinstance(given, bool) and not _is_endless(given)
    if found.parse and (number or isinstance(given, str)):
        return found.parse(str(given))
    if kind is bool and isinstance(given, bool):
        return given
    if kind is float and number:
        return float(given)
    if kind is int and number and float(given).is_integer():
        if found.least is not None and given < found.least:
            raise PortError(f"{where} is {found.least} or more, not {given}")
        return int(given)
    if kind is str:
        return name_of(where, given)
    if kind is Path and isinstance(given, str):
        path = Path(given).expanduser()
        if found.exists and not path.is_file():
            raise PortError(f"{where}: there is no file {given}")
        return path
    what = {bool: "true or false", int: "a whole number", Path: "the path of a file"}.get(kind, "a number or a word")
    raise PortError(f"{where} is {what}, not {shown(given)}")


def _is_endless(given: int | float) -> bool:
    return isinstance(given, int) and abs(given) >= 2**63


def _each(where: str, given: Any) -> Iterator[str]:
    """Yield the words of an option that may be repeated: a list of them, or a mapping of name and value."""
    if isinstance(given, Mapping):
        yield from (f"{name}={text_of(f'{where}.{name}', str(value))}" for name, value in given.items())
    else:
        yield from (name_of(where, each) for each in (given if isinstance(given, list) else [given]))


def name_of(where: str, given: Any) -> str:
    """Return a text that is not empty.

    Raises:
        PortError: it is, or it is no text.
    """
    text = text_of(where, given)
    if not text:
        raise PortError(f"{where} is empty")
    return text


def text_of(where: str, given: Any) -> str | None:
    """Return a text; a number is taken for one, and nothing for None.

    Raises:
        PortError: it is no text.
    """
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        raise PortError(f"{where} is a text, not {shown(given)}")
    return str(given).strip()


def shown(given: Any) -> str:
    """Return a wrong value for an error, its end cut if it is long."""
    text = repr(given)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def meant(key: str, known: Collection[str], config: type | None = None) -> str | None:
    """Return which of the known settings an unknown key may stand for, if it can be guessed.

    Args:
        config: the settings' own, whose options have names on the command line too.
    """
    names = {name: name for name in known}
    if config:
        names |= {flag: name for flag, name in flags_in(config).items() if name in known}
    near = get_close_matches(key.replace("-", "_").lower(), names, 1, 0.6)
    return names[near[0]] if near else None


def flags_in(config: type) -> dict[str, str]:
    """Return the settings of a config by what the command line calls them, without dashes before."""
    return {flag_of(each).strip("-").lower(): each.name for each, _ in options_of(config)}
