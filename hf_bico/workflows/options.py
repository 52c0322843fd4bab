"""A choice said once: a dataclass field with its help, its default and its option on the command line."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

OPTION = "option"
"""Key of a field's metadata."""
MODELS, SAMPLES, METHOD, OUTPUT, HUB, RUN = GROUPS = (
    "Source and target",
    "Samples",
    "Method",
    "Output",
    "Hub",
    "Run",
)
"""The groups in which help shows options, in this order. A class of choices says its own once, by `grouped`."""
GROUP = "_group"


@dataclass(frozen=True)
class Option:
    """How a choice is named and explained."""

    help: str
    """What it is, for `--help` and the reference."""
    flag: str | None = None
    """Its option on the command line, where that is not its own name; an argument has none."""
    argument: str | None = None
    """Name of an argument, in place of a flag."""
    least: int | None = None
    """The least number that is taken."""
    exists: bool = False
    """Whether it is a file that must be there."""
    parse: Callable[[str], Any] | None = None
    """Makes a value from the word that was given."""


def option(
    help: str,
    default: Any = MISSING,
    *,
    flag: str | None = None,
    least: int | None = None,
    exists: bool = False,
    parse: Callable[[str], Any] | None = None,
) -> Any:
    """Return a dataclass field that is an option.

    Args:
        flag: its option on the command line, where that is not its own name.
        least: the least number that is taken.
        exists: whether it is a file that must be there.
        parse: makes a value from the word that was given.
    """
    return field(default=default, metadata={OPTION: Option(help, flag, None, least, exists, parse)})


def argument(help: str, name: str) -> Any:
    """Return a dataclass field that is an argument of the command."""
    return field(metadata={OPTION: Option(help, argument=name)})


ENDINGS = (".yaml", ".yml")
"""How the name of a recipe ends; see `hf_bico.workflows.recipe`."""
RECIPE_FILE = "recipe.yaml"
"""The recipe that every port writes."""


def grouped(name: str) -> Callable[[type], type]:
    """Return a decorator of a class of choices, which says the group of the options that it is the first to name."""

    def made(config: type) -> type:
        setattr(config, GROUP, name)
        return config

    return made


def group_of(config: type, name: str) -> str:
    """Return the group of an option: that of the class which named it first, whoever said more of it since.

    Raises:
        KeyError: that class is in no group.
    """
    first = next(kind for kind in reversed(config.__mro__) if name in vars(kind).get("__annotations__", {}))
    if GROUP not in vars(first):
        raise KeyError(f"{first.__name__}, which names {name}, says no group: put @grouped(…) above it")
    return str(vars(first)[GROUP])


def options_of(config: Any) -> Iterator[tuple[Field, Option]]:
    """Yield the fields of a config that are options, in order."""
    for each in fields(config):
        if OPTION in each.metadata:
            yield each, each.metadata[OPTION]


def flag_of(each: Field) -> str:
    """Return what a field is called on the command line."""
    found: Option = each.metadata[OPTION]
    return found.argument or found.flag or f"--{each.name.replace('_', '-')}"


def help_of(config: type, name: str) -> str:
    """Return the help of a field."""
    return next(found.help for each, found in options_of(config) if each.name == name)


def flags_of(config: Any) -> dict[str, str]:
    """Return what every field of a config is called on the command line, by its name."""
    return {each.name: flag_of(each) for each, _ in options_of(config)}


def is_list(kind: Any) -> bool:
    """Return whether an option of this type may be repeated."""
    return get_origin(kind) is tuple


def types_of(config: Any) -> dict[str, Any]:
    """Return the type of every field of a config by its name; None is left out of a union."""
    hints = get_type_hints(config if isinstance(config, type) else type(config))
    return {name: _plain(kind) for name, kind in hints.items()}


def _plain(kind: Any) -> Any:
    rest = [each for each in get_args(kind) if each is not type(None)]
    return rest[0] if type(None) in get_args(kind) and len(rest) == 1 else kind


def is_chosen(config: Any, each: Field) -> bool:
    """Return whether a field of a config is not at its default."""
    return bool(getattr(config, each.name) != each.default)


def chosen(config: Any, names: Collection[str]) -> dict[str, Any]:
    """Return those of these fields of a config that are not at their default, with their values, by name."""
    some = (each for each, _ in options_of(config) if each.name in names and is_chosen(config, each))
    return {each.name: getattr(config, each.name) for each in some}


def words_of(config: Any, names: Collection[str], *, whole: bool = False) -> list[str]:
    """Return the words of a command that choose what a config does, for those of these fields that are not the default.

    Args:
        whole: whether a file goes by its path, for a command that is run here; else by its name alone.
    """
    return words(config, chosen(config, names), whole=whole)


def words(config: Any, settings: Mapping[str, Any], *, whole: bool = False) -> list[str]:
    """Return the words of a command that say these settings of a config: arguments first, the rest in their order."""
    arguments = [each.name for each, found in options_of(config) if found.argument]
    flags, found = flags_of(config), [str(settings[name]) for name in arguments if name in settings]
    for name, value in settings.items():
        if name not in arguments:
            found += spelled(flags[name], str(value) if whole and isinstance(value, Path) else value)
    return found


def spelled(flag: str, value: Any) -> list[str]:
    """Return an option and its value as the words of a command; a file by its name alone."""
    if isinstance(value, bool):
        return [flag] if value else []
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [word for each in value for word in (flag, str(each))]
    return [flag, value.name if isinstance(value, Path) else str(value)]
