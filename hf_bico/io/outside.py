"""The one gate for what comes from outside: JSON, YAML and headers of safetensors are read within bounds, and what is
wrong with them is one line that names the file, the key and what would be right.

`Hub.fetch` lets every JSON file of a model through it, so that the libraries that open them are never given one that
is too large, too deep, or has numbers that are none.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from hf_bico.core.errors import PortError

BYTES, PARTS = 256 << 20, 10_000_000
"""The most bytes and values of a JSON file; a tokenizer's of many languages has some 35 and 2 million."""
YAML_SIZE = 4 << 20
"""The most characters of a YAML text, with its aliases written out."""
DEPTH = 100
"""How deep lists and objects may lie in one another."""
LARGEST = 2**127
"""No whole number may be as large; tokenizers say 10^30 where they mean no limit."""
ENDLESS = {"time_step_limit", "model_max_length"}
"""Keys whose number may be infinite."""
DTYPES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}
"""Dtypes of safetensors that torch has, and their bytes."""
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")


def parse_json(raw: bytes, name: str) -> Any:
    """Return the value of a JSON text.

    Args:
        name: the file's, for errors.

    Raises:
        PortError: it is no JSON in UTF-8, is too large or too deep, or holds NaN, Inf, endless numbers or halves of
            characters.
    """
    if len(raw) > BYTES:
        raise PortError(f"{name} has {len(raw):,} bytes; {BYTES:,} are the most that are read")
    if sum(map(raw.count, (b",", b"[", b"{"))) > PARTS:
        raise PortError(f"{name} has too many values; {PARTS:,} are the most that are read")
    try:
        data = json.loads(raw.decode("utf-8"))
    except RecursionError as error:
        raise PortError(_too_deep(name)) from error
    except ValueError as error:
        raise PortError(f"{name} is no JSON in UTF-8: {' '.join(str(error).split())[:200]}") from error
    for path, value in _odd(data, _HALF.search(raw) is not None):
        if path is None:
            raise PortError(_too_deep(name))
        raise PortError(f"{name}: {path or 'the whole'} is {value}")
    return data


def parse_object(raw: bytes, name: str) -> dict[str, Any]:
    """Return the object of a JSON text.

    Raises:
        PortError: it is something else; see `parse_json`.
    """
    data = parse_json(raw, name)
    if not isinstance(data, dict):
        raise PortError(f"{name} is {kind_of(data)}, where a JSON object {{…}} belongs")
    return data


def read_json(path: Path) -> Any:
    """Return the value in a JSON file; see `parse_json`."""
    return parse_json(_bytes(path), path.name)


def read_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; see `parse_object`."""
    return parse_object(_bytes(path), path.name)


def require_readable(path: Path) -> None:
    """Refuse a JSON file that `parse_json` refuses; a file that has not changed is looked at once."""
    stat = path.stat()
    _looked_at(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=1024)
def _looked_at(path: Path, changed: int, size: int) -> None:
    read_json(path)


def _bytes(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > BYTES:
            raise PortError(f"{path.name} has {size:,} bytes; {BYTES:,} are the most that are read")
        return path.read_bytes()
    except OSError as error:
        raise PortError(f"{path.name} cannot be read: {error.strerror or error}") from error


def _too_deep(name: str) -> str:
    return f"{name} is nested too deeply; {DEPTH} lists and objects in one another are the most that are read"


def _odd(data: Any, halves: bool) -> Iterator[tuple[str | None, str]]:
    """Yield (key, what is wrong with its value); a key of None: it is nested too deeply.

    Args:
        halves: whether strings have to be looked at.
    """
    waiting: list[tuple[str, str, Any, int]] = [("", "", data if isinstance(data, dict | list) else [data], 1)]
    while waiting:
        path, last, value, depth = waiting.pop()
        named = isinstance(value, dict)
        if depth > DEPTH:
            yield None, ""
            return
        for key, each in value.items() if named else enumerate(value):
            own = str(key) if named else last
            if isinstance(each, dict | list):
                waiting.append((f"{path}.{key}".lstrip("."), own, each, depth + 1))
            elif why := _why_odd(each, own, halves):
                yield f"{path}.{key}".strip("."), why
            if halves and named and _is_half(own):
                yield path, "an object with a key that has half a character (a lone surrogate)"


def _why_odd(value: Any, key: str, halves: bool) -> str | None:
    """Return what is wrong with a value that holds no others; None if nothing is."""
    kind = type(value)
    if kind is int and not -LARGEST < value < LARGEST:
        return "a number of too many digits"
    if kind is float and not math.isfinite(value) and not (value > 0 and key in ENDLESS):
        return f"{value}, where a finite number belongs"
    if halves and kind is str and _is_half(value):
        return "a text with half a character in it (a lone surrogate)"
    return None


def _is_half(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text)


def at(data: Any, *keys: str) -> Any:
    """Return what lies in objects within one another by these keys; None where there is none."""
    for key in keys:
        data = data.get(key) if isinstance(data, Mapping) else None
    return data


def kind_of(value: Any) -> str:
    """Return what a JSON or YAML value is, in words."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else f"a {type(value).__name__}")


