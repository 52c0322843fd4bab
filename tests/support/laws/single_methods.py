"""Laws of single methods."""

import copy
from dataclasses import replace

import torch
from support.laws.models import (
    METHODS,
    carried,
    job,
    model,
    noise_tau,
    own_gradients,
    own_votes,
    pairs,
    plus,
    samples,
    statistics,
)
from support.twins import distance

from hf_bico import port
from hf_bico.core.methods import Method
from hf_bico.core.taps import taps
from hf_bico.core.types import Signal


def kept_entries_descend(method: Method) -> None:
    """GradFix: exactly what opposes the target's own gradient is kept, layer by layer, and a small step along it
    lowers the loss. ⟨τ_B, ∇L_B⟩ ≤ 0."""
    tau, seen, target = noise_tau("own"), samples(100), model("same")
    delta, gradients = carried(method, "own", "same", tau), own_gradients("same", seen)
    for key, gradient in gradients.items():
        expected = torch.where((tau[key] * gradient) < 0, tau[key], 0)
        assert (delta[key] * gradient).sum() < 0, key
        assert ((delta[key] - expected) * gradient).abs().sum() < 1e-9 * (tau[key] * gradient).abs().sum(), key
    with torch.no_grad():
        before, after = (seen.loss(m, (seen.images, seen.labels)) for m in (target, plus(target, delta, 1e-4)))
    assert after < before


def kept_entries_have_a_majority(method: Method) -> None:
    """GradFix by vote: what is kept lowers more samples' losses than it raises, and nothing of that kind is lost."""
    tau, sums = noise_tau("own"), own_gradients("same", samples(9))
    delta = carried(method, "own", "same", tau, n=9, batch=4)
    assert delta.keys() == tau.keys()
    for key, vote in own_votes("same", 9).items():
        expected = torch.where((tau[key] * vote) < 0, tau[key], 0)
        clear = vote.abs() * sums[key].abs()  # a sample's sign may flip where it is next to zero
        assert ((delta[key] - expected).abs() * clear).sum() < 1e-3 * (expected.abs() * clear).sum(), key


def steps_are_ports_of_parts(method: Method) -> None:
    """A path of two steps is a port of τ/2, and one more between the two models that it leads to."""
    tau, seen = noise_tau("own"), samples(100)
    plain, base, target = replace(method, steps=1), model("own"), model("same")
    half, tuned = {key: change / 2 for key, change in tau.items()}, plus(base, tau)
    first = carried(plain, "own", "same", half)
    second = port(
        tuned=tuned,
        base=plus(base, half),
        target=plus(target, first),
        calibration=seen.batches(50),
        loss=seen.loss,
        method=plain,
    ).delta
    got = carried(method, "own", "same", tau)
    assert distance(got, {key: first[key] + second[key] for key in first}) < 1e-6
    assert distance(first, second) > 1e-3


def steps_are_adams(method: Method) -> None:
    """One step is −rate (decay θ + g/(|g| + ε)) (Loshchilov and Hutter 2019), more are torch's own AdamW along
    a cosine; the batches do not matter, and the model is as it was."""
    seen, target = samples(100), model("same")
    before, tau = copy.deepcopy(target.state_dict()), noise_tau("own")
    got = carried(method, "own", "same", tau)
    gradients = own_gradients("same", seen)
    expected = {key: -method.rate * (method.decay * before[key] + g / (g.abs() + 1e-8)) for key, g in gradients.items()}
    assert distance(got, expected) < 1e-6
    assert distance(carried(method, "own", "same", tau, batch=33), got) < 1e-6
    two, other = replace(method, steps=2), copy.deepcopy(target)
    moving = {key: p for key, p in other.named_parameters() if key in tau}
    adam = torch.optim.AdamW(moving.values(), lr=two.rate, weight_decay=two.decay)
    for share in (1.0, 0.5):  # half a cosine
        adam.param_groups[0]["lr"] = share * two.rate
        adam.zero_grad()
        seen.loss(other, (seen.images, seen.labels)).backward()
        adam.step()
    by_hand = {key: p.detach() - before[key] for key, p in moving.items()}
    assert distance(carried(two, "own", "same", tau), by_hand) < 1e-6
    assert all(torch.equal(tensor, before[key]) for key, tensor in target.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in target.parameters())


def answers_come_nearer(method: Method) -> None:
    """Distillation brings the target's answers nearer to the fine-tune's; labels are not looked at, and both models are
    as they were.
    """
    tau, seen, base, target = noise_tau("own"), samples(24), model("own"), model("wide")
    before = [copy.deepcopy(each.state_dict()) for each in (base, target)]
    given = job("own", "wide", tau, n=24)
    got = method.carry(given, statistics("own", "wide", 24)).delta
    wanted = seen.logits(plus(base, tau)).softmax(-1)

    def divergence(live):
        logs = seen.logits(live).log_softmax(-1)
        return float((wanted * (wanted.log() - logs)).sum())

    assert divergence(plus(target, got)) < 0.8 * divergence(target)
    of_nothing = replace(given, tau={key: torch.zeros_like(change) for key, change in tau.items()})
    assert distance(method.carry(of_nothing, statistics("own", "wide", 24)).delta, got) > 1e-3
    refusing = replace(given, target=given.target._replace(loss=None), base=given.base._replace(loss=None))
    assert distance(method.carry(refusing, statistics("own", "wide", 24)).delta, got) < 1e-12
    for each, state in zip((base, target), before, strict=True):
        assert all(torch.equal(tensor, state[key]) for key, tensor in each.state_dict().items())
        assert all(p.requires_grad and p.grad is None for p in each.parameters())


def a_heavy_ridge_is_bico(method: Method) -> None:
    """λ → ∞ is BiCo, as its R_out is that of the gradients alone."""
    tau = noise_tau("own")
    assert distance(carried(method, "own", "same", tau), carried(METHODS["bico"], "own", "same", tau)) < 1e-6


def nothing_responds_to_nothing(method: Method) -> None:
    """Of τ = 0 nothing comes, to rounding."""
    tau = {key: torch.zeros_like(tensor) for key, tensor in noise_tau("own").items()}
    delta, state = carried(method, "own", "wide", tau), model("wide").state_dict()
    assert all(change.norm() < 1e-9 * state[key].norm() for key, change in delta.items())


def batches_do_not_matter(method: Method) -> None:
    """Layers are solved, and steps taken, on all samples at once, however they come."""
    tau = noise_tau("own")
    whole, parts = (carried(method, "own", "wide", tau, n=24, batch=batch) for batch in (24, 7))
    assert distance(whole, parts) < 1e-8


def responses_are_reproduced(method: Method) -> None:
    """Where λ is small and rows are fewer than inputs, a port's last outputs on the samples change by the response of
    the source's, in the coordinates that R_out gives."""
    tau, (base, target) = noise_tau("own"), pairs("own", "wide")[-1]
    delta = carried(method, "own", "wide", tau, n=2, batch=2)
    own, wide = model("own"), model("wide")
    response = last_outputs(plus(own, tau), base) - last_outputs(own, base)
    found = last_outputs(plus(wide, delta), target) - last_outputs(wide, target)
    *_, (_, map_) = method.plan(pairs("own", "wide"), statistics("own", "wide", 2, 2))
    assert (found - response @ map_.left.T).norm() < 1e-3 * found.norm()


def last_outputs(live, site):
    """What a site gives of two samples."""
    rows, seen = {}, samples(2)
    with torch.no_grad(), taps(live, [site], [Signal.OUTPUT], rows.__setitem__, 2):
        seen.loss(live, (seen.images, seen.labels))
    (found,) = rows.values()
    return found
