"""The parts of the method, each against an independent computation."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes
from scipy.spatial import procrustes
from support.twins import Samples, random_fine_tune, tiny_clip
from torch import nn

from hf_bico import BiCo, Naive, PortError, port
from hf_bico.core.collect import Side, collect, frozen
from hf_bico.core.difference import Difference
from hf_bico.core.linalg import polar_factor, thin_svd
from hf_bico.core.low_rank import as_dense
from hf_bico.core.moments import CrossMoment, Statistics, resampling
from hf_bico.core.pairing import pair_sites, source_depth
from hf_bico.core.taps import taps
from hf_bico.core.transport import added, holding, transport
from hf_bico.core.types import Signal, Site, Slice, Tokens
from hf_bico.families import family_of
from hf_bico.tasks.scores import Score


def rows(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_square_map_is_scipys_procrustes():
    a, b = rows(50, 6, 0), rows(50, 6, 1)
    theirs, scale = orthogonal_procrustes(a.numpy(), b.numpy())
    ours = polar_factor(b.T @ a)
    assert np.allclose(ours.factor.T, theirs)
    assert ours.rank == 6
    assert ours.nuclear == pytest.approx(scale)


@pytest.mark.parametrize(("d_a", "d_b"), [(5, 8), (8, 5), (6, 6)])
def test_map_is_orthogonal_and_beats_random_ones(d_a, d_b):
    a, b = rows(60, d_a, 0), rows(60, d_b, 1)
    r = polar_factor(b.T @ a).factor
    small = r.T @ r if d_b >= d_a else r @ r.T
    assert torch.allclose(small, torch.eye(min(d_a, d_b), dtype=torch.float64))
    aligned = (r * (b.T @ a)).sum()
    for seed in range(50):
        q = torch.linalg.qr(rows(max(d_a, d_b), min(d_a, d_b), seed))[0]
        assert ((q if d_b >= d_a else q.T) * (b.T @ a)).sum() <= aligned


def test_undetermined_directions_are_cut_not_completed():
    a = rows(4, 10, 0)
    fit = polar_factor(rows(4, 12, 1).T @ a)
    assert fit.rank == 4
    assert torch.linalg.matrix_rank(fit.factor) == 4
    outside = torch.linalg.svd(a)[2][4:]
    assert torch.allclose(fit.factor @ outside.T, torch.zeros(12, 6, dtype=torch.float64), atol=1e-9)


@pytest.mark.parametrize("least", [0, -9], ids=["all of it above the cut", "some of it below"])
def test_few_rows_give_the_same_factor_faster(least):
    """A cross-moment of fewer rows than half its width, as all its directions give it; more rows take the usual way."""
    b, a = rows(10, 60, 0), torch.logspace(0, least, 10, dtype=torch.float64)[:, None] * rows(10, 40, 1)
    whole = polar_factor(b.T @ a)
    for bound in (10, 15, 60):
        few = polar_factor(b.T @ a, rows=bound)
        torch.testing.assert_close(few.factor, whole.factor, rtol=0, atol=1e-9)
        assert few.rank == whole.rank
        assert (whole.rank == 10) == (least == 0)
        assert few.nuclear == pytest.approx(whole.nuclear)
    assert len(thin_svd(b.T @ a, 10)[1]) < 40


def test_a_centred_moment_has_one_more_direction_than_rows():
    """Centring takes a rank-one matrix off, so that no more rows than coordinates determine one direction less."""
    moment = CrossMoment()
    moment.add(rows(6, 40, 0)[None].double(), rows(6, 40, 1)[None].double())
    assert (moment.greatest_rank, moment.centred().procrustes(rtol=1e-9)[1].rank) == (7, 5)
    exact = polar_factor(moment.centred().cross, removed=moment.centred().removed)
    found = as_dense(moment.centred().procrustes(rtol=1e-5)[0])
    torch.testing.assert_close(found, exact.factor, rtol=0, atol=1e-9)


@pytest.mark.parametrize("cross", [torch.zeros(3, 3), torch.full((3, 3), float("nan"))])
def test_nothing_to_align_is_refused(cross):
    with pytest.raises((ValueError, RuntimeError)):
        polar_factor(cross)


def test_residual_is_scipys_disparity():
    a, b = rows(40, 5, 0), rows(40, 5, 1)
    a, b = a - a.mean(0), b - b.mean(0)
    moment = CrossMoment()
    moment.add(a[:, None], b[:, None])
    _, fit = moment.procrustes(rtol=1e-12)
    assert fit.residual == pytest.approx(procrustes(b.numpy(), a.numpy())[2])


def test_layers_are_matched_as_the_paper_does():
    assert [source_depth(l, 4, 4) for l in range(4)] == [0, 1, 2, 3]
    assert [source_depth(l, 12, 24) for l in (0, 1, 12, 23)] == [0, 0, 6, 11]
    assert [source_depth(l, 24, 12) for l in (0, 1, 11)] == [0, 2, 23]
    assert source_depth(0, 5, 1) == 4


def test_layers_without_partner_are_all_named():
    a, b = tiny_clip(), tiny_clip()
    sites = family_of(a).sites(a)
    with pytest.raises(PortError, match=r"block 0 q \(target\).*block 1 q \(target\)"):
        pair_sites([site for site in sites if site.role != "q"], family_of(b).sites(b))
    with pytest.raises(PortError, match=r"block 1 v \(source\) has no v in the target"):
        pair_sites(sites, [site for site in sites if site.role != "v"])


@pytest.mark.parametrize("other", [Tokens(1), Tokens(0, (1,), "text"), Tokens(1, (3, 3), "text")])
def test_token_layouts_that_cannot_match_are_refused(other):
    grid = Tokens(1, (3, 3))
    assert resampling(grid, grid) is None
    assert resampling(other, other) is None
    for pair in ((grid, other), (other, grid)):
        with pytest.raises(PortError, match="do not match"):
            resampling(*pair)


@pytest.mark.parametrize(("a", "b"), [(1, 5), (5, 1), (0, 1), (2, 2)])
def test_prefix_tokens_meet_in_order_and_a_longer_prefixs_rest_nothing(a, b):
    """Registers and a distillation token have no partner; patches meet patches alone."""
    resize = resampling(Tokens(a, (2, 2)), Tokens(b, (3, 3)))
    meeting = resize.dense()
    assert resize.shape == meeting.shape == (b + 9, a + 4)
    assert torch.equal(meeting[:b, :a], torch.eye(b, a))
    assert not meeting[:b, a:].any()
    assert not meeting[b:, :a].any()
    assert torch.allclose(meeting[b:].sum(1), torch.ones(9))


@pytest.mark.parametrize("grids", [((2, 3), (5, 4)), ((5, 4), (2, 3)), ((1, 1), (2, 2))])
def test_a_grid_is_resized_along_one_axis_at_a_time_as_torch_resizes_it_at_once(grids):
    small, large = grids
    resize = resampling(Tokens(1, small), Tokens(2, large))
    x, y = rows(2 * (1 + math.prod(small)), 7, 0), rows(2 * (2 + math.prod(large)), 7, 1)
    x, y = x.reshape(2, -1, 7), y.reshape(2, -1, 7)
    pictures = x[:, 1:].unflatten(1, small).movedim(-1, 1)
    theirs = torch.nn.functional.interpolate(pictures, size=large, mode="bilinear").flatten(2).mT
    expected = torch.cat([x[:, :1], torch.zeros_like(x[:, :1]), theirs], 1)
    torch.testing.assert_close(resize.to(x) @ x, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(resize.to(x).mT @ y, resize.dense().to(x).T @ y)


def test_naive_pads_and_crops_back():
    a, b = tiny_clip(32, 2), tiny_clip(48, 2, seed=3)
    sites = [family_of(model).sites(model) for model in (a, b)]
    tau = Difference(random_fine_tune(a), a.state_dict())

    def move(change, source, target, model):
        plan = Naive().plan(pair_sites(sites[source], sites[target]), None)
        return transport(change, plan, model.state_dict()).delta

    there = move(tau, 0, 1, b)
    key = "visual.transformer.resblocks.1.mlp.c_fc.weight"
    assert torch.equal(there[key][:128, :32], tau[key])
    assert not there[key][128:].any()
    assert not there[key][:, 32:].any()
    back = move(there, 1, 0, a)
    assert all(torch.equal(back[key], tau[key]) for key in back)


def test_taps_leave_no_trace_and_compute_no_weight_gradient():
    model, samples = tiny_clip(), Samples.make(4)
    model.visual.proj.requires_grad_(False)
    model.train()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    pairs = pair_sites(family_of(model).sites(model), family_of(model).sites(model))
    with pytest.raises(RuntimeError, match="stop"):
        collect(
            Side(model, samples.loss),
            Side(model, failing),
            pairs,
            samples.batches(2),
            Statistics(pairs, BiCo().wanted),
        )
    assert model.training
    assert model.visual.conv1.weight.requires_grad
    assert not model.visual.proj.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def failing(model, batch):
    raise RuntimeError("stop")


def test_a_site_that_never_runs_is_named():
    model, samples = tiny_clip(), Samples.make(2)
    sites = family_of(model).sites(model)
    with (
        pytest.raises(PortError, match=r"never ran.*block 0 q \(output gradient\)"),
        frozen(model),
        taps(model, sites, BiCo().wanted.signals, lambda stream, rows: None),
    ):
        model.visual.ln_post(samples.images.new_zeros(1, 32))


def test_taps_see_a_plain_linear_and_a_bare_matmul():
    """X and G of a layer are what autograd says of its weight: ∂L/∂W = Gᵀ X."""
    model, samples = tiny_clip(), Samples.make(6)
    sites = family_of(model).sites(model)
    seen = {}
    with frozen(model), taps(model, sites, BiCo().wanted.signals, seen.__setitem__):
        samples.loss(model, (samples.images, samples.labels)).backward()
    state = dict(model.named_parameters())
    loss = samples.loss(model, (samples.images, samples.labels))
    for site in sites:
        (gradient,) = torch.autograd.grad(loss, state[site.weight.key], retain_graph=True)
        x, g = (seen[site.stream(signal)].flatten(0, 1) for signal in (Signal.INPUT, Signal.OUTPUT_GRADIENT))
        assert torch.allclose(g.T @ x, site.weight.of(gradient)), site.name


def odd_attention():
    """An attention with a fused in-projection that does more than a plain one, and its queries' site."""
    attention = nn.MultiheadAttention(8, 2, add_zero_attn=True, batch_first=True)
    site = Site("q", "q", 0, Slice("attn.in_proj_weight", (0, 8)), None, 8, 8, "attention", Tokens(0, (3,)))
    return nn.ModuleDict({"attn": attention}), site, torch.randn(1, 3, 8, requires_grad=True)


