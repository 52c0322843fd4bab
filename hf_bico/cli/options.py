"""The command line's options, made from the fields of a config, where each is said once."""

import inspect
import re
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import MISSING, Field
from functools import wraps
from pathlib import Path
from types import GenericAlias, MappingProxyType
from typing import Annotated, Any, NamedTuple

import typer

from hf_bico.cli.console import Format, Terminal, begin
from hf_bico.core.errors import PortError, setting
from hf_bico.core.notes import listening
from hf_bico.workflows.options import (
    ENDINGS,
    HUB,
    OPTION,
    RECIPE_FILE,
    RUN,
    Option,
    flag_of,
    flags_of,
    group_of,
    is_list,
    options_of,
    types_of,
)

Token = Annotated[
    str | None,
    typer.Option(help="A User Access Token [default: that of `hf auth login` or HF_TOKEN].", rich_help_panel=HUB),
]
Formatting = Annotated[
    Format,
    typer.Option(
        "--format",
        help="How results are printed: for people, for agents (plain, tab-separated), as JSON, or only what was made; "
        "auto is agent where one runs the command, else human.",
        rich_help_panel=RUN,
    ),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="The same as --format quiet: print only what was made.", rich_help_panel=RUN),
]
REQUIRED = "required, unless a recipe says it"
"""What help says in place of the default of an option that a recipe may say."""
EVERYWHERE = (("token", Token, None), ("format", Formatting, Format.AUTO), ("quiet", Quiet, False))
"""Name, type and default of what every command takes."""

spelled: dict[str, str] = {}
"""Setting → its option in the command that runs; `hf_bico.cli.main` spells errors so."""


class Call(NamedTuple):
    """What a command is called with, beside its config."""

    terminal: Terminal
    token: str | None
    flags: dict[str, Any]
    """The command's own options, which are no choices of a workflow."""
    said: frozenset[str]
    """Names of the settings that were given on the command line."""


def command(
    config: type, first: str, *, recipes: bool = False, **own: tuple[Any, Any]
) -> Callable[[Callable[[Any, Call], None]], Callable[..., None]]:
    """Return a decorator that makes a command of a function of a config.

    Args:
        config: a dataclass whose fields are options.
        first: what is printed at once, with settings as {name}.
        recipes: whether its argument may be a recipe that says the others.
        own: the command's own options, each with its annotated type and its default.
    """

    def made(run: Callable[[Any, Call], None]) -> Callable[..., None]:
        @wraps(run)
        def called(context: typer.Context, **given: Any) -> None:
            spelled.update(flags_of(config))
            sources = {name: context.get_parameter_source(name) for name in given}
            said = frozenset(name for name, source in sources.items() if source and source.name == "COMMANDLINE")
            format, quiet = given.pop("format"), given.pop("quiet")
            token, flags = given.pop("token"), {name: given.pop(name) for name in own}
            recipe = _recipe(given, said) if recipes else {}
            chosen = config_of(config, given, recipe)
            begin(format, quiet, first.format_map({name: _short(value) for name, value in vars(chosen).items()}))
            terminal = Terminal(format, quiet)
            with listening(terminal.note):
                run(chosen, Call(terminal, token, flags, said | recipe.keys()))

        parameters = [*_parameters(config, recipes), *(_parameter(name, *each) for name, each in own.items())]
        parameters += [_parameter(*each) for each in EVERYWHERE]
        context = _parameter("context", typer.Context, inspect.Parameter.empty)
        parameters = [context, *sorted(parameters, key=lambda p: p.default is not p.empty)]
        shown: Any = called
        shown.__signature__ = inspect.Signature(parameters)
        shown.__annotations__ = {each.name: each.annotation for each in parameters}
        return shown

    return made


def _short(value: Any) -> str:
    """Return a value for the first line; of a commit its first digits."""
    if isinstance(value, tuple):
        return ", ".join(map(_short, value))
    return re.sub(r"(?<=@[0-9a-f]{7})[0-9a-f]{33}$", "", str(value))


