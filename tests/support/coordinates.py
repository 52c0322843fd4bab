"""Which coordinates the sides of a model's layers are in, and a layer's experts in another order."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hf_bico.core.pairing import ROUTER
from hf_bico.core.types import Site
from hf_bico.families.word_heads import WORD_DENSE

READS = {
    "q",
    "k",
    "v",
    "MLP up",
    "MLP gate",
    "cross q",
    "cross k",
    "cross v",
    "proj",
    "text proj",
    "pool q",
    "pool k",
    "pool v",
    "pool MLP up",
    "head dense",
    "head",
    "router",
    "shared gate",
    WORD_DENSE,
    "self_attn.q_a_proj",
    "self_attn.kv_a_proj_with_mqa",
    "mamba.in_proj",
}
INNER = {
    r"head\.attention\.in_proj_weight$": (1,),
    r"head\.attention\.out_proj\.weight$": (0,),
    r"head\.attention\.in_proj_bias$": (),
    r"self_attn\.[qk]_norm\.weight$": (),
}
"""Tensors outside the sites with sides that are as long as the stream is wide and are not the stream's; those that
are."""
WRITES = {
    "feature projection",
    "attention output",
    "MLP down",
    "cross attention output",
    "head dense",
    "pool output",
    "pool MLP down",
    WORD_DENSE,
    "mamba.out_proj",
}
"""Roles whose inputs, and whose outputs, are coordinates of the residual stream, or of what a head makes of it."""


def reorder_experts(state: dict[str, Tensor], sites: Sequence[Site]) -> None:
    """Put every layer's experts, and their router's rows, in another order."""
    for router in (site for site in sites if site.role == ROUTER):
        experts = [site for site in sites if site.expert is not None and site.depth == router.depth]
        experts = [site for site in experts if site.tower == router.tower]
        _reorder(state, router, experts, torch.randperm(router.d_out))


def _reorder(state: dict[str, Tensor], router: Site, experts: list[Site], order: Tensor) -> None:
    """Put a layer's experts, in a stack or in modules of their own, and the router's rows in another order."""
    by_role = {site.role: site for site in experts}
    for key in {s.key for site in (router, *experts) for s in site.slices if site is router or s.at is not None}:
        state[key] = state[key][order]
    before = dict(state)
    for site in experts:
        if site.weight.at is None:
            other = by_role[site.role.replace(str(site.expert), str(int(order[site.expert])), 1)]
            state[site.weight.key] = before[other.weight.key]