def test_a_fused_attention_that_does_more_is_refused():
    holder, site, x = odd_attention()
    with (
        pytest.raises(PortError, match="plain attention"),
        frozen(holder),
        taps(holder, [site], BiCo().wanted.signals, lambda stream, rows: None),
    ):
        holder.attn(x, x, x, need_weights=False)


def test_an_attention_that_nobody_watches_is_let_be():
    holder, _, x = odd_attention()
    expected = holder.eval().attn(x, x, x, need_weights=False)[0]
    with frozen(holder), taps(holder, (), BiCo().wanted.signals, lambda stream, rows: None):
        got = holder.attn(x, x, x, need_weights=False)[0]
    assert torch.equal(got, expected)


def test_a_pass_that_cannot_be_paired_is_refused():
    model, samples = tiny_clip(), Samples.make(4)
    pairs = pair_sites(family_of(model).sites(model), family_of(model).sites(model))

    def twice(model, batch):
        return samples.loss(model, batch) + samples.loss(model, batch)

    with pytest.raises(PortError, match="runs more than once"):
        collect(
            Side(model, twice), Side(model, samples.loss), pairs, samples.batches(2), Statistics(pairs, BiCo().wanted)
        )
    with pytest.raises(PortError, match="no calibration samples"):
        port(tuned=random_fine_tune(model), base=model, target=model, calibration=[], loss=samples.loss)