def _recipe(given: dict[str, Any], said: Collection[str]) -> dict[str, Any]:
    """Return the settings of the recipe that stands in the source's place, without those that were given beside it;
    none where it is no recipe.
    """
    source = given["source"]
    if not source.lower().endswith(ENDINGS):  # before anything is imported to read YAML
        _require_no_port(source, said)
        return {}
    from hf_bico.workflows.recipe import is_recipe, read_recipe

    if not is_recipe(source) and "target" not in said:  # else it may be a repo that is called so
        raise PortError(f"there is no recipe {source}: name a file, or a fine-tune and its {setting('target')}")
    return read_recipe(Path(source).expanduser(), {*said} - {"source"}) if is_recipe(source) else {}


def _require_no_port(source: str, said: Collection[str]) -> None:
    """Refuse a folder with a recipe that is named alone: what is meant is the recipe. As a fine-tune, which it is too,
    it would be named with its target.
    """
    recipe = Path(source).expanduser() / RECIPE_FILE
    if "target" not in said and recipe.is_file():
        named = shlex.quote(str(Path(source) / RECIPE_FILE))
        raise PortError(
            f"{source} is the folder of a port, and its recipe makes it again: `hf-bico port {named}`; to carry the "
            f"port itself further, say where with {setting('target')}"
        )


def config_of(config: type, given: dict[str, Any], recipe: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """Return the config that the words of the command line give, by setting.

    Args:
        recipe: settings with values of their own, which are taken as they are.

    Raises:
        PortError: an option that is needed is in neither.
    """
    chosen, types = {}, types_of(config)
    for each, option in options_of(config):
        if each.name in recipe:
            chosen[each.name] = recipe[each.name]
            continue
        value = given[each.name]
        if value is None and each.default is MISSING:
            raise PortError(missing(flag_of(each), option.help))
        elif is_list(types[each.name]):
            value = tuple(option.parse(one) if option.parse else one for one in value or ()) or each.default
        elif option.parse and isinstance(value, str):
            value = option.parse(value)
        elif isinstance(value, Path):
            value = value.expanduser()
        chosen[each.name] = value
    return config(**chosen)


def missing(name: str, help: str) -> str:
    """Return what is said of an option or an argument that a command needs and was not given."""
    return f"{name} is missing: {help[0].lower()}{help[1:].rstrip('.')}"


def _parameters(config: type, recipes: bool) -> Iterator[inspect.Parameter]:
    types = types_of(config)
    for each, option in options_of(config):
        kind = types[each.name]
        if is_list(kind):
            kind = GenericAlias(list, str if option.parse else kind.__args__[0])
        elif option.parse:
            kind = str
        default = None if recipes and is_needed(each) else _default(each, option)
        kind = kind | None if default is None else kind
        yield _parameter(each.name, Annotated[kind, _typer(config, each, recipes)], default)


def is_needed(each: Field) -> bool:
    """Return whether an option, not an argument, has no default."""
    return each.default is MISSING and not each.metadata[OPTION].argument


def is_empty(each: Field) -> bool:
    """Return whether an option that may be repeated is left out by default."""
    return isinstance(each.default, tuple)


def _default(each: Field, option: Option) -> Any:
    if each.default is MISSING:
        return inspect.Parameter.empty
    if is_empty(each):
        return None
    return f"{each.default:g}" if option.parse and isinstance(each.default, float) else each.default


def _typer(config: type, each: Field, recipes: bool) -> Any:
    """Return an option as Typer declares it."""
    option: Option = each.metadata[OPTION]
    said: dict[str, Any] = {"help": option.help, "rich_help_panel": group_of(config, each.name)}
    if option.argument:
        return typer.Argument(metavar=option.argument, **said)
    if option.exists:
        said |= {"exists": True, "dir_okay": False}
    if recipes and is_needed(each):
        said["show_default"] = REQUIRED
    return typer.Option(flag_of(each), min=option.least, **said)


def _parameter(name: str, kind: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