def parse_yaml(text: str, name: str) -> Any:
    """Return the value of a YAML text; it is measured, aliases written out, before anything is made of it.

    Args:
        name: what holds it, for errors.

    Raises:
        PortError: it is no YAML of plain values, or too large or too deep.
    """
    if len(text) > YAML_SIZE:
        raise PortError(f"{name} has {len(text):,} characters; {YAML_SIZE:,} are the most that are read")
    try:
        _measure(text, name)
        data = yaml.safe_load(text)
    except RecursionError as error:
        raise PortError(_too_deep(name)) from error
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise PortError(f"{name} is no readable YAML: {' '.join(str(error).split())[:200]}") from error
    if "\\" in text and _has_half(data):
        raise PortError(f"{name} has half a character in a text (a lone surrogate)")
    return data


def _has_half(data: Any) -> bool:
    """Return whether a text in a YAML value has half a character; what several aliases stand for is looked at once."""
    waiting, seen = [data], set[int]()
    while waiting:
        value = waiting.pop()
        if isinstance(value, str) and _is_half(value):
            return True
        if isinstance(value, dict | list) and id(value) not in seen:
            seen.add(id(value))
            waiting += [*value, *value.values()] if isinstance(value, dict) else value
    return False


def _measure(text: str, name: str) -> None:
    """Refuse a YAML text that is too large with its aliases written out, or too deep."""
    sizes: dict[str, int] = {}
    open_: list[tuple[str | None, int]] = []
    size = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise PortError(f"{name}: *{event.anchor} stands for nothing that is whole before it")
            size += sizes[event.anchor]
        elif isinstance(event, yaml.CollectionStartEvent):
            open_.append((event.anchor, size))
            size += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_.pop()
            if anchor:
                sizes[anchor] = size - before
        elif isinstance(event, yaml.ScalarEvent):
            size += 1 + len(event.value)
            if event.anchor:
                sizes[event.anchor] = 1 + len(event.value)
        if size > YAML_SIZE:
            raise PortError(f"{name} is too large with its aliases: {YAML_SIZE:,} characters are read at most")
        if len(open_) > DEPTH:
            raise PortError(_too_deep(name))


def require_header(header: Mapping[str, Any], name: str) -> None:
    """Refuse a header of safetensors with dtypes that torch lacks or with shapes that are none.

    Args:
        header: tensor → (shape, dtype as safetensors spells it).
        name: the file's.

    Raises:
        PortError: there are such; the first of each kind is named.
    """
    for key, (shape, dtype) in header.items():
        if dtype not in DTYPES:
            raise PortError(
                f"{name}: {key} is {dtype!s:.20}, a dtype that torch cannot read: save the model as BF16, or name the "
                "one that it was made from"
            )
        whole = all(isinstance(side, int) and not isinstance(side, bool) and side >= 0 for side in shape)
        if not whole or math.prod(shape) >= 2**60:
            raise PortError(f"{name}: {key} has the shape {str(shape)[:60]}, which is none of a tensor")
