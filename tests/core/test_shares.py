"""What ranks share comes out as one of them would have it alone; here they are threads, which hand over objects."""

from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from copy import deepcopy
from dataclasses import replace
from itertools import chain
from threading import Barrier

import pytest
import torch
from support.laws.models import DRAWS, METHODS, job, noise_tau, unrelated
from support.twins import distance

from hf_bico.core import ranks
from hf_bico.core.chain import carry, gather
from hf_bico.core.choice import Made, choose
from hf_bico.core.collect import Elsewhere
from hf_bico.core.errors import PortError
from hf_bico.core.method import Job, Method, untracked
from hf_bico.core.ranks import ALONE, Group, divided, here, within
from hf_bico.core.types import Signal, Wanted
from hf_bico.core.views import with_views
from hf_bico.io import workspace
from hf_bico.tasks import batches
from hf_bico.tasks.parts import live_folds

ALL = Wanted(frozenset(Signal), DRAWS)
LONG = 30
"""Seconds after which a rank that nobody meets gives up."""


class Thread(Group):
    """One of some threads that tell one another objects; it has no process group."""

    def __init__(self, rank: int, world: int, said: list, barrier: Barrier) -> None:
        self.rank, self.world, self.said, self.barrier = rank, world, said, barrier

    def exchanged(self, what, mine):
        self.said[self.rank] = (what, mine)
        self.barrier.wait(LONG)
        found = list(self.said)
        self.barrier.wait(LONG)
        assert {step for step, _ in found} == {what}
        return [each for _, each in found]

    def add(self, tensor):
        tensor.copy_(sum(self.exchanged("add", tensor.clone())))


def given() -> Job:
    return job("own", "wide", noise_tau("own"), n=12, batch=5)


def together(world, run):
    """What `run` gives on every rank; errors are given back too."""
    said, barrier = [None] * world, Barrier(world)

    def one(rank):
        with within(Thread(rank, world, said, barrier)):
            try:
                return run(here())
            except PortError as error:
                return error

    with ThreadPoolExecutor(world) as pool:
        return list(pool.map(lambda rank: copy_context().run(one, rank), range(world)))


def jobs(world: int) -> list[Job]:
    """The same job for every rank, each on models of its own."""
    one = given()
    alike = [tuple(side._replace(model=deepcopy(side.model)) for side in (one.base, one.target)) for _ in range(world)]
    return [replace(one, base=base, target=target) for base, target in alike]


@pytest.mark.parametrize("world", [2, 3, 5])  # of three batches
def test_sums_of_shares_are_those_of_all_samples(world):
    work, whole = jobs(world), gather(given(), ALL)
    parts = together(world, lambda own: gather(work[own.rank], ALL).state_dict())
    for part in parts:
        assert part.keys() == whole.state_dict().keys()
        for name, tensor in whole.state_dict().items():
            assert torch.equal(part[name], parts[0][name])  # to the bit
            assert torch.allclose(part[name].double(), tensor.double(), rtol=1e-9, atol=1e-10), name


@pytest.mark.parametrize("name", METHODS)
def test_maps_of_shares_are_those_of_a_plan(name):
    method = METHODS[name]
    work = job("own", unrelated(method), noise_tau("own"), n=12, batch=5)
    if type(method).plan is Method.plan:
        return
    seen = gather(work, method.wanted)
    whole = list(method.plan(work.pairs, seen))
    parts = [list(method.share(work.pairs, seen, which)) for which in (slice(0, 3), slice(3, 4), slice(4, len(whole)))]
    for (pair, map_), (own, same) in zip(whole, chain(*parts), strict=True):
        assert pair == own
        there = torch.randn(pair.base.d_out, pair.base.d_in, dtype=torch.float64)
        assert torch.equal(map_.weight(there), same.weight(there))
        assert map_.scale == same.scale


def test_heirs_in_other_shares_count():
    work, method = given(), METHODS["weighted"]
    twice, seen = (*work.pairs, *work.pairs), gather(work, method.wanted)
    assert [map_.scale for _, map_ in method.share(twice, seen, slice(0, 3))] == [2**-0.5] * 3


