"""Values of a YAML file, each checked by its kind; a wrong one says what is allowed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REQUIRED = object()
Kind = Callable[[Any], Any]
"""A YAML value → the value; ValueError with what is allowed in its place."""


@dataclass
class Section:
    """A mapping whose keys are taken one by one; what is wrong goes to `problems`, a line each."""

    where: str
    data: dict[str, Any]
    problems: list[str]

    @classmethod
    def of(cls, where: str, data: Any, problems: list[str]) -> Section:
        if not isinstance(data, dict):
            problems.append(f"{where}: a mapping is expected, not {data!r}")
            data = {}
        return cls(where, {str(key): value for key, value in data.items()}, problems)

    def take(self, key: str, kind: Kind, default: Any = REQUIRED) -> Any:
        """The value of a key, which is used up; None (and a problem) where it is not what it must be."""
        if key not in self.data:
            if default is REQUIRED:
                self.problems.append(f"{self.where}: {key} is missing")
                return None
            return default
        value = self.data.pop(key)
        try:
            return kind(value)
        except ValueError as error:
            self.problems.append(f"{self.where}.{key}: {error}, not {value!r}")
            return None

    def end(self, known: tuple[str, ...]) -> None:
        """Whatever is left was not asked for."""
        self.problems += [f"{self.where}.{key}: no such key; there are {', '.join(known)}" for key in self.data]


def text(value: Any) -> str:
    if not isinstance(value, (str, int, float)) or isinstance(value, bool) or value == "":
        raise ValueError("a word is expected")
    return str(value)


def count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError("a whole number from 1 on is expected")
    return value


def whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("a whole number from 0 on is expected")
    return value


def number(value: Any) -> float:
    """YAML 1.1 reads `1e-5` as a word: that is a number too."""
    if isinstance(value, bool):
        raise ValueError("a number is expected")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError("a number is expected") from None


def positive(value: Any) -> float:
    if not number(value) > 0:
        raise ValueError("a number above 0 is expected")
    return number(value)


def share(value: Any) -> float:
    if not 0 <= number(value) < 1:
        raise ValueError("a share from 0 to below 1 is expected")
    return number(value)


def scale(value: Any) -> float | str:
    return value if value == "auto" else number(value)


def one_of(*allowed: str) -> Kind:
    def kind(value: Any) -> str:
        if value not in allowed:
            raise ValueError(f"one of {', '.join(allowed)} is expected")
        return value

    return kind


def each(kind: Kind) -> Kind:
    """A list of a kind, or one alone; never empty."""

    def many(value: Any) -> tuple:
        values = value if isinstance(value, list) else [value]
        if not values:
            raise ValueError("at least one is expected")
        return tuple(map(kind, values))

    return many


def pair(value: Any) -> tuple[str, str]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError("pairs are lists of two models, [from, to]; that is expected")
    return text(value[0]), text(value[1])


def file_beside(folder: Path) -> Kind:
    def kind(value: Any) -> Path:
        path = folder / text(value)
        if not path.is_file():
            raise ValueError(f"a file beside the YAML file is expected ({path} is none)")
        return path

    return kind


def mapping_of(kind: Kind) -> Kind:
    def many(value: Any) -> dict:
        if not isinstance(value, dict):
            raise ValueError("a mapping is expected")
        return {str(key): kind(entry) for key, entry in value.items()}

    return many
