"""What must hold of every right implementation, as functions that assert it; the mutants must break them."""

import torch
import torch.nn.functional as F
from twins import Samples, distance, gradient_step, random_fine_tune, site_keys, tiny_clip, twin

from hf_bico import BiCo, port
from hf_bico.core.collect import Side, collect
from hf_bico.core.moments import CrossMoment, Evidence, resampling
from hf_bico.core.pairing import pair_sites
from hf_bico.core.types import Signal, Tokens
from hf_bico.families import family_of

EXACT = BiCo(rtol=1e-11)
"""For float64 models: only what float64 itself loses is cut."""
SAME = 1e-3
"""How far float32 rounding may turn a delta, relative to it."""


def source_is_target() -> None:
    """Onto its own base, the step that the samples ask for comes back as it is, weights and biases."""
    model, samples = tiny_clip(), Samples.make(160)
    tuned = gradient_step(model, samples)
    ported = port(tuned=tuned, base=model, target=model, calibration=samples.batches(40), loss=samples.loss,
                  method=EXACT)
    tau = {key: tuned[key] - model.state_dict()[key] for key in site_keys(model)}
    assert distance(ported.delta, tau) < 1e-6


def twin_gives_the_fine_tune_back() -> None:
    """In other coordinates of the same function, any fine-tune gives the logits it gave in its own."""
    model, samples, held_out = tiny_clip(), Samples.make(200), Samples.make(16, seed=5)
    tuned, other = random_fine_tune(model), twin(model)
    assert torch.allclose(held_out.logits(other), held_out.logits(model))
    ported = port(tuned=tuned, base=model, target=other, calibration=samples.batches(50), loss=samples.loss,
                  method=EXACT)
    before = held_out.logits(model)
    model.load_state_dict(tuned)
    expected = held_out.logits(model)
    assert (expected - before).norm() > 0.05 * before.norm()
    got = held_out.logits(ported.apply_())
    assert (got - expected).norm() < 1e-5 * (expected - before).norm()


def streamed_is_one_shot() -> None:
    """Sums over batches, merged halves, and plain matrices of all rows hold the same moments."""
    a, b, samples = tiny_clip(), tiny_clip(48, 3, seed=4), Samples.make(24)
    pairs = pair_sites(family_of(a).sites(a), family_of(b).sites(b))

    def evidence(batches) -> Evidence:
        return collect(Side(a, samples.loss), Side(b, samples.loss), pairs, batches, Evidence(pairs, BiCo().signals))

    whole, halves = evidence(samples.batches(5)), samples.batches(12)
    merged = evidence(halves[:1])
    merged.merge(evidence(halves[1:]))
    pair = next(pair for pair in pairs if pair.target.role == "MLP up" and pair.target.depth == 2)
    rows = [plain_rows(model, samples, f"visual.transformer.resblocks.{site.depth}.mlp.c_fc")
            for model, site in zip((a, b), pair, strict=True)]
    for signal, which in ((Signal.INPUT, 0), (Signal.OUTPUT_GRADIENT, 1)):
        one_shot = rows[1][which].T @ rows[0][which]
        for streamed in (whole, merged):
            assert torch.allclose(streamed[pair, signal].cross, one_shot, rtol=1e-9, atol=1e-12 * one_shot.norm())


def plain_rows(model, samples: Samples, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """X and G of an `nn.Linear` by module hooks, over all samples at once."""
    seen = {}
    layer = model.get_submodule(name)
    handle = layer.register_forward_hook(lambda _, args, y: seen.update(x=args[0].detach(), y=y))
    loss = samples.loss(model, (samples.images, samples.labels))
    handle.remove()
    gradient, = torch.autograd.grad(loss, seen["y"])
    return seen["x"].flatten(0, 1), gradient.flatten(0, 1)


def wide_delta(*, batch: int = 20, noise: float = 0.0, n: int = 20) -> dict[str, torch.Tensor]:
    """A float32 port to a wider, deeper model with more tokens, from fewer samples than most maps have directions."""
    dtype = torch.float32
    a, b = tiny_clip(dtype=dtype), tiny_clip(48, 3, seed=4, size=40, dtype=dtype)
    samples = Samples.make(n, dtype=dtype)
    if noise:
        samples.images.add_(noise * torch.randn(samples.images.shape, generator=torch.Generator().manual_seed(9)))
    return port(tuned=random_fine_tune(a), base=a, target=b, calibration=samples.batches(batch, target_size=40),
                loss=samples.loss).delta


def batch_size_changes_nothing() -> None:
    whole = wide_delta(batch=20)
    assert all(change.norm() > 0 for change in whole.values())
    for size in (1, 7):
        assert distance(wide_delta(batch=size), whole) < SAME


def threads_change_nothing() -> None:
    threads = torch.get_num_threads()
    deltas = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            deltas.append(wide_delta())
    finally:
        torch.set_num_threads(threads)
    assert distance(*deltas) < SAME


def noise_changes_nothing() -> None:
    """1e-6 on pixels of size 1."""
    assert distance(wide_delta(noise=1e-6), wide_delta()) < 10 * SAME


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


LAWS = (source_is_target, twin_gives_the_fine_tune_back, streamed_is_one_shot, batch_size_changes_nothing,
        threads_change_nothing, noise_changes_nothing, tokens_meet_on_the_finer_grid)
