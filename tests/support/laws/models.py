"""Tiny models, what was collected of them, and how a method carries a change between two of them."""

import copy
from collections.abc import Callable
from contextlib import contextmanager
from functools import wraps

import numpy as np
import torch
from support.twins import Samples, random_fine_tune, site_keys, tiny_clip, twin, widened
from torch import Tensor, nn

from hf_bico import BiCo, Naive
from hf_bico.core.collect import Side, collect
from hf_bico.core.methods import METHODS as BY_NAME
from hf_bico.core.methods import Blend, Distil, FewShot, GradFix, Job, Method, Response, Theseus, TransFusion, Weighted
from hf_bico.core.moments import Statistics
from hf_bico.core.pairing import pair_sites
from hf_bico.core.transport import Transported
from hf_bico.core.types import Pair, Signal, Wanted
from hf_bico.families import family_of
from hf_bico.workflows.live import class_scores

EXACT = 1e-11
"""A cut for float64 models: only what float64 itself loses."""
SAME = 1e-3
"""How far float32 rounding may turn a delta, relative to it."""
DRAWS = 2

METHODS: dict[str, Method] = {
    "bico": BiCo(rtol=EXACT),
    "bico, label-free": BiCo(rtol=EXACT, label_free=DRAWS),
    "bico, filled": BiCo(rtol=EXACT, completion="filled"),
    "bico, centred": BiCo(rtol=EXACT, centred=True),
    "weighted": Weighted(rtol=EXACT),
    "bico, two steps": BiCo(rtol=EXACT, steps=2),
    "blend": Blend(),
    "response": Response(rtol=EXACT, ridge=1.0),
    "response, auto": Response(rtol=EXACT),
    "response, views": Response(rtol=EXACT, views=1),
    "response, light": Response(rtol=EXACT, ridge=1e-9, maps="gradient"),
    "response, far": Response(rtol=EXACT, ridge=1e12, maps="gradient"),
    "theseus": Theseus(rtol=EXACT),
    "theseus, centred": Theseus(rtol=EXACT, centred=True),
    **{name: BY_NAME[name](rtol=EXACT) for name in ("input-only", "output-only", "gradient-only")},
    "transfusion": TransFusion(),
    "gradfix": GradFix(),
    "gradfix, vote": GradFix(sign="vote"),
    "naive": Naive(),
    "few-shot": FewShot(steps=1, rate=1e-5, views=False),
    "distil": Distil(steps=3, rate=1e-3),
}

KNOWN: dict = {}
"""Models and what was collected of them; a mutant that spoils either works with an empty one."""


def known(make: Callable) -> Callable:
    @wraps(make)
    def kept(*args):
        key = make.__name__, *args
        if key not in KNOWN:
            KNOWN[key] = make(*args)
        return KNOWN[key]

    return kept


@known
def model(name: str) -> nn.Module:
    """In float64 and small: `own`, the same function in other coordinates, and unrelated ones. In float32 and larger:
    a source, and targets with more blocks and tokens.
    """
    single = torch.float32
    return {
        "own": lambda: tiny_clip(16, size=16, heads=4),
        "turned": lambda: twin(model("own")),
        "permuted": lambda: twin(model("own"), rotate=False),
        "more units": lambda: widened(model("own"), mlp=6.0),
        "same": lambda: tiny_clip(16, size=16, heads=4, seed=4),
        "wide": lambda: tiny_clip(24, size=16, heads=6, seed=4),
        "single": lambda: tiny_clip(dtype=single),
        "single, same": lambda: tiny_clip(32, 3, seed=4, size=40, dtype=single),
        "single, wide": lambda: tiny_clip(48, 3, seed=4, size=40, dtype=single),
    }[name]()


@known
def samples(n: int, dtype=torch.float64) -> Samples:
    return Samples.make(n, size=16 if dtype == torch.float64 else 32, dtype=dtype)


def job(source: str, target: str, tau: dict[str, Tensor], *, n: int = 100, batch: int = 50) -> Job:
    a, b, seen = model(source), model(target), samples(n)
    return Job(
        tau,
        pairs(source, target),
        *(Side(m, seen.loss, *2 * (class_scores(seen.head),)) for m in (a, b)),
        b.state_dict(),
        lambda: seen.batches(batch),
    )


