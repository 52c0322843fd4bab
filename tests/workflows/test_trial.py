"""A trial port: each half of the samples is judged by the other."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.twins import Samples, gradient_step, random_fine_tune, tiny_clip, twin

from hf_bico.core.collect import collect
from hf_bico.core.folds import gather_folds, halved, held_out_loss, together
from hf_bico.core.method import Fold
from hf_bico.core.methods import BiCo
from hf_bico.core.moments import Statistics
from hf_bico.reports.verdict import Trial, signs_of
from hf_bico.workflows.live import job_of

# A trial port


def trial(a, b, tuned, samples, n):
    """A trial port on live models, losses summed."""
    job = job_of(tuned=tuned, base=a, target=b, calibration=samples.batches(n), loss=samples.loss)
    half = [replace(samples, images=samples.images[k::2], labels=samples.labels[k::2]) for k in (0, 1)]
    method = BiCo(rtol=1e-11)

    def loss(model, own):
        with torch.no_grad():
            return float(own.loss(model, (own.images, own.labels)))

    job = replace(
        job,
        folds=[Fold(lambda own=own: own.batches(n), lambda k=k: loss(b, half[1 - k])) for k, own in enumerate(half)],
    )
    parts = gather_folds(job, method.wanted)
    after = held_out_loss(job, method, parts)
    fine_tuned = tiny_clip(16, size=16, heads=4)
    fine_tuned.load_state_dict(tuned)
    whole = together(job, method.wanted, parts)
    return Trial(loss(b, samples), after, loss(fine_tuned, samples)), whole, job


def test_on_a_twin_a_port_in_small_recovers_all_of_a_task_that_the_samples_span():
    a, samples = tiny_clip(16, size=16, heads=4), Samples.make(240, size=16)
    tuned = gradient_step(a, samples, step=2e-3)
    found, _, _ = trial(a, twin(a), tuned, samples, 60)
    assert found.before > found.source
    assert found.recovered == pytest.approx(1, abs=0.02)


def test_either_half_is_judged_by_the_other():
    """A port of samples whose labels say nothing is no better on others, however well it fits its own."""
    a, samples = tiny_clip(16, size=16, heads=4), Samples.make(40, size=16)
    b = tiny_clip(16, size=16, heads=4, seed=5)
    found, whole, job = trial(a, b, gradient_step(a, samples, step=2e-3), samples, 20)
    both = Statistics(job.pairs, BiCo().wanted)
    collect(job.base, job.target, job.pairs, samples.batches(7), both)
    for pair in job.pairs:
        for signal in BiCo().wanted.signals:
            assert torch.allclose(whole[pair, signal].cross, both[pair, signal].cross)
    assert found.after != found.before


def test_halves_share_every_class():
    """Also where the classes come in turn, and every second sample would be of every second class."""
    labels = [i % 4 for i in range(40)] + [9]
    first, second = halved(labels)
    assert sorted(first + second) == list(range(41))
    counts = [[sum(labels[i] == k for i in half) for half in (first, second)] for k in (0, 1, 2, 3, 9)]
    assert all(abs(a - b) <= 1 for a, b in counts)
    assert halved(["a", "b", None]) == ([0, 2], [1])


def test_means_are_weighed_by_what_each_map_carries():
    a, samples = tiny_clip(16, size=16, heads=4), Samples.make(30, size=16)
    tuned = {key: tensor.clone() for key, tensor in a.state_dict().items()}
    only = "visual.transformer.resblocks.1.mlp.c_fc.weight"
    tuned[only] = random_fine_tune(a)[only]
    _, whole, job = trial(a, twin(a), tuned, samples, 30)
    moved = BiCo(rtol=1e-11).carry(job, whole).moved
    signs = signs_of(moved, {"": np.eye(2)}, {"": (0, None)}, 0.5)
    entry = next(entry for entry in moved if entry.norm)
    assert signs.input_residual == pytest.approx(entry.input.residual)
    assert signs.output_residual == pytest.approx(entry.output.residual)
    assert signs.kept == pytest.approx(entry.kept)
    assert signs.cka == 1
