"""Mixtures of experts: which expert of A hands over to which of B, by what the routers send them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch
from scipy.optimize import linear_sum_assignment

from hf_bico.core.chain import fill
from hf_bico.core.collect import Batch, Side
from hf_bico.core.errors import listed
from hf_bico.core.moments import Statistics
from hf_bico.core.notes import note
from hf_bico.core.pairing import ROUTER, expert_role
from hf_bico.core.types import Pair, Signal, Site, Wanted


def match_experts(
    base: Side, target: Side, pairs: Sequence[Pair], batches: Callable[[], Iterable[Batch]]
) -> tuple[Pair, ...]:
    """Return the pairs with the experts of every layer matched one to one, in one forward pass over the samples.

    With p(t) = softmax of the router's outputs at row t, centred over the rows, the match π maximises
    Σ_j Σ_t p_B,j(t) p_A,π(j)(t) (the Hungarian method), which is least squares: it minimises Σ_j ‖p_B,j − p_A,π(j)‖².
    The router's rows follow their experts.

    Raises:
        PortError: as for `collect`.
    """
    routers = [pair for pair in pairs if pair.target.role == ROUTER]
    if not routers:
        return tuple(pairs)
    seen = fill(
        Statistics(routers, Wanted(frozenset({Signal.TRAFFIC}))), base, target, routers, batches(), labelled=False
    )
    found = {}
    for pair in routers:
        cross = seen[pair, Signal.TRAFFIC].centred().cross
        assert cross is not None  # `centred` has checked
        found[_layer(pair.target)] = linear_sum_assignment(-cross.cpu().double().numpy())[1].tolist()
    own = {(_layer(pair.base), pair.base.role): pair.base for pair in pairs}
    return tuple(_matched(pair, found.get(_layer(pair.target)), own) for pair in pairs)


def _layer(site: Site) -> tuple[str, int | None]:
    return site.tower, site.depth


def _matched(pair: Pair, order: list[int] | None, own: dict[tuple[tuple[str, int | None], str], Site]) -> Pair:
    """Return a pair of a layer whose experts were matched: `order` has A's expert for every one of B."""
    base, target = pair
    if order is None:
        return pair
    if target.role == ROUTER:
        rows = tuple(torch.tensor(order).argsort().tolist())  # B's expert for every one of A
        bias = target.bias and replace(target.bias, order=rows)
        return Pair(base, replace(target, weight=replace(target.weight, order=rows), bias=bias))
    if target.expert is None:
        return pair
    number = order[target.expert]
    role = expert_role(number, target.role.removeprefix(expert_role(target.expert, "")))
    return Pair(own[_layer(base), role], replace(target, expert=number))


def note_unreached(pairs: Sequence[Pair], seen: Statistics) -> None:
    """Say which experts no row of the samples is sent to by both models: what was changed in them cannot move."""
    if missed := seen.unreached(pairs):
        note(
            f"the samples reach too few experts: {listed(missed)} get no row in both models, so that their changes "
            "stay behind; more samples reach more"
        )
