"""What must hold of every right implementation, as functions that assert it; the mutants must break them.

`LAWS` says which law holds for which method. What the methods see is collected once a pair of models and shared.
"""

import copy
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from itertools import permutations

import numpy as np
import torch
import torch.nn.functional as F
from scipy.linalg import orthogonal_procrustes
from torch import Tensor, nn
from twins import Samples, distance, gradient_step, random_fine_tune, site_keys, tiny_clip, turned, twin, widened

from hf_bico import BiCo, Naive, port
from hf_bico.api import class_scores
from hf_bico.core import linalg
from hf_bico.core.collect import Side, collect
from hf_bico.core.methods import METHODS as BY_NAME
from hf_bico.core.methods import Best, FewShot, GradFix, Job, Method, Theseus, TransFusion
from hf_bico.core.moments import CrossMoment, Evidence, resampling
from hf_bico.core.pairing import pair_sites
from hf_bico.core.transport import Transported
from hf_bico.core.types import Hidden, Pair, Signal, Site, Slice, Tokens
from hf_bico.families import family_of

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
    "best": Best(rtol=EXACT),
    "bico, two steps": BiCo(rtol=EXACT, steps=2),
    "theseus": Theseus(rtol=EXACT),
    "theseus, centred": Theseus(rtol=EXACT, centred=True),
    **{name: BY_NAME[name](rtol=EXACT) for name in ("input-only", "output-only", "gradient-only")},
    "transfusion": TransFusion(),
    "gradfix": GradFix(),
    "gradfix, vote": GradFix(sign="vote"),
    "naive": Naive(),
    "few-shot": FewShot(),
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
    return Job(tau, pairs(source, target), *(Side(m, seen.loss, class_scores(seen.head)) for m in (a, b)),
               b.state_dict(), lambda: seen.batches(batch), evidence(source, target, n, batch))


@known
def pairs(source: str, target: str) -> tuple[Pair, ...]:
    return pair_sites(*(family_of(model(name)).sites(model(name)) for name in (source, target)))


@known
def evidence(source: str, target: str, n: int = 100, batch: int = 50) -> Evidence:
    """All that any method wants to see."""
    return collected(model(source), model(target), samples(n), samples(n).batches(batch))


def collected(a: nn.Module, b: nn.Module, seen: Samples, batches: list, signals=frozenset(Signal),
              first: int = 0) -> Evidence:
    """`first`: how many samples came before these."""
    sides = [Side(m, seen.loss, class_scores(seen.head)) for m in (a, b)]
    both = pair_sites(family_of(a).sites(a), family_of(b).sites(b))
    empty = Evidence(both, signals, DRAWS)
    empty.samples = first
    return collect(*sides, both, batches, empty)


def carried(method: Method, source: str, target: str, tau: dict[str, Tensor], **how) -> dict[str, Tensor]:
    """τ in the target's coordinates."""
    return transported(method, source, target, tau, **how).delta


def transported(method: Method, source: str, target: str, tau: dict[str, Tensor], **how) -> Transported:
    method.check(pairs(source, target))
    return method.carry(job(source, target, tau, **how))


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
        one = Samples(seen.images[i:i + 1], seen.labels[i:i + 1], seen.head)
        for key, gradient in own_gradients(name, one).items():
            votes[key] = votes.get(key, 0) + gradient.sign()
    return votes


# Onto its own base, or another one of the same function


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


# Between unrelated models


def _unrelated(method: Method) -> str:
    """A wider target where the method can serve one."""
    return "same" if method.name in ("input-only", "output-only", "transfusion", "gradfix") else "wide"


def there_and_back(method: Method) -> None:
    """By way of an unrelated, wider model, τ comes back as from its own base."""
    tau = noise_tau("own")
    back = carried(method, "wide", "own", carried(method, "own", "wide", tau))
    assert distance(back, carried(method, "own", "own", tau)) < 1e-5


def norms_and_angles_are_kept(method: Method) -> None:
    """Inner products of what is kept are the same before and after; where all of τ is, they are its own (BiCo's
    appendix D). ⟨τ, P τ'⟩ = ⟨P τ, P τ'⟩, P τ being what its own base gives back."""
    target, taus = _unrelated(method), [noise_tau("own", seed) for seed in (1, 2)]
    own, other = ([transported(method, "own", name, tau) for tau in taus] for name in ("own", target))
    for a, b in ((0, 0), (0, 1)):
        for key in taus[0]:
            scale = float(taus[a][key].norm() * taus[b][key].norm())
            here, there = (taus[a][key] * own[b].delta[key]).sum(), (other[a].delta[key] * other[b].delta[key]).sum()
            assert abs(here - there) < 1e-5 * scale, key
    for site in other[0].moved:
        if all(fit is None or fit.rank == fit.full for fit in (site.output, site.input)):
            assert abs(site.kept - 1) < 1e-9