def test_score_has_wilsons_interval():
    """Wilson 1927: (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n), z = 1.959964."""
    score, z = Score.of(8, 10), 1.959964
    middle, half = 0.8 + z**2 / 20, z * (0.16 / 10 + z**2 / 400) ** 0.5
    assert score.low == pytest.approx((middle - half) / (1 + z**2 / 10), abs=1e-6)
    assert score.high == pytest.approx((middle + half) / (1 + z**2 / 10), abs=1e-6)


def test_difference_names_every_mismatch():
    base = {"a": torch.zeros(2), "b": torch.zeros(3), "c": torch.zeros(1)}
    with pytest.raises(PortError, match=r"a is \(5,\).*b is only in the base"):
        Difference({"a": torch.zeros(5), "c": torch.zeros(1)}, base)


def test_a_tensor_that_nothing_accounts_for_is_refused():
    model, samples = tiny_clip(), Samples.make(2)
    model.register_parameter("adapter", nn.Parameter(torch.zeros(2, dtype=torch.float64)))
    tuned = random_fine_tune(model) | {"adapter": torch.ones(2, dtype=torch.float64)}
    with pytest.raises(PortError, match="nothing accounts for adapter"):
        port(tuned=tuned, base=model, target=tiny_clip(), calibration=samples.batches(2), loss=samples.loss)


def test_half_precision_weights_keep_their_dtype():
    base = {"w": torch.full((2,), 1.0, dtype=torch.bfloat16)}
    ((_, summed),) = added(base, {"w": torch.tensor([0.5, 1e-6])}, alpha=2.0)
    assert summed.dtype == torch.bfloat16
    assert summed.tolist() == [2.0, 1.0]


def test_holding_gives_the_model_back_after_an_error():
    model = nn.Linear(2, 2)
    before = model.weight.clone()
    with pytest.raises(RuntimeError), holding(model, {"weight": torch.zeros(2, 2)}.items()):
        assert not model.weight.any()
        raise RuntimeError
    assert torch.equal(model.weight, before)
