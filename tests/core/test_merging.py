"""Neighbouring patches taken together inside MLPs, and the leading directions alone."""

import pytest
import torch
from support.twins import Samples, random_fine_tune, tiny_clip

from hf_bico import BiCo, port
from hf_bico.core import merging
from hf_bico.core.chain import fill
from hf_bico.core.collect import Side
from hf_bico.core.linalg import polar_factor, thin_svd
from hf_bico.core.method import union
from hf_bico.core.methods import GradFix, Theseus
from hf_bico.core.moments import Statistics
from hf_bico.core.pairing import pair_sites
from hf_bico.core.types import Signal, Tokens
from hf_bico.families import family_of

ROLES = ("MLP up", "MLP down")


def pairs_of(a, b):
    return pair_sites(family_of(a).sites(a), family_of(b).sites(b))


def inside(pairs):
    """(pair, signal) of what is inside MLPs, in words of its own."""
    return [(p, s) for p in pairs for role, s in zip(ROLES, (Signal.OUTPUT_GRADIENT, Signal.INPUT), strict=True)
            if p.target.role == role]  # fmt: skip


def test_a_group_weighs_as_many_rows_as_it_has_and_the_class_token_is_apart():
    """Rows that are alike within a group give the moment that all of them give."""
    tokens = Tokens(2, (5, 6))
    merge = merging.groups(tokens)
    assert merge.shape == (2 + 3 * 2, tokens.count)
    number = merge.argmax(0)
    assert torch.equal(number[:2], torch.tensor([0, 1]))
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(8, d, generator=generator)[number] for d in (4, 5))
    torch.testing.assert_close((merge @ b).T @ (merge @ a), b.T @ a)


@pytest.mark.parametrize("sizes", [(64, 80), (80, 64)])
def test_what_is_merged_meets_on_the_bases_grid(sizes):
    """Of grids of different sizes: Σ (S Pᵀ b)(S a)ᵀ, with P as it is without merging, and nothing else is merged."""
    a, b = (tiny_clip(width, 2, size=size) for width, size in zip((24, 32), sizes, strict=True))
    pairs, samples = pairs_of(a, b), Samples.make(3, size=sizes[0])
    seen = {}
    for how in ("whole", "auto"):
        empty = Statistics(pairs, BiCo(mlp=how).wanted)
        sides = Side(a, samples.loss), Side(b, samples.loss)
        seen[how] = fill(empty, *sides, pairs, samples.batches(2, target_size=sizes[1]))
    merged = [key for key in inside(pairs) if seen["auto"][key].rows != seen["whole"][key].rows]
    assert merged == inside(pairs)
    groups = merging.groups(pairs[-2].base.tokens)
    assert {seen["auto"][key].rows for key in merged} == {3 * len(groups)}
    for key in ((pair, signal) for pair in pairs for signal in (Signal.INPUT, Signal.OUTPUT_GRADIENT)):
        if key not in merged:
            torch.testing.assert_close(seen["auto"][key].cross, seen["whole"][key].cross)
        elif key[0].target.depth == 0:  # in the last block the class token alone has a gradient
            assert not torch.allclose(seen["auto"][key].cross, seen["whole"][key].cross)
    for each in seen.values():
        assert all(part.cross.isfinite().all() for _, part in each.parts())


def test_small_grids_are_left_whole_and_weighted_rows_too():
    a = tiny_clip(24, 1)  # 4 × 4 patches
    pair = next(pair for pair, _ in inside(pairs_of(a, a)))
    assert not merging.is_merged(pair, Signal.OUTPUT_GRADIENT, "auto")
    assert merging.is_merged(pair, Signal.OUTPUT_GRADIENT, "merged")
    assert not merging.is_merged(pair, Signal.WEIGHTED_GRADIENT, "merged")
    assert not merging.is_merged(pair, Signal.INPUT, "merged")  # of the up projection: the residual stream


def test_narrow_models_keep_all_directions():
    a = tiny_clip(32, 1)
    pair, signal = inside(pairs_of(a, a))[0]
    assert [merging.rank_limit(pair, signal, how) for how in ("whole", "auto", "merged")] == [None, None, 32]
    assert merging.rank_limit(pair, Signal.INPUT, "merged") is None


def test_the_most_exact_that_any_method_wants_is_collected():
    assert union([BiCo(mlp="merged"), Theseus(mlp="auto")]).mlp == "auto"
    assert union([BiCo(mlp="merged"), Theseus(mlp="whole")]).mlp == "whole"
    assert union([BiCo(), GradFix()]).mlp == "auto"  # which has no rows


def test_a_limit_takes_the_leading_directions():
    generator = torch.Generator().manual_seed(0)
    u, v = (torch.linalg.qr(torch.randn(d, 40, generator=generator, dtype=torch.float64))[0] for d in (60, 50))
    sigma = 0.7 ** torch.arange(40.0, dtype=torch.float64)
    cross = (u * sigma) @ v.T
    found = polar_factor(cross, rtol=1e-12, limit=10)
    expected = u[:, :10] @ v[:, :10].T
    assert (found.factor - expected).norm() / expected.norm() < 0.02
    assert found.rank == 10
    assert found.nuclear == pytest.approx(float(sigma[:10].sum()), rel=1e-3)
    assert len(thin_svd(cross, None, 10)[1]) == len(thin_svd(cross, None, 30)[1]) - 20 == 10
    exact = polar_factor(cross, rtol=1e-3)
    torch.testing.assert_close(polar_factor(cross, rtol=1e-3, limit=24).factor, exact.factor, rtol=0, atol=1e-3)
    torch.testing.assert_close(polar_factor(cross, free=True, limit=10).factor, polar_factor(cross, free=True).factor)


def test_a_port_with_merged_rows_is_near_the_whole_one():
    a, b = tiny_clip(24, 2, size=64), tiny_clip(32, 2, size=64, seed=1)
    samples, tuned = Samples.make(30, size=64), random_fine_tune(a)
    given = {"tuned": tuned, "base": a, "target": b, "calibration": samples.batches(8), "loss": samples.loss}
    whole, merged = (port(**given, method=BiCo(mlp=how), only=["linear"]).delta for how in ("whole", "auto"))
    inner = sum(float((whole[key] * merged[key]).sum()) for key in whole)
    norms = [sum(float(each[key].square().sum()) for key in whole) for each in (whole, merged)]
    assert 0.5 < inner / (norms[0] * norms[1]) ** 0.5 < 0.9999
    outside = [key for key in whole if ".mlp." not in key]
    assert len(outside) < len(whole)
    for key in outside:
        torch.testing.assert_close(whole[key], merged[key])