def factors_move_alone(method: Method) -> None:
    """L (b aᵀ) Rᵀ = (L b)(R a)ᵀ: a low-rank τ moves factor by factor, and sums of them as one."""
    target, generator = _unrelated(method), torch.Generator().manual_seed(0)
    for (a, _), map_ in method.plan(pairs("own", target), evidence("own", target)):
        left, right = (torch.randn(2, d, generator=generator, dtype=torch.float64) for d in (a.d_out, a.d_in))
        moved = [map_.bias(b) for b in left]
        first, second = (map_.weight(torch.outer(b, right[0])) for b in left)
        assert all(m.norm() > 0 for m in moved)
        crossed = torch.einsum("ij,k->ijk", first, moved[1]), torch.einsum("kj,i->ijk", second, moved[0])
        assert torch.allclose(*crossed, atol=1e-9)
        assert torch.allclose(map_.weight(left.T @ right), first + map_.weight(torch.outer(left[1], right[1])),
                              atol=1e-9)


def plain_numpy_agrees(method: Method) -> None:
    """NumPy's Procrustes maps of rows that module hooks caught, at both layers of every MLP."""
    target, tau = _unrelated(method), noise_tau("own")
    delta = carried(method, "own", target, tau)
    for depth in range(2):
        for layer in ("c_fc", "c_proj"):
            name = f"visual.transformer.resblocks.{depth}.mlp.{layer}"
            a, b = plain_rows("own", 100, name), plain_rows(target, 100, name)
            left, right = (numpy_map(method, a, b, side) for side in method.sides)
            expected = tau[f"{name}.weight"].numpy()
            expected = expected if left is None else left @ expected
            expected = expected if right is None else expected @ right.T
            assert np.allclose(delta[f"{name}.weight"].numpy(), expected, atol=1e-6 * np.abs(expected).max()), name


def numpy_map(method: Method, a: dict, b: dict, side: Signal | None) -> np.ndarray | None:
    """U_r V_rᵀ of Σ b aᵀ; where asked, the mean is taken off, or what is left is filled by outputs (inputs)."""
    if side is None:
        return None
    rows = weighted_rows(a, b, side) if side in WEIGHTED else [x[side] for x in (a, b)]
    if method.centred and side in (Signal.INPUT, Signal.OUTPUT):
        rows = [x - x.mean(0) for x in rows]
    u, sigma, vt = np.linalg.svd(rows[1].T @ rows[0], full_matrices=False)
    r = int((sigma > 1e-9 * sigma[0]).sum())
    factor = u[:, :r] @ vt[:r]
    if method.completion == "filled" and side is Signal.OUTPUT_GRADIENT:
        fill = b[Signal.OUTPUT].T @ a[Signal.OUTPUT]
        rest = (np.eye(len(u)) - u[:, :r] @ u[:, :r].T) @ fill @ (np.eye(vt.shape[1]) - vt[:r].T @ vt[:r])
        p, sigma, qt = np.linalg.svd(rest, full_matrices=False)
        k = int((sigma > 1e-9 * np.linalg.norm(fill, 2)).sum())
        factor = factor + p[:, :k] @ qt[:k]
    return factor


WEIGHTED = (Signal.WEIGHTED_INPUT, Signal.WEIGHTED_GRADIENT)


def weighted_rows(a: dict, b: dict, side: Signal) -> list[np.ndarray]:
    """√w (x − Σ w x / Σ w) with w = √(‖∂L/∂x_A‖ ‖∂L/∂x_B‖), or ‖x‖ g / √‖g‖."""
    def length(rows: np.ndarray) -> np.ndarray:
        return np.linalg.norm(rows, axis=1, keepdims=True)

    if side is Signal.WEIGHTED_GRADIENT:
        return [length(m[Signal.INPUT]) * g / np.sqrt(length(g) + 1e-300)
                for m in (a, b) for g in [m[Signal.OUTPUT_GRADIENT]]]
    w = np.sqrt(length(a[Signal.INPUT_GRADIENT]) * length(b[Signal.INPUT_GRADIENT]))
    return [np.sqrt(w) * (m[Signal.INPUT] - (w * m[Signal.INPUT]).sum(0) / w.sum()) for m in (a, b)]


