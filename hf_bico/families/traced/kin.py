"""Which part of a model is which part of its tiny copy, that has fewer blocks and experts."""

import re
from collections.abc import Iterator

from torch import nn


def kin(model: nn.Module, copy: nn.Module) -> dict[str, str]:
    """Return {name of a parameter of the model: name of its like in the copy}, for those that have one.

    Parts go by their names; a numbered one that the copy lacks, or has built otherwise, by what is in it.
    """
    shapes = {id(each): _built(each) for whole in (model, copy) for each in whole.modules()}
    return dict(_kin(model, copy, "", "", shapes))


def _kin(
    model: nn.Module, copy: nn.Module, name: str, like: str, built: dict[int, frozenset[tuple[str, int]]]
) -> Iterator[tuple[str, str]]:
    theirs = dict(copy.named_parameters(recurse=False))
    yield from ((f"{name}{own}", f"{like}{own}") for own, _ in model.named_parameters(recurse=False) if own in theirs)
    parts = dict(copy.named_children())
    for own, part in model.named_children():
        other = own
        if own.isdigit() and (own not in parts or built[id(parts[own])] != built[id(part)]):
            other = next((n for n, each in parts.items() if n.isdigit() and built[id(each)] == built[id(part)]), own)
        if other in parts:
            yield from _kin(part, parts[other], f"{name}{own}.", f"{like}{other}.", built)


def plain_name(name: str) -> str:
    """Return a name without its numbers."""
    return re.sub(r"\d+", "#", name)


def _built(module: nn.Module) -> frozenset[tuple[str, int]]:
    """Return what tells how a part is built: its parameters' names without numbers, and their numbers of axes."""
    return frozenset((plain_name(name), p.ndim) for name, p in module.named_parameters())
