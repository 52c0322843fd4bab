"""TransFusion's law: what trying all permutations finds."""

from itertools import permutations

import numpy as np
import torch

from hf_bico.core.methods import Method
from hf_bico.core.moments import Statistics
from hf_bico.core.types import Hidden, Pair, Site, Slice, Tokens


def brute_force_finds_the_same(method: Method) -> None:
    """TransFusion between two unrelated toy blocks: no other order of heads has nearer spectra, no other order of
    units inside them larger inner products, among all there are."""
    heads, width, units, stream = 3, 3, 5, 7
    tensors, both = toy_blocks(heads, width, units, stream)
    known_weights = Statistics(both, method.wanted)
    known_weights.weights = tuple({k: torch.from_numpy(v) for k, v in side.items()} for side in tensors)
    method.check(both)
    maps = {pair.target.role: map_ for pair, map_ in method.plan(both, known_weights)}

    def blocks(side: int, role: str) -> np.ndarray:
        """(heads, width, ·)"""
        weight, bias = tensors[side][f"{role}.weight"], tensors[side].get(f"{role}.bias")
        rows = weight.T if role == "output" else np.hstack([weight, bias[:, None]])
        return rows.reshape(heads, width, -1)

    spectra = [[np.linalg.svd(blocks(side, role), compute_uv=False) for role in (*"qkv", "output")] for side in (0, 1)]
    order = min(
        permutations(range(heads)),
        key=lambda p: sum(np.linalg.norm(b - a[list(p)], axis=1).sum() for a, b in zip(*spectra, strict=True)),
    )
    for roles, where in (("qk", maps["q"].rows), (("v", "output"), maps["v"].rows)):
        expected = [
            heads_a * width + best_order([blocks(0, r)[heads_a] for r in roles], [blocks(1, r)[head_b] for r in roles])
            for head_b, heads_a in enumerate(order)
        ]
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
    return max(
        (np.array(p) for p in permutations(range(len(b[0])))),
        key=lambda p: sum((y * x[p]).sum() for x, y in zip(a, b, strict=True)),
    )


def toy_blocks(heads: int, width: int, units: int, stream: int) -> tuple[list[dict], list[Pair]]:
    """The arrays of two unrelated blocks, and their sites; biases everywhere. With this seed the order of the heads is
    not its own inverse, and without the output projection it is another."""
    group, inner = "attention", heads * width
    scores, values, mlp = Hidden("qk", heads, group), Hidden("v", heads, group), Hidden("MLP")
    shapes = {
        "q": (inner, stream, scores, None),
        "k": (inner, stream, scores, None),
        "v": (inner, stream, values, None),
        "output": (stream, inner, None, values),
        "up": (units, stream, mlp, None),
        "down": (stream, units, None, mlp),
    }
    rng = np.random.default_rng(9)
    tensors = [
        {
            f"{role}.{part}": rng.standard_normal((out, into) if part == "weight" else out)
            for role, (out, into, *_) in shapes.items()
            for part in ("weight", "bias")
        }
        for _ in range(2)
    ]
    sites = [
        Site(role, role, 0, Slice(f"{role}.weight"), Slice(f"{role}.bias"), out, into, role, Tokens(1), *hidden)
        for role, (out, into, *hidden) in shapes.items()
    ]
    return tensors, [Pair(site, site) for site in sites]