@known
def plain_rows(name: str, n: int, layer: str) -> dict[Signal, np.ndarray]:
    """X, Y and their gradients of an `nn.Linear` by a module hook, over all samples at once."""
    net, seen, caught = model(name), samples(n), {}
    handle = net.get_submodule(layer).register_forward_hook(lambda _, args, y: caught.update(x=args[0], y=y))
    loss = seen.loss(net, (seen.images, seen.labels))
    handle.remove()
    at_x, at_y = torch.autograd.grad(loss, [caught["x"], caught["y"]])
    rows = {Signal.INPUT: caught["x"], Signal.OUTPUT: caught["y"], Signal.INPUT_GRADIENT: at_x,
            Signal.OUTPUT_GRADIENT: at_y}
    return {signal: each.detach().flatten(0, 1).numpy() for signal, each in rows.items()}


# What the samples may and may not do


def streamed_is_one_shot() -> None:
    """Sums over batches, merged halves, and plain matrices of all rows hold the same."""
    a, b, seen = model("own"), model("wide"), samples(24)
    first, second = seen.batches(12)
    merged = collected(a, b, seen, [first])
    merged.merge(later := collected(a, b, seen, [second], first=12))
    assert later.samples == 24
    merged.samples = 24
    fives, whole = evidence("own", "wide", 24, 5), evidence("own", "wide", 24, 24).state_dict()
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
        got = evidence("own", "same", 9, 4).gradients[site.name]
        weight = site.weight.of(sums[site.weight.key])
        assert torch.allclose(got.weight, weight, atol=1e-9 * weight.abs().max()), site.name
        assert (got.weight_votes != site.weight.of(votes[site.weight.key])).double().mean() < 0.01, site.name
        if site.bias is not None:
            assert torch.allclose(got.bias, site.bias.of(sums[site.bias.key]), atol=1e-9 * weight.abs().max())


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
def larger(target: str, batch: int, threads: int, noise: float) -> Evidence:
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
    target = f"single, {_unrelated(method)}"
    tau, both, usual = noise_tau("single"), pairs("single", target), {"batch": 20, "threads": 1, "noise": 0.0}

    def delta(how: dict) -> dict[str, Tensor]:
        with threads(how["threads"]):
            seen = larger(target, *how.values())
            result = method.carry(Job(tau, both, None, None, model(target).state_dict(), list, seen)).delta
        if isinstance(method, GradFix):
            result = _weighed(result, both, larger(target, *usual.values()), method)
        return result

    whole = delta(usual)
    assert all(change.norm() > 0 for change in whole.values())
    for change in changes:
        assert distance(delta(usual | change), whole) < tolerance, change


def _weighed(delta: dict[str, Tensor], both: tuple[Pair, ...], seen: Evidence, method: GradFix) -> dict[str, Tensor]:
    for _, site in both:
        of = seen.gradients[site.name]
        for where, gradient, votes in zip(site.slices, (of.weight, of.bias), (of.weight_votes, of.bias_votes),
                                          strict=False):
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
        other = method.carry(replace(job("own", "wide", tau), evidence=given)).delta
        assert distance(other, expected) < 1e-6


# Of single methods


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
    second = port(tuned=tuned, base=plus(base, half), target=plus(target, first), calibration=seen.batches(50),
                  loss=seen.loss, method=plain).delta
    got = carried(method, "own", "same", tau)
    assert distance(got, {key: first[key] + second[key] for key in first}) < 1e-6
    assert distance(first, second) > 1e-3


def steps_are_adams(method: Method) -> None:
    """One step is −rate (decay θ + g/(|g| + ε)) (Loshchilov and Hutter 2019), more are torch's own AdamW; the batches
    do not matter, and the model is as it was."""
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
    for _ in range(2):
        adam.zero_grad()
        seen.loss(other, (seen.images, seen.labels)).backward()
        adam.step()
    by_hand = {key: p.detach() - before[key] for key, p in moving.items()}
    assert distance(carried(two, "own", "same", tau), by_hand) < 1e-6
    assert all(torch.equal(tensor, before[key]) for key, tensor in target.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in target.parameters())


