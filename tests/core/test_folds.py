"""Folds: what is made of one half of the samples is judged by the other, and by nothing else."""

from dataclasses import replace

import pytest
import torch
from support.twins import Samples, random_fine_tune, tiny_clip

from hf_bico import BiCo
from hf_bico.core.chain import carry, gather
from hf_bico.core.folds import gather_folds, halved, held_out_loss, together
from hf_bico.core.method import Fold
from hf_bico.core.transport import added, holding
from hf_bico.workflows.live import job_of

METHOD = BiCo()


@pytest.fixture(scope="module")
def trial():
    """A job, its halves of samples, and the target's loss on either half as it stands."""
    samples = Samples.make(24, size=16)
    a, b = tiny_clip(16, size=16, heads=4), tiny_clip(24, size=16, heads=4, seed=5)
    job = job_of(tuned=random_fine_tune(a), base=a, target=b, calibration=samples.batches(12), loss=samples.loss)
    half = [replace(samples, images=samples.images[k::2], labels=samples.labels[k::2]) for k in (0, 1)]

    def loss(number: int) -> float:
        with torch.no_grad():
            return float(half[number].loss(b, (half[number].images, half[number].labels)))

    folds = [Fold(lambda own=own: own.batches(12), lambda k=k: loss(1 - k)) for k, own in enumerate(half)]
    return replace(job, folds=folds), [fold.batches for fold in folds], loss


def by_hand(job, halves, loss, judged_by) -> float:
    """The sum of the target's losses with a port of either half, each on the half that `judged_by` says."""
    total = 0.0
    for number, half in enumerate(halves):
        own = replace(job, batches=half)
        delta = carry(own, METHOD, gather(own, METHOD.wanted)).delta
        with holding(job.target.model, added(job.weights, delta)):
            total += loss(judged_by(number))
    return total


def test_either_half_is_judged_by_the_other(trial):
    job, halves, loss = trial
    found = held_out_loss(job, METHOD, gather_folds(job, METHOD.wanted))
    assert found == pytest.approx(by_hand(job, halves, loss, lambda number: 1 - number), rel=1e-9)
    assert abs(found - by_hand(job, halves, loss, lambda number: number)) > 1e-6 * abs(found)


def test_two_halves_are_all_of_the_samples(trial):
    job, _, _ = trial
    both, whole = together(job, METHOD.wanted, gather_folds(job, METHOD.wanted)), gather(job, METHOD.wanted)
    for pair in job.pairs:
        for signal in METHOD.wanted.signals:
            assert torch.allclose(both[pair, signal].cross, whole[pair, signal].cross)


def test_halves_share_every_class():
    """Also where the classes come in turn, and every second sample would be of every second class."""
    first, second = halved([i % 4 for i in range(40)])
    for k in range(4):
        assert sum(i % 4 == k for i in first) == sum(i % 4 == k for i in second) == 5
