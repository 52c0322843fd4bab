"""Convolutions as linear maps of their patches: rows, kernels of other sizes, and ports of rotated channels."""

import copy

import pytest
import torch
import torch.nn.functional as F
from support.twins import orthogonal
from torch import Tensor, nn

from hf_bico import Batch, BiCo, Blend, Naive, PortError, Response, TransFusion, Weighted
from hf_bico.core.chain import carry, gather
from hf_bico.core.collect import Side
from hf_bico.core.kernels import Convolution, Window, as_matrix, as_taps, fitted
from hf_bico.core.method import Job, Method
from hf_bico.core.riders import Kind, Ride, Rider, carried
from hf_bico.core.taps import taps
from hf_bico.core.types import BilinearMap, Pair, Signal, Site, Slice, Tokens

WIDE = {"stride": 2, "padding": 1, "dilation": 1}
ROWS = Tokens(0, (8, 8))
SITES = (
    Site("a", "a", 0, Slice("0.weight"), Slice("0.bias"), 6, 4, "a", ROWS, window=Window((3, 3)), tokens_out=ROWS),
    Site("b", "b", 0, Slice("1.weight"), Slice("1.bias"), 5, 6, "b", ROWS, window=Window((3, 2)), tokens_out=ROWS),
)


def net(seed: int = 0) -> nn.Module:
    """Two convolutions with nothing between, of several steps and edges."""
    torch.manual_seed(seed)
    first, second = nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.Conv2d(6, 5, (3, 2), padding="same", dilation=2)
    return nn.Sequential(first, second).double()


def loss(model: nn.Module, x: Tensor) -> Tensor:
    return model(x).square().mean((1, 2, 3)).sum()


