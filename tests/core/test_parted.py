"""Sums of the halves: they are those of all samples, they wait without taking memory, and nothing passes twice."""

import gc
import weakref
from dataclasses import replace

import pytest
import torch
from support.laws.models import job, noise_tau
from support.twins import Samples, distance, gradient_step, random_fine_tune, tiny_clip, twin

from hf_bico import Auto, Blend, PortError, Response, Weighted
from hf_bico.core import choice, shelf
from hf_bico.core.chain import carry, gather
from hf_bico.core.choice import ALPHAS, Made, choose
from hf_bico.core.folds import alone
from hf_bico.core.low_rank import Delta
from hf_bico.core.method import untracked
from hf_bico.core.methods.auto import CANDIDATES
from hf_bico.core.moments import Statistics
from hf_bico.core.parted import gather_parted
from hf_bico.core.shelf import Shelf, shelved
from hf_bico.core.side_by_side import SideBySide
from hf_bico.core.types import ROWS, Signal, Wanted
from hf_bico.tasks.parts import live_folds
from hf_bico.workflows.live import job_of

SUMMED = Wanted(frozenset(ROWS) - {Signal.LABEL_FREE_GRADIENT} | {Signal.WEIGHT_GRADIENT})
"""All but what goes by a sample's number."""


def parted_job(n: int = 20, *, unlabelled: int = 0):
    work = job("own", "wide", noise_tau("own"), n=n, batch=6)
    batches = work.batches()
    more = Samples.make(unlabelled, seed=9, size=16).batches(5) if unlabelled else None
    folds = live_folds(batches, work.target)
    return replace(work, folds=folds, unlabelled=None if more is None else lambda: list(more))


def apart(found: Statistics, expected: Statistics) -> float:
    """Votes are left out: the sign of a gradient that is zero but for rounding is anybody's."""
    a, b = (
        {name: tensor.double() for name, tensor in seen.state_dict().items() if "votes" not in name}
        for seen in (found, expected)
    )
    assert a.keys() == b.keys()
    return distance(a, b)


@pytest.mark.parametrize("unlabelled", [0, 7])
def test_the_sums_of_the_halves_are_those_of_all_samples(unlabelled):
    work = parted_job(unlabelled=unlabelled)
    sums, whole = gather_parted(work, SUMMED), gather(work, SUMMED)
    assert apart(sums.whole(), whole) < 1e-12
    pair = work.pairs[0]
    for signal in (Signal.INPUT, Signal.OUTPUT_GRADIENT):
        assert sums.whole()[pair, signal].rows == whole[pair, signal].rows
    for number, fold in enumerate(work.folds):
        assert apart(sums.of(number), gather(alone(work, fold), SUMMED)) < 1e-12
        assert apart(sums.of(number), whole) > 1e-2


def test_what_is_read_is_not_added_to():
    """An expert's sums start at zeros, which are nobody's to add to."""
    work = parted_job()
    sums, key = gather_parted(work, SUMMED).whole(), (work.pairs[0], Signal.INPUT)
    sums[key].cross.zero_()
    assert float(sums[key].cross.norm()) > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64])
def test_a_shelf_gives_back_every_bit(dtype, monkeypatch):
    monkeypatch.setattr(shelf, "SMALL", 64)
    whole = (1000 * torch.randn(40, 30)).to(dtype)
    given = {"a": whole, "turned": whole.T, "part": whole[:, 3:9], "small": whole[0, :2], "one": whole[1, 1]}
    kept = Shelf(given)
    expected = {key: tensor.clone() for key, tensor in given.items()}
    whole.zero_()
    assert list(kept) == list(given)
    for key, tensor in expected.items():
        assert kept[key].dtype == dtype and torch.equal(kept[key], tensor)
    kept["a"] = torch.ones(2)
    del kept["part"]
    assert torch.equal(kept["a"], torch.ones(2)) and "part" not in kept


def test_what_is_on_a_shelf_takes_no_memory():
    tensor = torch.randn(200, 200)
    gone = weakref.ref(tensor)
    kept = shelved(Delta.of({"a": tensor}))
    del tensor
    gc.collect()
    assert gone() is None
    assert kept["a"].shape == (200, 200) and kept["a"] is not kept["a"]


def test_a_full_disk_leaves_tensors_in_memory(monkeypatch):
    def full(**options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shelf, "TemporaryFile", full)
    tensor = torch.randn(200, 200)
    assert torch.equal(Shelf({"a": tensor})["a"], tensor)


def test_a_choice_passes_every_sample_once_to_collect(monkeypatch):
    """The least that any method can do with gradients; and no more of them for the port that is taken."""
    samples, backward = Samples.make(40, size=16), []

    def counting(model, batch):
        loss = samples.loss(model, batch)
        if loss.requires_grad:
            backward.append(len(batch[0]))
        return loss

    base = tiny_clip(16, size=16, heads=4)
    tuned = gradient_step(base, samples, step=2e-3)
    target = tiny_clip(24, size=16, heads=4, seed=5)
    monkeypatch.setattr("hf_bico.core.methods.auto.CANDIDATES", tuple(c for c in CANDIDATES if not c.wanted.views))
    work = job_of(tuned=tuned, base=base, target=target, calibration=samples.batches(10), loss=counting)
    carry(work, Auto(), gather(work, Auto().collected))
    assert sum(backward) == 2 * 40  # through either model


