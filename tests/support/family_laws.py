"""Laws that a family's table obeys, whatever the family; test_families breaks each of them.

A law yields what is wrong, in words; it holds where that is nothing.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from support.family_twins import CASES, LENGTH, Case, all_sites, twin
from torch import nn
from transformers.pytorch_utils import Conv1D

from hf_bico.core.taps import taps
from hf_bico.core.types import Signal, Site
from hf_bico.families import Family
from hf_bico.families.word_heads import WORD_DENSE

GATED = [name for name, case in CASES.items() if any(site.role == "MLP gate" for site in all_sites(case.build()))]
ONE_STACK = [
    name
    for name, case in CASES.items()
    if case.kind not in ("contrastive", "seq2seq")
    and name not in ("t5-classifier", "qwen3", "gemma2", "gemma3", "mpnet")
]
"""Models whose n-th call of torch's attention is of block n, with queries and keys as they are or rotated."""


def accounted_for(family: Family, model: nn.Module, case: Case) -> Iterator[str]:
    """Every tensor is in sites, each of its numbers once, or has a reason; every linear map of a block is in sites."""
    state, sites = model.state_dict(), all_sites(model, family)
    covered = {key: torch.zeros_like(tensor, dtype=torch.float64) for key, tensor in state.items()}
    for site in sites:
        weight = site.weight.of(covered[site.weight.key])
        if weight.shape != (site.d_out, site.d_in):
            yield f"{site.name} is {tuple(weight.shape)}, not {site.d_out} × {site.d_in}"
        for s in site.slices:
            s.of(covered[s.key]).add_(1)
    keys = {s.key for site in sites for s in site.slices}
    yield from (f"{key}: not every number once" for key in state if (covered[key] != (key in keys)).any())
    yield from (f"{key}: no site, no reason" for key in state if key not in keys and not family.left_reason(key))
    yield from (
        f"{s.key}: a site, and a reason to stay"
        for site in family.sites(model)
        for s in site.slices
        if family.left_reason(s.key) and not site.role.startswith(("pool", WORD_DENSE))  # which some classes do not run
    )
    blocks = {re.match(r".*?\.\d+\.", site.weight.key)[0] for site in sites if site.depth is not None}
    linear = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}
    yield from (
        f"{key}: a linear map of a block, and no site"
        for key in linear - keys
        if any(key.startswith(block) for block in blocks)
    )
    yield from (f"{name}: {count} sites" for name, count in Counter(site.name for site in sites).items() if count > 1)


def alike_inputs_share_a_space(family: Family, model: nn.Module, case: Case) -> Iterator[str]:
    """Sites share a space just where they read the same rows."""
    sites, rows = family.sites(model), {}
    alone = [replace(site, space=site.name) for site in sites]
    for part in _apart(alone):
        with torch.no_grad(), taps(model, part, {Signal.INPUT}, lambda stream, x: rows.update({stream.name: x}), 4):
            case.logits(model, case.samples(4))
    for a in sites:
        for b in sites:
            x, y = rows[a.name], rows[b.name]
            if (a.space == b.space) != (x.shape == y.shape and torch.equal(x, y)):
                yield f"{a.name} and {b.name} are said to read {a.space} and {b.space}"


def rows_lie_as_said(family: Family, model: nn.Module, case: Case) -> Iterator[str]:
    """Of images as many as the layout has, of texts one a token, after pooling one a sample."""
    sites, seen = (*family.sites(model), *family.head_sites(model)), {}
    own = {"text": LENGTH, "labels": 4 if case.kind == "seq2seq" else LENGTH}
    with torch.no_grad(), taps(model, sites, {Signal.OUTPUT}, lambda stream, y: seen.update({stream.name: y}), 4):
        case.logits(model, case.samples(4))
    for site in sites:
        rows, said = seen[site.name].shape[:2], (4, own.get(site.tokens.sequence, site.tokens.count))
        if rows != said:
            yield f"{site.name} has {tuple(rows)} rows, not {said}"


def _apart(sites: list[Site]) -> list[list[Site]]:
    """Parts of a fused weight one at a time: a tap shows what it reads under the name of the first alone."""
    parts = defaultdict(list)
    for site in sites:
        number = sum(site.weight.key == other.weight.key for part in parts.values() for other in part)
        parts[number].append(site)
    return list(parts.values())


def attention_takes_q_k_v(family: Family, model: nn.Module, case: Case) -> Iterator[str]:
    """What q, k and v give is what attention is called with; rotary positions keep the length of every head."""
    calls, rows = [], {}
    real = F.scaled_dot_product_attention

    def seen(q, k, v, *args, **kwargs):
        calls.append((q, k, v))
        return real(q, k, v, *args, **kwargs)

    sites = [site for site in family.sites(model) if site.role in ("q", "k", "v")]
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(F, "scaled_dot_product_attention", seen)
        with taps(model, sites, {Signal.OUTPUT}, lambda stream, y: rows.update({stream.name: y}), 4):
            case.logits(model, case.samples(4))
    for site in sites:
        taken = calls[site.depth]["qkv".index(site.role)].norm(dim=-1).transpose(1, 2)
        given = rows[site.name].unflatten(-1, (-1, calls[site.depth][0].shape[-1])).norm(dim=-1)
        if not torch.allclose(taken[..., :: taken.shape[-1] // given.shape[-1]], given):
            yield f"{site.name} is not what attention takes as {site.role}"


def up_is_linear_and_gate_is_not(family: Family, model: nn.Module, case: Case) -> Iterator[str]:
    """Twice the MLP up and half the MLP down is the same function; twice the gate and half the down is not."""

    def scores(role: str) -> torch.Tensor:
        changed = case.build()
        with torch.no_grad():
            for site in family.sites(model):
                for s in site.slices if site.role == role else ():
                    s.of(changed.state_dict()[s.key]).mul_(2)
                if site.role == "MLP down":
                    site.weight.of(changed.state_dict()[site.weight.key]).mul_(0.5)
            return case.logits(changed, case.samples(4))

    with torch.no_grad():
        before = case.logits(model, case.samples(4))
    if not torch.allclose(scores("MLP up"), before):
        yield "the up is not linear"
    if (scores("MLP gate") - before).norm() <= 1e-3 * before.norm():
        yield "the gate is linear"


def hidden_coordinates_can_be_permuted(family: Family, model: nn.Module, case: Case) -> Iterator[str]:
    """Permuted as the sites say, with the residual stream permuted too, the model does what it did."""
    with torch.no_grad():
        before, after = (case.logits(each, case.samples(4)) for each in (model, twin(model, family=family)))
    if not torch.allclose(before, after):
        yield "permuted, it is another function"


Law = Callable[[Family, nn.Module, Case], Iterator[str]]
LAWS: dict[Law, list[str]] = {
    accounted_for: list(CASES),
    rows_lie_as_said: list(CASES),
    alike_inputs_share_a_space: list(CASES),
    hidden_coordinates_can_be_permuted: list(CASES),
    attention_takes_q_k_v: ONE_STACK,
    up_is_linear_and_gate_is_not: GATED,
}
