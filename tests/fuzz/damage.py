"""Strategies of Hypothesis for damage: to JSON, to its texts, to bytes and to files of safetensors."""

import copy
import json
import struct
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

NUMBERS = (0, 1, -1, 3, 7, 2**15, 2**31, 2**63, 10**12, 10**30, 0.5, -0.5, 1e-9, 1e308, float("nan"), float("inf"))
WORDS = ("", " ", "\0", "a\nb", "../../x", "x" * 5_000, "nan", "None", "é", "\ud800", "auto", "-1", "{}", "http://a/b")
DEEP = {"a": {"a": [[[{"a": None}]]]}}

odd = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(NUMBERS),
    st.integers(),
    st.sampled_from(WORDS),
    st.text(max_size=6),
    st.sampled_from([[], {}, [None], [0], [[]], {"": 0}, DEEP]).map(copy.deepcopy),
)
"""A value that belongs nowhere, or only by chance."""


def places(data: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the keys that lead to every value within lists and objects."""
    each = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in each:
        yield (key,)
        yield from ((key, *rest) for rest in places(value))


def _inside(data: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        data = data[key]
    return data


@st.composite
def damaged(draw: st.DrawFn, data: Any, most: int = 3) -> Any:
    """A copy of JSON data with one to `most` values replaced, dropped, swapped, renamed, wrapped or nudged."""
    data = copy.deepcopy(data)
    for _ in range(draw(st.integers(1, most))):
        there = list(places(data))
        if not there:
            break
        *way, key = draw(st.sampled_from(there))
        holder = _inside(data, tuple(way))
        how = draw(st.sampled_from(["odd", "odd", "odd", "drop", "swap", "rename", "wrap", "nudge"]))
        if how == "drop":
            del holder[key]
        elif how == "swap":
            holder[key] = copy.deepcopy(_inside(data, draw(st.sampled_from(there))))
        elif how == "rename" and isinstance(holder, dict):
            holder[draw(st.sampled_from(WORDS[:-1]) | st.just(f"{key}_"))] = holder.pop(key)
        elif how == "wrap":
            holder[key] = draw(st.sampled_from([[holder[key]], {"a": holder[key]}, [holder[key]] * 3]))
        elif how == "nudge" and isinstance(holder[key], int):
            holder[key] += draw(st.sampled_from([-1, 1, 8]))
        else:
            holder[key] = draw(odd)
    return data


def text_of(data: Any) -> bytes:
    """Return data as JSON, of halves of characters and endless numbers too."""
    return json.dumps(data).encode("utf-8", "surrogatepass")


@st.composite
def damaged_bytes(draw: st.DrawFn, raw: bytes) -> bytes:
    """Bytes of which some are changed, cut off, put in, or there twice."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(raw) - 1)))
        size = draw(st.integers(1, 16))
        how = draw(st.sampled_from(["change"] * 4 + ["cut", "put", "twice", "drop"]))
        if how == "cut":
            raw = raw[:at]
        elif how == "twice":
            raw = raw[: at + size] + raw[at:]
        elif how == "drop":
            raw = raw[:at] + raw[at + size :]
        else:
            some = draw(st.binary(min_size=1, max_size=size))
            raw = raw[:at] + some + raw[at + (len(some) if how == "change" else 0) :]
    return raw


def header_of(raw: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the header of a file of safetensors, and the bytes behind it."""
    (size,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + size]), raw[8 + size :]


def safetensors(header: Any, rest: bytes) -> bytes:
    """Return a file of safetensors, whatever its header says."""
    text = text_of(header)
    return struct.pack("<Q", len(text)) + text + rest


def damaged_safetensors(raw: bytes, most: int = 2) -> st.SearchStrategy[bytes]:
    """A file of safetensors whose header says something else, whose numbers are others, or whose bytes are damaged."""
    header, rest = header_of(raw)
    said = damaged(header, most).map(lambda other: safetensors(other, rest))
    numbers = st.tuples(st.integers(0, max(0, len(rest) - 4)), st.binary(min_size=4, max_size=4)).map(
        lambda at: safetensors(header, rest[: at[0]] + at[1] + rest[at[0] + 4 :])
    )
    return st.one_of(said, said, numbers, damaged_bytes(raw))
