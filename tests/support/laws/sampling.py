"""Laws of what the samples may and may not do."""

from dataclasses import replace

import numpy as np
import torch
from support.laws.models import (
    SAME,
    carried,
    collected,
    job,
    known,
    model,
    noise_tau,
    own_gradients,
    own_votes,
    pairs,
    plain_rows,
    samples,
    statistics,
    threads,
    unrelated,
)
from support.twins import Samples, distance
from torch import Tensor

from hf_bico.core import linalg
from hf_bico.core.methods import GradFix, Job, Method
from hf_bico.core.moments import Statistics
from hf_bico.core.types import Pair, Signal


def streamed_is_one_shot() -> None:
    """Sums over batches, merged halves, and plain matrices of all rows hold the same."""
    a, b, seen = model("own"), model("wide"), samples(24)
    first, second = seen.batches(12)
    merged = collected(a, b, seen, [first])
    merged.merge(later := collected(a, b, seen, [second], first=12))
    assert later.samples == 24
    merged.samples = 24
    fives, whole = statistics("own", "wide", 24, 5), statistics("own", "wide", 24, 24).state_dict()
    for other in (fives.state_dict(), merged.state_dict()):
        assert other.keys() == whole.keys()
        for key, value in whole.items():
            if "votes" not in key:  # a sign may flip at zero
                assert (other[key] - value).double().norm() <= 1e-9 * value.double().norm() + 1e-12, key
    pair = next(p for p in pairs("own", "wide") if p.target.role == "MLP up" and p.target.depth == 1)
    rows = [plain_rows(name, 24, "visual.transformer.resblocks.1.mlp.c_fc") for name in ("own", "wide")]
    for signal in rows[0]:
        one_shot = rows[1][signal].T @ rows[0][signal]
        assert np.allclose(fives[pair, signal].cross, one_shot, atol=1e-9 * np.abs(one_shot).max()), signal


def gradients_are_autograds() -> None:
    """Summed over streams, weight gradients are what autograd says, and votes the signs of one sample at a time."""
    sums, votes = own_gradients("same", samples(9)), own_votes("same", 9)
    for pair in pairs("own", "same"):
        site = pair.target
        got = statistics("own", "same", 9, 4).gradients[site.name]
        weight = site.weight.of(sums[site.weight.key])
        assert torch.allclose(got.weight, weight, atol=1e-9 * weight.abs().max()), site.name
        assert (got.weight_votes != site.weight.of(votes[site.weight.key])).double().mean() < 0.01, site.name
        if site.bias is not None:
            assert torch.allclose(got.bias, site.bias.of(sums[site.bias.key]), atol=1e-9 * weight.abs().max())


@known
def larger(target: str, batch: int, threads: int, noise: float) -> Statistics:
    """Of a float32 pair with more blocks and tokens, from fewer samples than most maps have directions, collected
    with so many threads."""
    seen = Samples.make(20, dtype=torch.float32)
    seen.images.add_(noise * torch.randn(seen.images.shape, generator=torch.Generator().manual_seed(9)))
    signals = frozenset({Signal.INPUT, Signal.OUTPUT, Signal.OUTPUT_GRADIENT}) if threads > 1 else frozenset(Signal)
    return collected(model("single"), model(target), seen, seen.batches(batch, target_size=40), signals)


def _stable(method: Method, tolerance: float, *changes: dict) -> None:
    """The delta hardly moves. GradFix's mask may flip where the gradient is next to nothing (it is nothing at a key's
    bias, which no attention feels): its entries are weighed by the gradient, and by how clear a vote was."""
    if hasattr(method, "rtol"):
        method = replace(method, rtol=linalg.RTOL)
    target = f"single, {unrelated(method)}"
    tau, both, usual = noise_tau("single"), pairs("single", target), {"batch": 20, "threads": 1, "noise": 0.0}

    def delta(how: dict) -> dict[str, Tensor]:
        with threads(how["threads"]):
            seen = larger(target, *how.values())
            result = method.carry(Job(tau, both, None, None, model(target).state_dict(), list), seen).delta
        if isinstance(method, GradFix):
            result = _weighed(result, both, larger(target, *usual.values()), method)
        return result

    whole = delta(usual)
    assert all(change.norm() > 0 for change in whole.values())
    for change in changes:
        assert distance(delta(usual | change), whole) < tolerance, change


def _weighed(delta: dict[str, Tensor], both: tuple[Pair, ...], seen: Statistics, method: GradFix) -> dict[str, Tensor]:
    for _, site in both:
        of = seen.gradients[site.name]
        for where, gradient, votes in zip(
            site.slices, (of.weight, of.bias), (of.weight_votes, of.bias_votes), strict=False
        ):
            where.of(delta[where.key]).mul_(gradient.abs() * (votes.abs() if method.sign == "vote" else 1))
    return delta


def batch_size_changes_nothing(method: Method) -> None:
    _stable(method, SAME, {"batch": 1}, {"batch": 7})


def threads_change_nothing(method: Method) -> None:
    _stable(method, SAME, {"threads": 2})


def noise_changes_nothing(method: Method) -> None:
    """1e-6 on pixels of size 1."""
    _stable(method, 10 * SAME, {"noise": 1e-6})


def labels_are_not_looked_at(method: Method) -> None:
    """Other labels, the same label-free maps; and the same in any batches."""
    tau, seen = noise_tau("own"), samples(100)
    expected = carried(method, "own", "wide", tau)
    shuffled = Samples(seen.images, seen.labels.roll(1), seen.head)
    for batch in (50, 33):
        given = collected(model("own"), model("wide"), shuffled, shuffled.batches(batch))
        other = method.carry(job("own", "wide", tau), given).delta
        assert distance(other, expected) < 1e-6
