"""Laws of a port onto its own base, or another one of the same function."""

import torch
from support.laws.models import carried, difference, model, noise_tau, plus, samples
from support.twins import Samples, distance, gradient_step, turned

from hf_bico.core.methods import Method, TransFusion


def own_base_gives_the_step_back(method: Method) -> None:
    """Onto its own base, the step that the samples ask for comes back as it is, weights and biases."""
    tau = difference(gradient_step(model("own"), samples(100)), model("own"))
    assert distance(carried(method, "own", "own", tau), tau) < 1e-6


def own_base_projects(method: Method) -> None:
    """Onto its own base, what comes back of any τ is an orthogonal projection of it, and not nothing."""
    tau = noise_tau("own")
    once = carried(method, "own", "own", tau)
    assert once.keys() == tau.keys()
    for key, kept in once.items():
        assert kept.norm() > 0.05 * tau[key].norm(), key
        assert abs(((tau[key] - kept) * kept).sum()) < 1e-6 * tau[key].square().sum(), key
    assert distance(carried(method, "own", "own", once), once) < 1e-6


def _follows(method: Method, rotate: bool) -> None:
    tau = noise_tau("own")
    here = {key: torch.zeros_like(tensor) for key, tensor in model("own").state_dict().items()}
    here |= carried(method, "own", "own", tau)
    there = carried(method, "own", "turned" if rotate else "permuted", tau)
    expected = turned(model("own"), here, rotate=rotate)
    assert distance(there, {key: expected[key] for key in tau}) < 1e-5


def rotations_are_followed(method: Method) -> None:
    """In other coordinates of one function, τ arrives as in its own and then turned: the residual stream and heads
    rotated, heads and MLP units permuted."""
    _follows(method, rotate=True)


def permutations_are_followed(method: Method) -> None:
    """The same with the residual stream as it is: heads, units inside heads and MLP units permuted."""
    _follows(method, rotate=False)


def same_function_same_fine_tune(method: Method) -> None:
    """A base of the same function gives, with any τ carried over, the logits of the fine-tune."""
    held_out = Samples.make(16, seed=5, size=16)
    before, tau = held_out.logits(model("own")), noise_tau("own")
    expected = held_out.logits(plus(model("own"), tau))
    assert (expected - before).norm() > 0.05 * before.norm()
    for target in ("permuted",) if isinstance(method, TransFusion) else ("turned", "permuted", "more units"):
        assert torch.allclose(held_out.logits(model(target)), before)
        got = held_out.logits(plus(model(target), carried(method, "own", target, tau)))
        assert (got - expected).norm() < 1e-5 * (expected - before).norm(), target
