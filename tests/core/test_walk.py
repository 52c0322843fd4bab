"""A forward pass that waits at its linear maps: what is added there, what goes wrong in it, and how it is left."""

import threading

import pytest
import torch
from support.twins import Samples, tiny_clip

from hf_bico import PortError
from hf_bico.core.methods import method_of
from hf_bico.core.walk import Walk
from hf_bico.families import family_of


@pytest.fixture(scope="module")
def clip():
    model, samples = tiny_clip(16, size=16, heads=4).eval(), Samples.make(3, size=16)
    return model, family_of(model).sites(model), samples


def walk(clip, run=None) -> Walk:
    model, sites, samples = clip
    return Walk(run or (lambda: model.encode_image(samples.images)), model, sites, 3)


def stops(some: Walk, change=lambda stop: None):
    stop = some.step()
    while stop is not None:
        yield stop
        stop = some.step(change(stop))


def test_every_weight_is_a_stop_with_its_rows(clip):
    _, sites, _ = clip
    found = list(stops(walk(clip)))
    assert {site.name for stop in found for site in stop.sites} == {site.name for site in sites}
    assert [site.role for site in found[0].sites] == ["q", "k", "v"]
    for stop in found:
        for site in stop.sites:
            assert (stop.x.shape[-1], site.weight.outputs(stop.y).shape[-1]) == (site.d_in, site.d_out)


def test_what_is_added_is_what_another_weight_gives(clip):
    """Bit by bit in float64: x (W + D)ᵀ, at every site, so also what the layers above see."""
    model, sites, samples = clip
    generator = torch.Generator().manual_seed(0)
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    change = {s.weight: 0.1 * torch.randn(s.d_out, s.d_in, generator=generator).double() for s in sites}
    with torch.no_grad():
        for where, more in change.items():
            where.of(state[where.key]).add_(more)
    changed = tiny_clip(16, size=16, heads=4).eval()
    changed.load_state_dict(state)
    made = []

    def run():
        made.append(model.encode_image(samples.images))

    def added(stop):
        return torch.cat([stop.x @ change[site.weight].T for site in stop.sites], dim=-1)

    list(stops(walk(clip, run), added))
    with torch.no_grad():
        assert torch.allclose(made[0], changed.encode_image(samples.images), atol=1e-10)
        assert not torch.allclose(made[0], model.encode_image(samples.images), atol=1e-3)


def test_an_error_in_the_pass_is_raised_where_it_is_asked_for(clip):
    def run():
        raise PortError("broken")

    with pytest.raises(PortError, match="broken"):
        walk(clip, run).step()


def test_a_pass_that_is_left_leaves_no_thread(clip):
    before = threading.active_count()
    some = walk(clip)
    some.step()
    assert threading.active_count() == before + 1
    some.close()
    assert threading.active_count() == before


def test_lambda_is_a_number_or_auto():
    assert method_of("response", ["ridge=auto"]).ridge == "auto"
    assert method_of("response", ["ridge=0.5"]).ridge == 0.5
    for wrong in ("-1", "0", "inf", "much"):
        with pytest.raises(PortError, match="auto"):
            method_of("response", [f"ridge={wrong}"])
