"""The experts of a mixture, as they are stored: each layer's in one stack, or each in modules of its own."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from hf_bico.core.errors import PortError
from hf_bico.core.pairing import ROUTER, expert_role
from hf_bico.core.types import Hidden, Site, Slice

UP, GATE, DOWN = "MLP up", "MLP gate", "MLP down"
ROUTES = re.compile(r"\.(gate|router)(\.\w+)*\.weight$")
"""The end of the name of a router's weight, beside its experts."""
APART = {"wi": UP, "wo": DOWN, "w1": GATE, "w2": DOWN, "w3": UP, "up_proj": UP, "gate_proj": GATE, "down_proj": DOWN}
"""Names of the linear layers of an expert that is a module of its own."""
NAMED, LAST = re.compile(r"(^|\.)experts\."), re.compile(r"(^|\.)experts$")
"""In the name of an expert's weights, and at the end of that of what holds them."""
CORRECTION = "e_score_correction_bias"
"""What DeepSeek's routers add to the scores of experts when they choose."""


def with_experts(model: nn.Module, sites: Sequence[Site]) -> tuple[Site, ...]:
    """Return a model's sites with those of its experts, and its routers known as such.

    Experts read what their router reads, and their outputs are parts of one sum.

    Raises:
        PortError: experts without a router.
    """
    found = list(sites)
    for prefix in known_experts(model):
        name, module = prefix[:-1], model.get_submodule(prefix[:-1])
        beside = f"{name.rpartition('.')[0]}."
        count = len(next(module.parameters())) if _is_stack(module) else len(list(module.children()))
        router = next(
            (
                site
                for site in found
                if site.weight.key.startswith(beside)
                and ROUTES.search(site.weight.key)
                and site.d_out == count
                and site.weight.rows is None
            ),
            None,
        )
        if router is None:
            raise PortError(
                f"the experts {name} of a {type(model).__name__} have no router of {count} outputs beside them"
            )
        at = found.index(router)
        bias = router.bias or _correction(model, router)
        router = replace(router, name=_named(router, ROUTER), role=ROUTER, bias=bias, known=True)
        own = _stacked(name, module, router) if _is_stack(module) else _apart(name, module, router)
        found[at : at + 1] = [router, *sorted(own, key=lambda site: site.role.endswith(DOWN))]
    return tuple(found)


def known_experts(model: nn.Module) -> tuple[str, ...]:
    """Return the beginnings of the names of experts' weights, where it is known how they are stored."""
    return tuple(f"{name}." for name, module in model.named_modules() if LAST.search(name) and _is_known(module))


def unknown_experts(model: nn.Module) -> list[str]:
    """Return the names of experts' weights that are stored in another way than is known."""
    known = known_experts(model)
    return [name for name, _ in model.named_parameters() if NAMED.search(name) and not name.startswith(known)]


def _is_known(module: nn.Module) -> bool:
    return _is_stack(module) or _is_apart(module)


def _is_stack(module: Any) -> bool:
    """Return whether a module holds stacks of experts as transformers' do, that say how they lie."""
    own = dict(module.named_parameters(recurse=False))
    said = all(hasattr(module, name) for name in ("has_gate", "is_transposed", "is_concatenated"))
    up = "gate_up_proj" if getattr(module, "has_gate", True) else "up_proj"
    return said and {up, "down_proj"} <= own.keys() and not getattr(module, "has_post_expert_norm", False)


def _is_apart(module: nn.Module) -> bool:
    """Return whether every child of a module is an expert of linear layers whose names are known."""
    names = [{own for own, part in each.named_modules() if isinstance(part, nn.Linear)} for each in module.children()]
    return len(names) > 1 and all(each and each == names[0] and each <= APART.keys() for each in names)


def _correction(model: nn.Module, router: Site) -> Slice | None:
    """Return what is added to a router's outputs where experts are chosen; None if nothing is."""
    beside = router.weight.key.removesuffix("weight")
    return Slice(beside + CORRECTION) if hasattr(model.get_submodule(beside[:-1]), CORRECTION) else None


def _named(like: Site, role: str) -> str:
    return " ".join(filter(None, (like.tower, f"block {like.depth}", role)))


def _expert(router: Site, number: int, part: str, weight: Slice, bias: Slice | None, shape: tuple[int, int]) -> Site:
    """Return one of an expert's maps as a site."""
    role, hidden = expert_role(number, part), Hidden(_named(router, expert_role(number, "MLP")))
    down = part == DOWN
    return Site(
        _named(router, role),
        role,
        router.depth,
        weight,
        bias,
        *shape,
        _named(router, role) if down else router.space,
        router.tokens,
        None if down else hidden,
        hidden if down else None,
        router.tower,
        gives=_named(router, "experts") if down else "",
        expert=number,
    )


def _stacked(name: str, module: Any, router: Site) -> Iterator[Site]:
    """Yield the sites of experts in stacks, (experts, …) each; rows of gates lie above those of ups, or between."""
    own = dict(module.named_parameters(recurse=False))
    first = "gate_up_proj" if module.has_gate else "up_proj"
    for number in range(len(own["down_proj"])):
        for stack in (first, "down_proj"):
            d_out, d_in = own[stack].shape[1:][:: -1 if module.is_transposed else 1]
            biased = f"{stack}_bias" in own
            for part, rows, every in _parts(stack, d_out, concatenated=module.is_concatenated):
                weight = Slice(f"{name}.{stack}", rows, module.is_transposed, every, number)
                bias = Slice(f"{name}.{stack}_bias", rows, False, every, number) if biased else None
                yield _expert(router, number, part, weight, bias, (d_out if rows is None else d_out // 2, d_in))


def _parts(stack: str, d_out: int, *, concatenated: bool) -> tuple[tuple[str, tuple[int, int] | None, int | None], ...]:
    """Return (part, its rows, after how many they come again) of a stack's matrices (d_out, d_in)."""
    if stack != "gate_up_proj":
        return ((DOWN if stack == "down_proj" else UP, None, None),)
    if concatenated:
        half = d_out // 2
        return (GATE, (0, half), None), (UP, (half, d_out), None)
    return (GATE, (0, 1), 2), (UP, (1, 2), 2)


def _apart(name: str, module: nn.Module, router: Site) -> Iterator[Site]:
    """Yield the sites of experts that are modules of their own."""
    for number, (child, expert) in enumerate(module.named_children()):
        for own, layer in expert.named_modules():
            if isinstance(layer, nn.Linear):
                weight, bias = (f"{name}.{child}.{own}.{kind}" for kind in ("weight", "bias"))
                where = Slice(bias) if layer.bias is not None else None
                shape = (layer.out_features, layer.in_features)
                yield _expert(router, number, APART[own], Slice(weight), where, shape)
