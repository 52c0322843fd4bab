"""Single methods: what they refuse, and what no law says of all."""

from dataclasses import replace

import pytest
import torch
from support.laws.models import EXACT, METHODS, carried, job, model, noise_tau, pairs, samples, threads
from support.twins import random_fine_tune, tiny_clip

from hf_bico import BiCo, PortError, port
from hf_bico.core.chain import gather
from hf_bico.core.methods import METHODS as BY_NAME
from hf_bico.core.methods import TransFusion
from hf_bico.core.methods.path import along_path
from hf_bico.core.moments import Statistics
from hf_bico.core.types import Pair
from hf_bico.families import family_of


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with threads(1):
        yield


def test_every_method_has_laws():
    """But auto, which is any of them: test_auto.py has what it must do."""
    assert {method.name for method in METHODS.values()} == set(BY_NAME) - {"auto"}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_tells_what_it_is(name):
    assert "arXiv:" in METHODS[name].citation
    assert METHODS[name].summary.endswith(".")


@pytest.mark.parametrize("name", ["transfusion", "gradfix", "input-only", "output-only"])
def test_unequal_widths_are_refused(name):
    with pytest.raises(PortError, match="equal"):
        METHODS[name].check(pairs("own", "wide"))


def test_transfusion_refuses_what_it_cannot_permute():
    method, both = TransFusion(), pairs("own", "same")
    more_heads = family_of(model("own")).sites(tiny_clip(16, size=16, heads=2))
    with pytest.raises(PortError, match=r"block 0 q has 2 heads, its partner 4 heads"):
        method.check([Pair(a, b) for (a, _), b in zip(both, more_heads, strict=True)])
    bare = [Pair(*(replace(site, hidden_in=None, hidden_out=None) for site in pair)) for pair in both]
    with pytest.raises(PortError, match="name none"):
        method.check(bare)
    tied = [Pair(*(replace(site, hidden_in=site.hidden_out) for site in pair)) for pair in both]
    with pytest.raises(PortError, match="not both: block 0 q"):
        method.check(tied)


def test_transfusion_names_broken_weights():
    both, broken = pairs("own", "same"), dict(model("same").state_dict())
    key = both[0].target.weight.key
    broken[key] = torch.full_like(broken[key], float("nan"))
    statistics = Statistics(both, TransFusion().wanted)
    statistics.weights = model("own").state_dict(), broken
    with pytest.raises(PortError, match="NaN or Inf in block 0 q"):
        list(TransFusion().plan(both, statistics))


def test_transfusion_sees_no_sample():
    """A calibration set of any size, none at all included."""
    tuned = random_fine_tune(model("own"))
    deltas = [
        port(
            tuned=tuned,
            base=model("own"),
            target=model("same"),
            calibration=batches,
            loss=samples(9).loss,
            method=TransFusion(),
        ).delta
        for batches in ([], samples(9).batches(3))
    ]
    assert all(torch.equal(deltas[0][key], deltas[1][key]) for key in deltas[1])


def test_where_all_is_determined_norms_and_angles_are_taus():
    """Behind LayerNorms with a bias, the inputs have no null direction: q, k, v and MLP up lose nothing."""
    bent = [tiny_clip(width, size=16, heads=width // 4, seed=seed) for width, seed in ((16, 0), (24, 4))]
    for net in bent:
        with torch.no_grad():
            for name, parameter in net.visual.named_parameters():
                if "ln_" in name:
                    parameter.add_(torch.randn_like(parameter) * 0.3)
    taus = [random_fine_tune(bent[0], seed=seed) for seed in (1, 2)]
    results = [
        port(
            tuned=tau,
            base=bent[0],
            target=bent[1],
            calibration=samples(100).batches(50),
            loss=samples(100).loss,
            method=BiCo(rtol=EXACT),
        )
        for tau in taus
    ]
    whole = [
        site for site in results[0].moved if site.output.rank == site.output.full and site.input.rank == site.input.full
    ]
    assert {site.target.rsplit(maxsplit=1)[-1] for site in whole} >= {"q", "k", "v", "up"}
    sites = {site.name: site for site in family_of(bent[0]).sites(bent[0])}
    there = {site.name: site for site in family_of(bent[1]).sites(bent[1])}
    before = bent[0].state_dict()
    for site in whole:
        where, to = sites[site.source].weight, there[site.target].weight
        changes = [where.of(tau[where.key] - before[where.key]) for tau in taus]
        moved = [to.of(result.delta[to.key]) for result in results]
        for i, j in ((0, 0), (1, 1), (0, 1)):
            assert (moved[i] * moved[j]).sum() == pytest.approx(float((changes[i] * changes[j]).sum()), abs=1e-9)


def test_a_path_of_one_step_is_the_plain_port():
    tau = noise_tau("own")
    plain = carried(METHODS["bico"], "own", "wide", tau)
    work = job("own", "wide", tau)
    path = along_path(METHODS["bico"], work, gather(work, METHODS["bico"].wanted), 1).delta
    assert all(torch.equal(plain[key], path[key]) for key in plain)


def test_one_voter_is_the_mean():
    tau = noise_tau("own")
    mean, vote = (carried(METHODS[name], "own", "same", tau, n=1) for name in ("gradfix", "gradfix, vote"))
    assert all(torch.equal(mean[key], vote[key]) for key in mean)
