"""Ways to carry a task vector over, one file each, behind one protocol."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin

from hf_bico.core.errors import PortError
from hf_bico.core.method import Job, Method, Track, untracked
from hf_bico.core.methods.auto import Auto
from hf_bico.core.methods.bico import BiCo
from hf_bico.core.methods.blend import Blend
from hf_bico.core.methods.controls import GradientOnly, InputOnly, OutputOnly
from hf_bico.core.methods.distil import Distil
from hf_bico.core.methods.few_shot import FewShot
from hf_bico.core.methods.gradfix import GradFix
from hf_bico.core.methods.naive import Naive
from hf_bico.core.methods.response import Response
from hf_bico.core.methods.theseus import Theseus
from hf_bico.core.methods.transfusion import TransFusion
from hf_bico.core.methods.weighted import Weighted

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        Auto,
        BiCo,
        Weighted,
        Theseus,
        TransFusion,
        GradFix,
        Naive,
        InputOnly,
        OutputOnly,
        GradientOnly,
        FewShot,
        Distil,
        Response,
        Blend,
    )
}

Best = Weighted
"""`Weighted` by its old name."""
OLD_NAMES = {"best": Weighted.name}

__all__ = [
    "METHODS",
    "Auto",
    "Best",
    "BiCo",
    "Blend",
    "Distil",
    "FewShot",
    "GradFix",
    "GradientOnly",
    "InputOnly",
    "Job",
    "Method",
    "Naive",
    "OutputOnly",
    "Response",
    "Theseus",
    "Track",
    "TransFusion",
    "Weighted",
    "method_of",
    "untracked",
]


def method_of(name: str, options: Sequence[str] = ()) -> Method:
    """Return the method of this name with options given as "name=value".

    Raises:
        PortError: there is no such method, option or value.
    """
    name = OLD_NAMES.get(name, name)
    if name not in METHODS:
        raise PortError(f"unknown method {name!r}; there are {', '.join(METHODS)}")
    known = {field.name: field for field in fields(METHODS[name])}
    chosen = {}
    for option in options:
        key, given, value = option.partition("=")
        if not given:
            raise PortError(f"an option of {name} is given as name=value, not as {option!r}")
        if key not in known:
            raise PortError(f"{name} has no option {key!r}; it has {', '.join(known) or 'none'}")
        chosen[key] = _value(f"{name}'s {key}", known[key].type, value)
    return METHODS[name](**chosen)


def _value(what: str, kind: Any, text: str) -> Any:
    numbers = [each for each in (kind, *get_args(kind)) if each in (int, float)]
    words = [word for each in (kind, *get_args(kind)) if get_origin(each) is Literal for word in get_args(each)]
    by_name = {str(each).lower(): each for each in ((True, False) if kind is bool else words)}
    if text.lower() in by_name:
        return by_name[text.lower()]
    for number in numbers:
        with suppress(ValueError):
            return number(text)
    allowed = [*by_name, *(f"a number ({number.__name__})" for number in numbers)]
    raise PortError(f"{what} is {'one of ' * (len(allowed) > 1)}{', '.join(allowed)}, not {text!r}")