@pytest.mark.parametrize("name", ["bico", "weighted", "naive", "response"])
def test_what_ranks_moved_is_put_together_in_order(name):
    work, alone, method = jobs(3), given(), METHODS[name]
    whole, seen = carry(alone, method, gather(alone, method.wanted)), gather(alone, method.wanted)
    for found in together(3, lambda own: carry(work[own.rank], method, seen)):
        assert [each.target for each in found.moved] == [each.target for each in whole.moved]
        assert found.rode == whole.rode
        assert distance(found.delta, whole.delta) < 1e-12


def test_ranks_choose_what_one_would():
    """With its sums of either half, of scales that are divided over the ranks, on the way down that all go."""
    some = METHODS["naive"], METHODS["bico"], METHODS["weighted"]

    def choice(work: Job):
        return choose(Made(replace(work, folds=live_folds(list(work.batches()), work.target)), some), untracked)

    method, alone = choice(given())
    work = jobs(2)
    for same, found in together(2, lambda own: choice(work[own.rank])):
        assert (same, found.chosen.alpha) == (method, alone.chosen.alpha)
        assert [each.loss for each in found.tried] == pytest.approx([each.loss for each in alone.tried], rel=1e-9)


def test_shares_are_neighbours_about_as_costly_as_any_other():
    costs = [1.0, 1.0, 1.0, 9.0, 9.0, 1.0, 1.0, 1.0]
    shares = [Thread(rank, 2, [], Barrier(2)).share(costs) for rank in range(2)]
    assert shares == [slice(0, 4), slice(4, 8)]
    assert ALONE.share(costs) == slice(0, 8)
    many = [Thread(rank, 12, [], Barrier(12)).share(costs) for rank in range(12)]
    assert [k for some in many for k in range(len(costs))[some]] == list(range(8))


def test_batches_of_others_are_told_the_size_of():
    whole = given().batches()
    found = together(2, lambda own: list(divided(whole)))
    assert [[isinstance(each, Elsewhere) for each in one] for one in found] == [
        [False, True, False],
        [True, False, True],
    ]
    assert [each.samples for one in found for each in one if isinstance(each, Elsewhere)] == [5, 5, 2]


def test_what_one_refuses_all_refuse():
    def compute():
        if here().rank == 1:
            raise PortError("no")
        return 1

    assert [str(each) for each in together(3, lambda own: own.agreed("it", compute))] == ["no"] * 3
    assert together(2, lambda own: own.lead("it", lambda: here() is ALONE)) == [True, None]
    assert together(2, lambda own: own.first("it", lambda: here() is ALONE)) == [True, True]
    assert together(2, lambda own: own.each("it", lambda n: n * n, range(5))) == [[0, 1, 4, 9, 16]] * 2


def test_ranks_that_do_not_work_on_the_same_are_refused():
    assert all(isinstance(each, PortError) for each in together(2, lambda own: ranks.require_same("it", own.rank)))
    assert together(2, lambda own: ranks.require_same("it", 1)) == [None, None]


def test_facts_are_those_of_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(workspace, "cached_assets_path", lambda *_, subfolder, **__: tmp_path / subfolder)

    def run(own):
        space = workspace.Workspace({"of": "a test"})
        return space.once("a loss", lambda: own.rank + 7), space.once("a loss", lambda: None), space.folder

    (a, again, here_), (b, same, there) = together(2, run)
    assert (a, again, b, same) == (7, 7, 7, 7)
    assert here_ != there


class Told:
    """What a model of samples is asked, of which nothing but the samples is looked at."""

    class side:
        ear = None

    def encode(self, some):
        return tuple(some)


def test_views_are_counted_on(monkeypatch):
    """Three batches a view, of two ranks: who passes two of one passes one of the next."""
    monkeypatch.setattr(batches, "row_weights", lambda a, b: {})
    monkeypatch.setattr(batches, "sample_seen", lambda sample, seed: (sample, seed))
    whole = batches.Batches(range(7), (Told(), Told()), 3)
    others = [isinstance(each, Elsewhere) for each in with_views(whole.divided(0, 2), 2)]
    assert others == [False, True, False, True, False, True, False, True, False]
    shown = [each.base for part in (0, 1) for each in whole.divided(part, 2).view(1) if not isinstance(each, Elsewhere)]
    assert sorted(sample for some in shown for sample in some) == sorted(
        sample for each in whole.view(1) for sample in each.base
    )
    assert [each.samples for each in whole.divided(0, 2) if isinstance(each, Elsewhere)] == [3]
