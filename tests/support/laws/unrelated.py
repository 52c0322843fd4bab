"""Laws of a port between unrelated models."""

import numpy as np
import torch
from support.laws.models import carried, noise_tau, pairs, plain_rows, statistics, transported, unrelated
from support.twins import distance

from hf_bico.core.methods import Method
from hf_bico.core.types import Signal


def there_and_back(method: Method) -> None:
    """By way of an unrelated, wider model, τ comes back as from its own base."""
    tau = noise_tau("own")
    back = carried(method, "wide", "own", carried(method, "own", "wide", tau))
    assert distance(back, carried(method, "own", "own", tau)) < 1e-5


def norms_and_angles_are_kept(method: Method) -> None:
    """Inner products of what is kept are the same before and after; where all of τ is, they are its own (BiCo's
    appendix D). ⟨τ, P τ'⟩ = ⟨P τ, P τ'⟩, P τ being what its own base gives back."""
    target, taus = unrelated(method), [noise_tau("own", seed) for seed in (1, 2)]
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
    target, generator = unrelated(method), torch.Generator().manual_seed(0)
    for (a, _), map_ in method.plan(pairs("own", target), statistics("own", target)):
        left, right = (torch.randn(2, d, generator=generator, dtype=torch.float64) for d in (a.d_out, a.d_in))
        moved = [map_.bias(b) for b in left]
        first, second = (map_.weight(torch.outer(b, right[0])) for b in left)
        assert all(m.norm() > 0 for m in moved)
        crossed = torch.einsum("ij,k->ijk", first, moved[1]), torch.einsum("kj,i->ijk", second, moved[0])
        assert torch.allclose(*crossed, atol=1e-9)
        assert torch.allclose(
            map_.weight(left.T @ right), first + map_.weight(torch.outer(left[1], right[1])), atol=1e-9
        )


def plain_numpy_agrees(method: Method) -> None:
    """NumPy's Procrustes maps of rows that module hooks caught, at both layers of every MLP."""
    target, tau = unrelated(method), noise_tau("own")
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
        return [
            length(m[Signal.INPUT]) * g / np.sqrt(length(g) + 1e-300)
            for m in (a, b)
            for g in [m[Signal.OUTPUT_GRADIENT]]
        ]
    w = np.sqrt(length(a[Signal.INPUT_GRADIENT]) * length(b[Signal.INPUT_GRADIENT]))
    return [np.sqrt(w) * (m[Signal.INPUT] - (w * m[Signal.INPUT]).sum(0) / w.sum()) for m in (a, b)]
