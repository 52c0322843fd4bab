"""Typed records as plain JSON data, and back."""

from collections.abc import Mapping
from dataclasses import field as dataclass_field
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from hf_bico.core.errors import PortError
from hf_bico.core.transport import ABSENT

Record = TypeVar("Record")


def maybe() -> Any:
    """Return a dataclass field that is left out of the JSON where it is None."""
    return dataclass_field(default=None, metadata={ABSENT: True})


def to_plain(value: Any) -> Any:
    """Return a record as JSON data: dicts, lists, strings, numbers and None."""
    if is_dataclass(value):
        found = {each: getattr(value, each.name) for each in fields(value)}
        return {f.name: to_plain(v) for f, v in found.items() if not (v is None and f.metadata.get(ABSENT))}
    if isinstance(value, Mapping):
        return {str(key): to_plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(each) for each in value]
    return value.value if isinstance(value, Enum) else value


_adapters: dict[type, TypeAdapter[Any]] = {}


def _adapter(kind: type[Record]) -> TypeAdapter[Record]:
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def from_plain(kind: type[Record], data: Any) -> Record:
    """Return JSON data as a record; keys that the record does not know are ignored.

    Raises:
        PortError: a key is missing or a value of another type; the first of them is named.
    """
    try:
        return _adapter(kind).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise PortError(f"it is no {kind.__name__} that can be read: {place}: {first['msg']}") from error