def pairs_of_models():
    samples = Samples.make(40, size=16)
    base = tiny_clip(16, size=16, heads=4)
    better = gradient_step(base, samples, step=2e-3)
    yield "twin", samples, base, better, twin(base)
    yield "itself", samples, base, better, tiny_clip(16, size=16, heads=4)
    for seed, width in ((5, 16), (6, 24), (7, 24)):
        yield f"other {seed}", samples, base, better, tiny_clip(width, size=16, heads=4, seed=seed)
    yield "noise", samples, base, random_fine_tune(base), tiny_clip(16, size=16, heads=4, seed=5)


@pytest.mark.parametrize("given", list(pairs_of_models()), ids=lambda given: given[0])
def test_downhill_the_choice_is_that_of_all_scales(given, monkeypatch):
    _, samples, base, tuned, target = given
    work = job_of(tuned=tuned, base=base, target=target, calibration=samples.batches(40), loss=samples.loss)
    tried = tuple(each for each in CANDIDATES if not each.wanted.views)
    method, found = choose(Made(work, tried), untracked)
    monkeypatch.setattr(choice, "downhill", lambda losses: dict(zip(ALPHAS, losses(ALPHAS), strict=True)))
    same, whole = choose(Made(work, tried), untracked)
    assert (method, found) == (same, whole)


@pytest.mark.parametrize("valley", [0.0, 0.3, 0.6, 0.9, 1.1, 1.4, 9.0])
def test_downhill_finds_the_least_of_a_valley_with_fewer_trials(valley):
    asked = []

    def losses(alphas):
        asked.extend(alphas)
        return [abs(alpha - valley) for alpha in alphas]

    found = choice.downhill(losses)
    assert min(found, key=found.get) == min(ALPHAS, key=lambda alpha: abs(alpha - valley))
    assert len(asked) == len(set(asked)) == len(found) <= 5


def test_of_equal_scales_the_smallest_is_found():
    assert min(choice.downhill(lambda alphas: [0.0 for _ in alphas])) == ALPHAS[0]
    assert min(choice.downhill(lambda alphas: [float("inf") for _ in alphas])) == ALPHAS[0]


def test_a_part_is_let_go_of_with_the_last_that_is_made_of_it():
    made = Made(parted_job(), (Weighted(), Response(), Blend(), Response(views=1)))
    for method in made.candidates[:2]:
        assert [made.delta(number, method) for number in (0, 1)]
    made.done(0)
    assert {method for _, method in made.parts} == {Weighted(), Response()}
    part = weakref.ref(made.parts[0, Weighted()])
    mean = made.delta(0, Blend())
    expected = {key: (made.parts[0, Weighted()][key] + made.parts[0, Response()][key]) / 2 for key in mean}
    assert distance(mean, expected) < 1e-6
    made.done(2)
    gc.collect()
    assert not made.parts and part() is None


def test_sums_of_one_kind_of_views_are_kept_beside_the_plain_ones():
    made = Made(parted_job(), (Weighted(), Weighted(views=1), Weighted(views=2)))
    for views, kept in ((0, {0}), (1, {0, 1}), (2, {0, 2})):
        made.collected(views)
        assert set(made.seen) == kept


def test_broken_samples_are_no_candidates_refusal():
    work = parted_job()
    work = replace(work, target=work.target._replace(loss=lambda model, batch: torch.tensor(float("nan"))))
    with pytest.raises(PortError, match="calibration loss is NaN"):
        choose(Made(work, (Weighted(),)), untracked)


def test_responses_wait_only_for_a_layer_that_is_needed_again():
    """Between models of equal depth no layer of the base is; the rows of a stop are its pass's own."""
    work = parted_job()
    times = {pair.base.name: sum(other.base.name == pair.base.name for other in work.pairs) for pair in work.pairs}
    with SideBySide(work, gather(work, Wanted(frozenset({Signal.INPUT})))) as passes:
        for sites in passes:
            rows = list(passes.rows([passes.pairs[site.name] for site in sites]))
            assert all(len(each.responses) == len(sites) for each in rows)
            waiting = {name for name in passes.responses if times[name] == 1}
            assert len(sites) > 1 or not waiting
            for site in sites:
                passes.add(site, lambda x, site=site: x.new_zeros(*x.shape[:-1], site.d_out))
        assert not passes.responses


def test_a_pass_that_goes_on_leaves_nothing_behind():
    work = parted_job(6)
    with SideBySide(work, gather(work, Wanted(frozenset({Signal.INPUT})))) as passes:
        steps = iter(passes)
        sites = next(steps)
        list(passes.rows([passes.pairs[site.name] for site in sites]))
        for site in sites:
            passes.add(site, lambda x, site=site: x.new_zeros(*x.shape[:-1], site.d_out))
        stops = [weakref.ref(stop.y) for pair in passes.at for stop in pair]
        next(steps)
        gc.collect()
        assert all(stop() is None for stop in stops)