def brute_force_finds_the_same(method: Method) -> None:
    """TransFusion between two unrelated toy blocks: no other order of heads has nearer spectra, no other order of
    units inside them larger inner products, among all there are."""
    heads, width, units, stream = 3, 3, 5, 7
    tensors, both = toy_blocks(heads, width, units, stream)
    known_weights = Evidence(both, method.signals)
    known_weights.weights = tuple({k: torch.from_numpy(v) for k, v in side.items()} for side in tensors)
    method.check(both)
    maps = {pair.target.role: map_ for pair, map_ in method.plan(both, known_weights)}

    def blocks(side: int, role: str) -> np.ndarray:
        """(heads, width, ·)"""
        weight, bias = tensors[side][f"{role}.weight"], tensors[side].get(f"{role}.bias")
        rows = weight.T if role == "output" else np.hstack([weight, bias[:, None]])
        return rows.reshape(heads, width, -1)

    spectra = [[np.linalg.svd(blocks(side, role), compute_uv=False) for role in (*"qkv", "output")] for side in (0, 1)]
    order = min(permutations(range(heads)), key=lambda p: sum(
        np.linalg.norm(b - a[list(p)], axis=1).sum() for a, b in zip(*spectra, strict=True)))
    for roles, where in (("qk", maps["q"].rows), (("v", "output"), maps["v"].rows)):
        expected = [heads_a * width + best_order([blocks(0, r)[heads_a] for r in roles],
                                                 [blocks(1, r)[head_b] for r in roles])
                    for head_b, heads_a in enumerate(order)]
        assert where.tolist() == np.concatenate(expected).tolist()
    sides = [[np.hstack([t["up.weight"], t["up.bias"][:, None]]), t["down.weight"].T] for t in tensors]
    assert maps["up"].rows.tolist() == best_order(*sides).tolist()
    for role, rows, columns in (("k", "q", None), ("output", None, "v"), ("down", None, "up")):
        for got, expected in ((maps[role].rows, rows), (maps[role].columns, columns)):
            assert (got is None) == (expected is None)
            assert got is None or got.equal(maps[expected].rows)
    tau = torch.randn(stream, units, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert maps["down"].weight(tau).equal(tau[:, best_order(*sides)])


def best_order(a: list[np.ndarray], b: list[np.ndarray]) -> np.ndarray:
    """The permutation p of the units that maximises Σ ⟨b, a[p]⟩, by trying all."""
    return max((np.array(p) for p in permutations(range(len(b[0])))),
               key=lambda p: sum((y * x[p]).sum() for x, y in zip(a, b, strict=True)))


def toy_blocks(heads: int, width: int, units: int, stream: int) -> tuple[list[dict], list[Pair]]:
    """The arrays of two unrelated blocks, and their sites; biases everywhere. With this seed the order of the heads is
    not its own inverse, and without the output projection it is another."""
    group, inner = "attention", heads * width
    scores, values, mlp = Hidden("qk", heads, group), Hidden("v", heads, group), Hidden("MLP")
    shapes = {"q": (inner, stream, scores, None), "k": (inner, stream, scores, None),
              "v": (inner, stream, values, None), "output": (stream, inner, None, values),
              "up": (units, stream, mlp, None), "down": (stream, units, None, mlp)}
    rng = np.random.default_rng(9)
    tensors = [{f"{role}.{part}": rng.standard_normal((out, into) if part == "weight" else out)
                for role, (out, into, *_) in shapes.items() for part in ("weight", "bias")} for _ in range(2)]
    sites = [Site(role, role, 0, Slice(f"{role}.weight"), Slice(f"{role}.bias"), out, into, role, Tokens(1), *hidden)
             for role, (out, into, *hidden) in shapes.items()]
    return tensors, [Pair(site, site) for site in sites]


# Of the parts


def free_maps_are_scipys() -> None:
    """Completed freely, a map is orthogonal to full rank; where all is determined, it is SciPy's, cut or not."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(40, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    theirs = torch.from_numpy(orthogonal_procrustes(a.numpy(), b.numpy())[0]).T
    for options in ({}, {"free": True}, {"fill": torch.ones(6, 6, dtype=torch.float64)}):
        assert torch.allclose(linalg.polar_factor(b.T @ a, **options).factor, theirs)
    starved = b[:3].T @ a[:3]
    freed = linalg.polar_factor(starved, free=True)
    assert torch.allclose(freed.factor @ freed.factor.T, torch.eye(6, dtype=torch.float64))
    assert freed.rank == 3
    assert torch.allclose((freed.factor * starved).sum(), torch.linalg.matrix_norm(starved, "nuc"))


def filling_leaves_what_is_determined() -> None:
    """A fill serves the undetermined directions alone, and there it is the Procrustes map of the other moment."""
    generator = torch.Generator().manual_seed(1)
    a, b, x, y = (torch.randn(n, d, generator=generator, dtype=torch.float64)
                  for n, d in ((4, 8), (4, 10), (40, 8), (40, 10)))
    cross, fill = b.T @ a, y.T @ x
    cut, filled = linalg.polar_factor(cross, rtol=1e-9), linalg.polar_factor(cross, rtol=1e-9, fill=fill)
    u, v = (torch.linalg.qr(rows.T)[0] for rows in (b, a))
    assert torch.allclose(filled.factor @ v, cut.factor @ v)
    assert torch.allclose(u.T @ filled.factor, u.T @ cut.factor)
    assert torch.allclose(filled.factor.T @ filled.factor, torch.eye(8, dtype=torch.float64))
    outside_u, outside_v = (torch.linalg.qr(q, mode="complete")[0][:, 4:] for q in (u, v))
    rest = outside_u.T @ fill @ outside_v  # in a frame of the complements, an ordinary Procrustes problem
    p, _, qt = torch.linalg.svd(rest, full_matrices=False)
    assert torch.allclose(outside_u.T @ filled.factor @ outside_v, p @ qt)
    assert filled.rank == cut.rank == 4


def tokens_meet_on_the_finer_grid() -> None:
    """Resizing A's tokens to B's grid, class token apart, is what the moments hold, whichever side is resized."""
    generator = torch.Generator().manual_seed(0)
    for small, large in (((3, 4), (6, 5)), ((6, 5), (3, 4))):
        a = torch.randn(2, 1 + small[0] * small[1], 6, generator=generator, dtype=torch.float64)
        b = torch.randn(2, 1 + large[0] * large[1], 7, generator=generator, dtype=torch.float64)
        grid = a[:, 1:].transpose(1, 2).unflatten(2, small)
        resized = F.interpolate(grid, size=large, mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)
        resized = torch.cat([a[:, :1], resized], dim=1)
        moment = CrossMoment()
        moment.add(a, b, resampling(Tokens(1, small), Tokens(1, large)))
        expected = b.flatten(0, 1).T @ resized.flatten(0, 1)
        assert torch.allclose(moment.cross, expected, rtol=1e-5, atol=1e-6 * expected.norm())
        assert abs(moment.energy_source / float(resized.square().sum()) - 1) < 1e-6


BICO = ("bico", "best", "bico, label-free", "bico, filled", "bico, centred")
TWO_SIDED = (*BICO, "theseus", "theseus, centred", "gradient-only")
ONE_SIDED = ("input-only", "output-only")
MASKS = ("gradfix", "gradfix, vote")
SAMPLED = ("bico", "best", "bico, label-free", "bico, filled", "theseus", "gradient-only", *ONE_SIDED, *MASKS)

LAWS: dict[Callable, tuple[str, ...]] = {
    own_base_gives_the_step_back: ("bico", "best", "bico, label-free", "bico, filled", "transfusion", "gradfix",
                                   "naive", *ONE_SIDED),
    own_base_projects: (*TWO_SIDED, *ONE_SIDED, *MASKS, "transfusion", "naive"),
    rotations_are_followed: TWO_SIDED,
    permutations_are_followed: (*TWO_SIDED, "transfusion"),
    same_function_same_fine_tune: ("bico", "best", "bico, label-free", "bico, filled", "transfusion"),
    there_and_back: (*TWO_SIDED, "naive"),
    norms_and_angles_are_kept: (*TWO_SIDED, *ONE_SIDED, "transfusion", "naive"),
    factors_move_alone: (*TWO_SIDED, *ONE_SIDED, "transfusion", "naive"),
    plain_numpy_agrees: ("bico", "best", "bico, filled", "bico, centred", "theseus", "theseus, centred",
                         "gradient-only", *ONE_SIDED),
    batch_size_changes_nothing: SAMPLED,
    threads_change_nothing: ("bico", "theseus"),  # small matrices on several threads are slow
    noise_changes_nothing: SAMPLED,
    labels_are_not_looked_at: ("bico, label-free",),
    kept_entries_descend: ("gradfix",),
    kept_entries_have_a_majority: ("gradfix, vote",),
    steps_are_ports_of_parts: ("bico, two steps",),
    steps_are_adams: ("few-shot",),
    brute_force_finds_the_same: ("transfusion",),
    streamed_is_one_shot: (),
    gradients_are_autograds: (),
    free_maps_are_scipys: (),
    filling_leaves_what_is_determined: (),
    tokens_meet_on_the_finer_grid: (),
}


def check(law: Callable, name: str | None) -> None:
    """Runs a law for the method of this name, or for none."""
    law(METHODS[name]) if name else law()
