"""Which part of a model is which part of its tiny copy, that has fewer blocks and experts."""

import re
from collections.abc import Iterator

from torch import nn


def kin(model: nn.Module, copy: nn.Module) -> dict[str, str]:
    """Return {name of a parameter of the model: name of its like in the copy}, for those that have one.

    Parts go by their names, and blocks by what is in them.
    """
    shapes = {id(each): _built(each) for whole in (model, copy) for each in whole.modules()}
    return dict(_kin(model, copy, "", "", shapes))


def _kin(
    model: nn.Module, copy: nn.Module, name: str, like: str, built: dict[int, frozenset[tuple[str, int]]]
) -> Iterator[tuple[str, str]]:
    theirs = dict(copy.named_parameters(recurse=False))
    yield from ((f"{name}{own}", f"{like}{own}") for own, _ in model.named_parameters(recurse=False) if own in theirs)
    own_parts, parts = dict(model.named_children()), dict(copy.named_children())
    for own, part in own_parts.items():
        alike = [[n for n, each in all_.items() if built[id(each)] == built[id(part)]] for all_ in (own_parts, parts)]
        other = _like(own, *alike) if own.isdigit() else own
        if other in parts:
            yield from _kin(part, parts[other], f"{name}{own}.", f"{like}{other}.", built)


def _like(own: str, ours: list[str], theirs: list[str]) -> str:
    """Return which of a copy's parts is the like of one, among those that are built alike; by name where none is.

    They are counted from the last: a model that takes what the block before it gives (LLaVA) has a copy that does.
    """
    behind = len(ours) - 1 - ours.index(own)
    return theirs[max(0, len(theirs) - 1 - behind)] if theirs else own


def plain_name(name: str) -> str:
    """Return a name without its numbers."""
    return re.sub(r"\d+", "#", name)


def _built(module: nn.Module) -> frozenset[tuple[str, int]]:
    """Return what tells how a part is built: its parameters' names without numbers, and their numbers of axes."""
    return frozenset((plain_name(name), p.ndim) for name, p in module.named_parameters())
