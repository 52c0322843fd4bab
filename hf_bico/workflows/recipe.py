"""The settings of a port in a YAML file: `hf-bico port recipe.yaml` runs it, and every port writes its own.

Only a file on this machine that is named as SOURCE is taken for a recipe; one in a repo is never looked at.
"""

from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import yaml

from hf_bico.core.errors import PortError
from hf_bico.io.outside import YAML_SIZE, kind_of, parse_yaml
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.options import ENDINGS, RECIPE_FILE, options_of, types_of
from hf_bico.workflows.typed import SHOWN, flags_in, meant, value_of

HEAD = f"""\
# Makes this port again: hf-bico port {RECIPE_FILE}
# A local input goes by its name alone, as ./name: run it in the folder that has it.
"""
MOST = 2 * len(fields(PortConfig))
"""The most keys: every setting by either of its names."""
INSTEAD = {
    "n": ("per_class",),
    "per_class": ("n",),
    "maps": ("method", "method_options", "bank", "matching"),
    "method": ("method_options", "maps"),
}
"""Option on the command line → settings of a recipe that it stands in the place of, beside its own."""


def is_recipe(source: str) -> bool:
    """Return whether what is named as SOURCE is a recipe: a file on this machine whose name ends in .yaml or .yml."""
    return source.lower().endswith(ENDINGS) and Path(source).expanduser().is_file()


def recipe_of(settings: Mapping[str, Any]) -> str:
    """Return the text of a recipe; a file in it goes by its name alone."""
    data = {name: _plain(value) for name, value in settings.items()}
    return HEAD + yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=10**6)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return value.name
    return list(value) if isinstance(value, tuple) else value


def read_recipe(path: Path, said: Collection[str]) -> dict[str, Any]:
    """Return the settings of a port that a recipe says, each of its type; without those that the command line says.

    Args:
        said: the settings that are given on the command line, `source` not among them.

    Raises:
        PortError: it cannot be read; keys that are no settings, values of other types, settings that a port needs: all
            of them in one line.
    """
    try:
        given = _mapping(_text(path))
        found, wrong = _read(given, said)
        needed = {each.name for each, _ in options_of(PortConfig) if each.default is MISSING}
        wrong += [f"{name} is missing" for name in sorted(needed - found.keys() - {*said} - _tried(given))]
    except PortError as error:
        raise PortError(f"{path}: {error.message}") from error
    if wrong:
        raise PortError(f"{path}: {'; '.join(wrong)}")
    left = {name for each in said for name in (each, *INSTEAD.get(each, ()))}
    return {name: value for name, value in found.items() if name not in left}


def _text(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > 4 * YAML_SIZE:  # the most bytes of so many characters
            raise PortError(f"the recipe has {size:,} bytes; {4 * YAML_SIZE:,} are the most that are read")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PortError(f"the recipe cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}") from error


def _mapping(text: str) -> Mapping[Any, Any]:
    data = parse_yaml(text, "the recipe")
    if not isinstance(data, Mapping):
        raise PortError(f"a recipe is lines of setting: value, such as source: org/ft, not {kind_of(data)}")
    if len(data) > MOST:
        raise PortError(f"a recipe has {MOST} settings at most, not {len(data):,}")
    return data


def _read(given: Mapping[Any, Any], said: Collection[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the settings, and what is wrong with the others."""
    options = {each.name: (each, found) for each, found in options_of(PortConfig)}
    kinds, found, wrong, names = types_of(PortConfig), dict[str, Any](), list[str](), _names(given)
    for key, name in names:
        if name is None:
            wrong.append(_unknown(str(key), options))
        elif [each for _, each in names].count(name) > 1:
            wrong.append(f"{key} is said twice, as {' and '.join(str(k) for k, each in names if each == name)}")
        elif given[key] is None and options[name][0].default is not None:
            wrong.append(f"{key} has no value: give one, or leave it out")
        elif name not in said:
            value, option = given[key], options[name][1]
            try:
                found[name] = None if value is None else value_of(str(key), option, kinds[name], value)
            except PortError as error:
                wrong.append(error.message)
    return found, wrong


def _names(given: Mapping[Any, Any]) -> list[tuple[Any, str | None]]:
    """Return the keys of a recipe, each with its setting's name; None for one that is no setting's."""
    flags = flags_in(PortConfig) | {each.name: each.name for each, _ in options_of(PortConfig)}
    return [(key, flags.get(str(key))) for key in given]


def _tried(given: Mapping[Any, Any]) -> set[str]:
    """Return the settings that a recipe names, whatever their values."""
    return {name for _, name in _names(given) if name}


def _unknown(key: str, options: Collection[str]) -> str:
    near = meant(key, options, PortConfig)
    return f"{key[:SHOWN]} is not a setting" + (f" (did you mean {near}?)" if near else "")
