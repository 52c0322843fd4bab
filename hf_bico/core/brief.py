"""What large things are, in a few words, so that results print short."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

MOST = 3
"""The most parts of a list or a mapping that are told."""
LONGEST = 60
"""The most characters of a text that are told."""


def brief(value: Any) -> str:
    """Return what a value is: of a tensor its dtype and shape, of a model its class and size, of a list some parts."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, nn.Module):
        return f"{type(value).__name__} of {counted(sum(each.numel() for each in value.parameters()))} parameters"
    if isinstance(value, Mapping):
        return _joined("{}", [f"{cut(str(key))}: {brief(each)}" for key, each in _some(value.items())], len(value))
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return _joined("()" if isinstance(value, tuple) else "[]", [brief(each) for each in _some(value)], len(value))
    if value is None or isinstance(value, str | bytes | bool | int | float):
        return cut(repr(value))
    return type(value).__name__


def cut(text: str, longest: int = LONGEST) -> str:
    """Return a text as one line, its end cut if it is long."""
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def counted(number: int) -> str:
    """Return a number as readers say it: 151 M, 8.03 B."""
    for size, name in ((10**9, " B"), (10**6, " M"), (10**3, " k")):
        if number >= size:
            return f"{number / size:.3g}{name}"
    return str(number)


def _some(items: Any) -> list[Any]:
    return [each for each, _ in zip(items, range(MOST), strict=False)]


def _joined(ends: str, parts: list[str], number: int) -> str:
    more = [f"… {number - len(parts)} more"] if number > len(parts) else []
    return f"{ends[0]}{', '.join([*parts, *more])}{ends[1]}"