@known
def pairs(source: str, target: str) -> tuple[Pair, ...]:
    return pair_sites(*(family_of(model(name)).sites(model(name)) for name in (source, target)))


@known
def statistics(source: str, target: str, n: int = 100, batch: int = 50) -> Statistics:
    """All that any method wants to see."""
    return collected(model(source), model(target), samples(n), samples(n).batches(batch))


def collected(
    a: nn.Module, b: nn.Module, seen: Samples, batches: list, signals=frozenset(Signal), first: int = 0
) -> Statistics:
    """`first`: how many samples came before these."""
    sides = [Side(m, seen.loss, class_scores(seen.head)) for m in (a, b)]
    both = pair_sites(family_of(a).sites(a), family_of(b).sites(b))
    empty = Statistics(both, Wanted(frozenset(signals), DRAWS))
    empty.samples = first
    return collect(*sides, both, batches, empty)


def carried(method: Method, source: str, target: str, tau: dict[str, Tensor], **how) -> dict[str, Tensor]:
    """τ in the target's coordinates."""
    return transported(method, source, target, tau, **how).delta


def transported(method: Method, source: str, target: str, tau: dict[str, Tensor], **how) -> Transported:
    method.check(pairs(source, target))
    return method.carry(job(source, target, tau, **how), statistics(source, target, *_sizes(**how)))


def _sizes(n: int = 100, batch: int = 50) -> tuple[int, int]:
    return n, batch


def noise_tau(name: str, seed: int = 1) -> dict[str, Tensor]:
    """A random change of every weight and bias of a site."""
    return difference(random_fine_tune(model(name), seed=seed), model(name))


def difference(tuned: dict[str, Tensor], base: nn.Module) -> dict[str, Tensor]:
    return {key: tuned[key] - base.state_dict()[key] for key in site_keys(base)}


def plus(base: nn.Module, tau: dict[str, Tensor], alpha: float = 1.0) -> nn.Module:
    """A copy of the model with a change added."""
    other = copy.deepcopy(base)
    with torch.no_grad():
        for key, change in tau.items():
            other.state_dict()[key].add_(change, alpha=alpha)
    return other


def own_gradients(name: str, seen: Samples) -> dict[str, Tensor]:
    """∂L/∂θ of every tensor that a port would change, by autograd."""
    parameters = {key: p for key, p in model(name).named_parameters() if key in site_keys(model(name))}
    loss = seen.loss(model(name), (seen.images, seen.labels))
    return dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))


def own_votes(name: str, n: int) -> dict[str, Tensor]:
    """The same, the signs of one sample's gradient after another's summed."""
    votes, seen = {}, samples(n)
    for i in range(n):
        one = Samples(seen.images[i : i + 1], seen.labels[i : i + 1], seen.head)
        for key, gradient in own_gradients(name, one).items():
            votes[key] = votes.get(key, 0) + gradient.sign()
    return votes


def unrelated(method: Method) -> str:
    """A wider target where the method can serve one."""
    return "same" if method.name in ("input-only", "output-only", "transfusion", "gradfix") else "wide"


@contextmanager
def threads(count: int):
    """So many for torch, until the block ends; matrices as small as here are fastest on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@known
def plain_rows(name: str, n: int, layer: str) -> dict[Signal, np.ndarray]:
    """X, Y and their gradients of an `nn.Linear` by a module hook, over all samples at once."""
    net, seen, caught = model(name), samples(n), {}
    handle = net.get_submodule(layer).register_forward_hook(lambda _, args, y: caught.update(x=args[0], y=y))
    loss = seen.loss(net, (seen.images, seen.labels))
    handle.remove()
    at_x, at_y = torch.autograd.grad(loss, [caught["x"], caught["y"]])
    rows = {
        Signal.INPUT: caught["x"],
        Signal.OUTPUT: caught["y"],
        Signal.INPUT_GRADIENT: at_x,
        Signal.OUTPUT_GRADIENT: at_y,
    }
    return {signal: each.detach().flatten(0, 1).numpy() for signal, each in rows.items()}
