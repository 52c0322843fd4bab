"""The choice among methods: by samples that are held out, and by nothing else."""

import copy
from dataclasses import replace

import pytest
import torch
from support.twins import Samples, distance, gradient_step, random_fine_tune, tiny_clip, turned, twin

from hf_bico import Auto, BiCo, Blend, Naive, PortError, Response, Weighted, port
from hf_bico.core.chain import carry, gather
from hf_bico.core.choice import ALPHAS, Made, choose
from hf_bico.core.collect import Batch
from hf_bico.core.method import Method, untracked
from hf_bico.core.transport import added, holding
from hf_bico.tasks.parts import Part
from hf_bico.workflows.live import job_of


@pytest.fixture(scope="module")
def samples():
    return Samples.make(40, size=16)


@pytest.fixture(scope="module")
def learned(samples):
    """A base, and a fine-tune of it that is better on the samples."""
    base = tiny_clip(16, size=16, heads=4)
    return base, gradient_step(base, samples, step=2e-3)


def job(learned, target, batches, loss):
    base, tuned = learned
    return job_of(tuned=tuned, base=base, target=target, calibration=batches, loss=loss)


def test_between_two_models_in_one_coordinates_the_copy_is_taken(learned, samples):
    """The next version of a model: what needs no map is carried over as it is."""
    base, tuned = learned
    work = job(learned, copy.deepcopy(base), samples.batches(7), samples.loss)
    found = carry(work, Auto(), gather(work, Auto().wanted))
    taken, alpha = found.choice.chosen.method, found.choice.chosen.alpha
    tau = {key: tuned[key] - base.state_dict()[key] for key in found.delta}
    assert taken in ("naive", "bico")  # which are the same here, to rounding
    assert distance({key: found.delta[key] / alpha for key in tau}, tau) < 1e-3


def test_on_a_twin_the_fine_tune_is_given_back_at_its_scale(learned, samples):
    base, tuned = learned
    other = twin(base)
    work = job(learned, other, samples.batches(40), samples.loss)
    found = carry(work, Auto(), gather(work, Auto().wanted))
    expected = turned(base, {key: tuned[key] - tensor for key, tensor in base.state_dict().items()})
    alpha = found.choice.chosen.alpha
    copied = next(each for each in found.choice.tried if each.method == "naive")
    assert found.choice.chosen.loss < min(copied.loss, found.choice.without)
    assert distance(found.delta, {key: alpha * expected[key] for key in found.delta}) < 0.2


def test_every_loss_is_that_of_samples_which_the_port_was_not_made_of(learned, samples):
    other = tiny_clip(16, size=16, heads=4, seed=5)
    work = job(learned, other, samples.batches(40), samples.loss)
    method: Method = BiCo()
    _, choice = choose(Made(work, (method,)), untracked)
    parts = [list(Part(work.batches(), number)) for number in (0, 1)]
    losses = dict.fromkeys(ALPHAS, 0.0)
    for own, rest in (parts, parts[::-1]):
        alone = replace(work, batches=lambda own=own: own)
        delta = carry(alone, method, gather(alone, method.wanted)).delta
        for alpha in ALPHAS:
            with torch.no_grad(), holding(other, added(work.weights, delta, alpha)):
                losses[alpha] += sum(float(samples.loss(other, batch.target)) for batch in rest)
    assert choice.chosen.loss == pytest.approx(min(losses.values()), rel=1e-9)
    assert losses[choice.chosen.alpha] == min(losses.values())
    with torch.no_grad():
        whole = sum(float(samples.loss(other, batch.target)) for batch in samples.batches(40))
    assert choice.without == pytest.approx(whole, rel=1e-9)


def test_what_is_taken_is_made_anew_of_all_samples(learned, samples, monkeypatch):
    monkeypatch.setattr("hf_bico.core.methods.auto.CANDIDATES", (BiCo(),))
    other = tiny_clip(16, size=16, heads=4, seed=5)
    work = job(learned, other, samples.batches(40), samples.loss)
    found = carry(work, Auto(), gather(work, Auto().wanted))
    whole = carry(work, BiCo(), gather(work, BiCo().wanted)).delta
    alpha = found.choice.chosen.alpha
    assert distance(found.delta, {key: alpha * whole[key] for key in found.delta}) < 1e-6


