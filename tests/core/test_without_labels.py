"""Samples without labels: what they are learnt for, what they add to the statistics, and what they leave alone."""

from dataclasses import replace

import pytest
import torch
from support.laws.models import DRAWS, METHODS, job, noise_tau, samples
from support.twins import Samples, distance

from hf_bico.core.chain import carry, gather
from hf_bico.core.collect import Batch
from hf_bico.core.learn import Lesson, learn
from hf_bico.core.method import Job
from hf_bico.core.methods import Response
from hf_bico.core.moments import Statistics
from hf_bico.core.side_by_side import SideBySide
from hf_bico.core.types import LABEL_FREE, ROWS, Signal, Wanted

ALL = Wanted(frozenset(Signal), DRAWS)
N = 12


def given(n: int = N) -> Job:
    return job("own", "wide", noise_tau("own"), n=n, batch=5)


def without_labels(work: Job, some: Samples) -> Job:
    """A job with more samples, whose labels are out of range: a loss of them is an error."""
    batches = [
        Batch(*((each[0], torch.full_like(each[1], 999)) for each in (batch.base, batch.target)))
        for batch in some.batches(5)
    ]
    return replace(work, unlabelled=lambda: batches)


def sums(seen: Statistics, work: Job, signals) -> dict[str, torch.Tensor]:
    return {f"{pair.target.name} {s}": seen[pair, s].cross for pair in work.pairs for s in signals}


def test_no_samples_without_labels_change_nothing():
    work = given()
    none = replace(work, unlabelled=lambda: [])
    seen, same = gather(work, ALL), gather(none, ALL)
    assert distance(sums(seen, work, ROWS), sums(same, work, ROWS)) == 0
    for method in (METHODS["response"], METHODS["distil"]):
        assert distance(carry(work, method, seen).delta, carry(none, method, same).delta) == 0


def test_what_needs_no_labels_is_seen_of_all_samples_and_the_rest_of_those_with_labels():
    """Its own samples beside it are each sample twice; others are what they would be with their labels."""
    work, twice = given(), without_labels(given(), samples(N))
    seen, doubled = gather(work, ALL), gather(twice, ALL)
    free, asked = LABEL_FREE - {Signal.LABEL_FREE_GRADIENT, Signal.TRAFFIC}, ROWS - LABEL_FREE
    assert free == {Signal.INPUT, Signal.OUTPUT}
    own = sums(seen, work, free)
    assert distance(sums(doubled, work, free), {key: 2 * cross for key, cross in own.items()}) < 1e-12
    assert distance(sums(doubled, work, asked), sums(seen, work, asked)) == 0
    assert doubled.samples == 2 * N
    pair = work.pairs[0]
    assert doubled[pair, Signal.INPUT].rows == 2 * seen[pair, Signal.INPUT].rows
    other = Samples.make(7, seed=9, size=16)
    both = replace(work, batches=lambda: [*work.batches(), *other.batches(5)])
    mixed = gather(without_labels(work, other), ALL)
    assert distance(sums(mixed, work, LABEL_FREE), sums(gather(both, ALL), work, LABEL_FREE)) < 1e-12


def test_an_interrupted_collection_goes_on_among_the_samples_without_labels():
    work = without_labels(given(), Samples.make(7, seed=9, size=16))
    whole = gather(work, ALL)

    class Stopped:
        left = 4  # the three batches with labels, and one without

        def load(self, fresh):
            return (fresh, 0) if self.left else (self.kept, 4)

        def after_batch(self, seen):
            self.left, self.kept = self.left - 1, seen
            if not self.left:
                raise KeyboardInterrupt

    stopped = Stopped()
    with pytest.raises(KeyboardInterrupt):
        gather(work, ALL, resume=stopped)
    stopped.after_batch = lambda seen: None
    again = gather(work, ALL, resume=stopped)
    assert distance(sums(again, work, ROWS), sums(whole, work, ROWS)) < 1e-12


def test_a_regression_is_on_all_samples():
    """Under maps that look at no labels a response is the same whether samples have labels or not."""
    method = Response(rtol=1e-9, maps="output")
    other = Samples.make(7, seed=9, size=16)
    work = given()
    both = replace(work, batches=lambda: [*work.batches(), *other.batches(5)])
    more = without_labels(work, other)
    found, expected, alone = (carry(each, method, gather(each, method.wanted)).delta for each in (more, both, work))
    assert distance(found, expected) < 1e-9
    assert distance(found, alone) > 1e-3


@pytest.mark.parametrize("views", [0, 2])
def test_every_sample_has_a_number_of_its_own(views):
    work = without_labels(given(), Samples.make(7, seed=9, size=16))
    with SideBySide(work, gather(work, Wanted(frozenset({Signal.INPUT}))), views) as passes:
        sites = next(iter(passes))
        numbers = [set(rows.sample.tolist()) for rows in passes.rows([passes.pairs[site.name] for site in sites])]
    labelled = [{0, 1, 2, 3, 4}, {5, 6, 7, 8, 9}, {10, 11}]
    assert numbers == [*labelled * (1 + views), {12, 13, 14, 15, 16}, {17, 18}]


def test_the_answers_are_learnt_of_all_samples_and_the_labels_of_those_that_have_some():
    work, other = given(), Samples.make(7, seed=9, size=16)
    both = replace(work, batches=lambda: [*work.batches(), *other.batches(5)])
    more, rate = without_labels(work, other), 1e-3
    soft, hard = Lesson(2, rate, labels=False, views=False), Lesson(1, rate, soft=False, views=False)
    found, taught = learn(more, {}, soft)
    expected, told = learn(both, {}, soft)
    assert distance(found, expected) < 1e-9
    assert taught.losses == pytest.approx(told.losses)
    first = [
        learn(each, {}, lesson)[1].losses[0]
        for each, lesson in ((work, hard), (more, soft), (more, Lesson(1, rate, views=False)))
    ]
    assert first[2] == pytest.approx(first[0] + first[1])
    assert learn(more, {}, hard)[1].losses == learn(work, {}, hard)[1].losses


def test_who_has_a_use_for_them():
    takes = {name for name, method in METHODS.items() if method.takes_unlabelled}
    assert not takes & {"naive", "few-shot", "gradfix", "transfusion", "weighted", "gradient-only"}
    assert {"bico", "theseus", "response", "blend", "distil", "input-only", "bico, label-free"} <= takes
    assert METHODS["bico"].wanted.signals & LABEL_FREE == {Signal.INPUT}