def pictures(n: int = 8, side: int = 16) -> Tensor:
    return torch.randn(n, 4, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_the_rows_of_a_convolution_give_its_output_and_its_gradient():
    model, seen = net(), {}
    x = pictures()
    with taps(model, SITES, {Signal.INPUT, Signal.OUTPUT, Signal.OUTPUT_GRADIENT}, seen.__setitem__, len(x)):
        out = loss(model, x)
        assert torch.allclose(out, loss(net(), x))
        gradient, bias = torch.autograd.grad(out, (model[1].weight, model[1].bias), retain_graph=True)
        out.backward()
    rows = {(stream.signal, stream.name): value for stream, value in seen.items()}
    y, g = rows[Signal.OUTPUT, "b"], rows[Signal.OUTPUT_GRADIENT, "b"]
    assert torch.allclose(y.mT.reshape(8, 5, 8, 8), net()(x))
    by = Convolution((3, 2), {"stride": 1, "padding": "same", "dilation": 2})
    patches = by.patches(rows[Signal.INPUT, "b"].reshape(8, 8, 8, 6)).flatten(1, 2)
    matrix = as_matrix(SITES[1].weight.of(model[1].weight))
    assert torch.allclose(patches @ matrix.T + model[1].bias, y)
    whole = torch.einsum("nto,nti->oi", g, patches)
    assert torch.allclose(as_taps(whole, SITES[1].window), SITES[1].weight.of(gradient))
    assert torch.allclose(g.sum((0, 1)), bias)
    assert torch.allclose(
        by.lengths(rows[Signal.INPUT, "b"].reshape(8, 8, 8, 6))[..., 0].flatten(1), patches.norm(dim=-1)
    )


@pytest.mark.parametrize("layer", [nn.Conv2d(4, 6, 3), nn.Conv2d(4, 6, 1), nn.Linear(16, 6)])
def test_a_change_in_place_behind_a_layer_hides_no_gradient(layer: nn.Module):
    model, seen = nn.Sequential(layer, nn.ReLU(inplace=True)).double().requires_grad_(False), {}
    site = Site("a", "a", 0, Slice("0.weight"), None, 6, 4, "a", ROWS)
    with taps(model, [site], {Signal.OUTPUT_GRADIENT}, seen.__setitem__, 8):
        loss(model, pictures(8)).backward()
    assert len(seen) == 1


@pytest.mark.parametrize("method", [BiCo(rtol=1e-11), Weighted(rtol=1e-11), Response(), Blend(), Response(ridge=1e9)])
def test_rotated_channels_are_followed_at_every_tap(method: Method):
    """With nothing between two convolutions, the channels there can be rotated: a fine-tune comes back exactly."""
    model = net()
    other, turn = copy.deepcopy(model), orthogonal(6)
    with torch.no_grad():
        other[0].weight.copy_(torch.einsum("ij,jkhw->ikhw", turn, model[0].weight))
        other[0].bias.copy_(turn @ model[0].bias)
        other[1].weight.copy_(torch.einsum("ijhw,kj->ikhw", model[1].weight, turn))
    x = pictures(24)
    steps = dict(
        zip(dict(model.named_parameters()), torch.autograd.grad(loss(model, x), list(model.parameters())), strict=True)
    )
    tau = {key: -0.1 * step for key, step in steps.items()}
    made = ported(method, tau, model, other, x, x)
    tuned = copy.deepcopy(model)
    with torch.no_grad():
        for key, parameter in tuned.named_parameters():
            parameter.add_(tau[key])
        for key, parameter in other.named_parameters():
            parameter.add_(made[key])
        before, wanted, got = (each(pictures(4)) for each in (model, tuned, other))
    assert (got - wanted).norm() < 1e-6 * (wanted - before).norm()


def ported(method: Method, tau: dict, model: nn.Module, other: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    job = Job(
        tau,
        [Pair(site, site) for site in SITES],
        Side(model, loss),
        Side(other, loss),
        other.state_dict(),
        lambda: [Batch(x, y)],
    )
    method.check(job.pairs)
    return dict(carry(job, method, gather(job, method.wanted)).delta)


def test_images_of_another_size_meet_on_their_grid():
    """Of images half as large again the maps are nearly those of the images; of mirrored ones they are not."""
    model, tau = net(), {key: tensor.clone() for key, tensor in net(1).state_dict().items()}
    x = F.interpolate(pictures(24, 4), size=16, mode="bilinear")
    larger = F.interpolate(x, size=24, mode="bilinear")
    same, grown, mirrored = (ported(BiCo(), tau, model, model, x, y) for y in (x, larger, larger.flip(-1)))

    def alike(other: dict[str, Tensor]) -> float:
        return min(float(torch.cosine_similarity(same[key].flatten(), other[key].flatten(), 0)) for key in tau)

    assert alike(grown) > 0.8 > 0.5 > alike(mirrored)


def test_methods_that_work_entry_by_entry_refuse_convolutions():
    with pytest.raises(PortError, match="transfusion does not serve convolutions of more than one tap: a, b"):
        TransFusion().check([Pair(site, site) for site in SITES])


def kernel(*size: int) -> Tensor:
    return torch.randn(3, 2, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def of_window(weight: Tensor, other: Window) -> Tensor:
    """A kernel (d_out, d_in, …) for another window."""
    made = fitted(Slice("").of(weight), Window(tuple(weight.shape[2:])), other)
    return made.movedim(0, -1).reshape(3, 2, *other.size)


def test_a_larger_kernel_is_the_same_function():
    x, small = torch.randn(1, 2, 9, 9, dtype=torch.float64), kernel(3, 1)
    large = of_window(small, Window((5, 3)))
    assert torch.allclose(F.conv2d(x, small, padding=(1, 0)), F.conv2d(x, large, padding=(2, 1)))
    assert torch.equal(of_window(large, Window((3, 1))), small)
    assert torch.equal(fitted(small[:, :, 1, 0], None, Window((3, 3)))[4], small[:, :, 1, 0])


@pytest.mark.parametrize("size", [(4, 4), (3, 5)])
def test_a_kernel_of_patches_gives_of_larger_patches_what_it_gave(size):
    x, small = torch.randn(1, 2, 2, 2, dtype=torch.float64), kernel(2, 2)
    large = of_window(small, Window(size, cuts=True))
    grown = F.interpolate(x, size=size, mode="bilinear")
    assert torch.allclose(F.conv2d(x, small), F.conv2d(grown, large))


def test_one_axis_is_no_two():
    with pytest.raises(PortError, match="along other axes"):
        fitted(torch.zeros(3, 2, 2), Window((3,)), Window((3, 3)))


def test_a_kernel_of_every_channel_alone_follows_a_permutation_and_grows():
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    tau = torch.randn(6, 1, 3, 3, dtype=torch.float64)
    rider = Rider("dw", "norms", "dw.weight", Kind.DEPTHWISE, "a", width=6)
    map_ = BilinearMap(torch.eye(6, dtype=torch.float64)[order], None)
    assert torch.allclose(carried(Ride(rider, rider), tau, map_, (6, 1, 3, 3)), tau[order])
    assert torch.allclose(carried(Ride(rider, rider), tau, map_, (6, 1, 5, 5)), F.pad(tau[order], (1, 1, 1, 1)))


def test_the_naive_copy_pads_channels():
    tau = {key: torch.ones_like(tensor) for key, tensor in net().state_dict().items()}
    map_ = next(map_ for _, map_ in Naive().plan([Pair(SITES[0], SITES[1])], None))
    assert map_.weight(Slice("").of(tau["0.weight"])).shape == (9, 5, 6)