def test_a_method_that_does_not_serve_is_told_of_and_left(learned, samples, monkeypatch):
    """GradFix needs equal shapes."""
    from hf_bico import GradFix

    monkeypatch.setattr("hf_bico.core.methods.auto.CANDIDATES", (GradFix(), Naive()))
    wide = tiny_clip(24, size=16, heads=4, seed=5)
    work = job(learned, wide, samples.batches(40), samples.loss)
    found = carry(work, Auto(), gather(work, Auto().wanted))
    assert found.choice.chosen.method == "naive"
    assert "equal shapes" in found.choice.tried[0].refusal


@pytest.mark.parametrize("size", [7, 40])
def test_halves_do_not_depend_on_the_batches(samples, size):
    whole = Batch((samples.images, samples.labels), (samples.images, samples.labels))
    cut = [Batch(*(((x[k : k + size], y[k : k + size])) for x, y in whole[:2])) for k in range(0, 40, size)]
    both = [
        tuple(torch.cat([part.base[i] for part in Part(batches, number)]) for i in (0, 1))
        for batches in ([whole], cut)
        for number in (0, 1)
    ]
    assert all(torch.equal(x, y) for i in (0, 1) for x, y in zip(both[i], both[i + 2], strict=True))
    labels = torch.cat([both[0][1], both[1][1]])
    assert sorted(labels.tolist()) == sorted(samples.labels.tolist())
    counts = [torch.bincount(each[1], minlength=8) for each in both[:2]]
    assert int((counts[0] - counts[1]).abs().max()) <= 1


def test_a_parted_batch_has_its_texts_and_their_partners():
    batch = Batch(
        {"input_ids": torch.arange(12).reshape(6, 2), "labels": torch.tensor([0, 1, 0, 1, 0, 1])},
        {"input_ids": torch.arange(18).reshape(6, 3), "labels": torch.tensor([0, 1, 0, 1, 0, 1])},
        {"text": torch.arange(36.0).reshape(6, 3, 2)},
    )
    first, second = (next(iter(Part([batch], number))) for number in (0, 1))
    assert first.base["labels"].tolist() != [0, 0, 0]  # classes in turn: every second sample is of one class
    rows = [each.base["input_ids"][:, 0].div(2).long().tolist() for each in (first, second)]
    assert sorted(rows[0] + rows[1]) == list(range(6))
    assert first.target["input_ids"][:, 0].tolist() == [3 * row for row in rows[0]]
    assert first.meeting["text"][:, 0, 0].tolist() == [6.0 * row for row in rows[0]]


def test_too_few_samples_are_refused_in_a_line(learned):
    base, tuned = learned
    few = Samples.make(3, size=16)
    with pytest.raises(PortError, match="too few samples to hold some out"):
        port(tuned=tuned, base=base, target=twin(base), calibration=few.batches(3), loss=few.loss)


def test_what_was_tried_is_remembered(learned, samples):
    """An interrupted choice goes on where it was."""
    known: dict = {}

    def once(name, compute):
        if name not in known:
            known[name] = compute()
        return known[name]

    work = replace(job(learned, tiny_clip(16, size=16, heads=4, seed=5), samples.batches(40), samples.loss), once=once)
    method: Method = BiCo()
    _, first = choose(Made(work, (method,)), untracked)
    assert "tried: bico" in known
    known["tried: bico"]["losses"][0] = -1e6
    _, second = choose(Made(work, (method,)), untracked)
    assert len(known) == 1
    assert second.chosen.alpha == ALPHAS[0] and second.chosen.loss < first.chosen.loss


def test_a_blend_is_the_mean_of_both(learned, samples):
    work = job(learned, tiny_clip(24, size=16, heads=4, seed=5), samples.batches(40), samples.loss)
    seen = gather(work, Blend().wanted)
    found, *parts = (carry(work, each, seen).delta for each in (Blend(), Weighted(), Response()))
    assert distance(found, {key: (parts[0][key] + parts[1][key]) / 2 for key in found}) < 1e-6


def test_a_random_change_is_no_gain(samples):
    base = tiny_clip(16, size=16, heads=4)
    work = job(
        (base, random_fine_tune(base)), tiny_clip(16, size=16, heads=4, seed=5), samples.batches(40), samples.loss
    )
    choice = carry(work, Auto(), gather(work, Auto().wanted)).choice
    assert choice.chosen.loss >= 0.9 * choice.without
