"""The papers' pictures in our world: alignment per layer, likeness to the fine-tuned target, drift along fine-tuning.

python -m hub_scripts.world.vision.figures        # writes docs/images/*.png
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib
import torch
from torch import Tensor, nn

from hf_bico.core.chain import carry, gather
from hf_bico.core.taps import taps
from hf_bico.core.transport import added, holding
from hf_bico.core.types import Signal, Wanted
from hf_bico.families import family_of
from hub_scripts.world.places import DOCS
from hub_scripts.world.vision import cells, tune

matplotlib.use("Agg")
from matplotlib import pyplot as plt

IMAGES = DOCS / "images"
PAIR, TASK, N = ("s-x", "m-y"), "digits", 100
SIDES = (Signal.INPUT, Signal.OUTPUT_GRADIENT)
METHODS = ("naive", "theseus", "bico", "weighted")


def cka(a: Tensor, b: Tensor) -> float:
    """Linear CKA of rows (n, d_A) and (n, d_B); Kornblith et al. 2019, arXiv:1905.00414."""
    a, b = a - a.mean(0), b - b.mean(0)
    return float((b.T @ a).square().sum() / ((a.T @ a).norm() * (b.T @ b).norm()))


def cosine(a: Tensor, b: Tensor) -> float:
    """Mean cosine of paired rows; those that are zero (tokens without a gradient) have none."""
    there = (a.norm(dim=-1) > 0) & (b.norm(dim=-1) > 0)
    return float(torch.cosine_similarity(a[there], b[there], dim=-1).mean())


def rows(model: nn.Module, head: Tensor, pictures: Tensor, labels: Tensor) -> dict:
    """Input and output gradient of every site, (n, d): all tokens of all samples, one below the other."""
    seen = {}
    sites = family_of(model).sites(model)
    with taps(model, sites, SIDES, seen.__setitem__):
        cells.class_loss(head)(model, (pictures, labels)).backward()
    return {(site.name, side): seen[site.stream(side)].flatten(0, 1) for site in sites for side in SIDES}


def alignment() -> dict[tuple[str, str], list[tuple[float, float, float]]]:
    """Per signal and site: CKA, cosine before (zero-padded) and after the Procrustes map, on images it never saw."""
    job, _ = cells.job(cells.Cell(*PAIR, TASK, seed=0, n=N))
    statistics = gather(job, Wanted(frozenset(SIDES)))
    test = [part[:200] for part in cells.images(TASK, "test")]
    a, b = (
        rows(side.model, cells.heads(name, TASK)[0], *test)
        for side, name in zip((job.base, job.target), PAIR, strict=True)
    )
    found = {}
    for pair in job.pairs:
        for side in SIDES:
            x, y = a[pair.base.name, side], b[pair.target.name, side]
            factor, _ = statistics[pair, side].procrustes(rtol=1e-5)
            padded = nn.functional.pad(x, (0, y.shape[1] - x.shape[1]))
            found[pair.target.name, side.value] = cka(x, y), cosine(padded, y), cosine(x @ factor.T, y)
    return found


@contextmanager
def block_outputs(model: nn.Module) -> Iterator[list[Tensor]]:
    """The residual stream after every block, (n, tokens, width), of whatever runs inside."""
    seen: list[Tensor] = []
    hooks = [
        block.register_forward_hook(lambda _, args, y: seen.append(y.detach()))
        for block in model.visual.transformer.resblocks
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def stream(model: nn.Module, pictures: Tensor) -> list[Tensor]:
    with block_outputs(model) as seen:
        model.visual(pictures)
    return [y.flatten(0, -2) for y in seen]


def likeness() -> dict[str, list[float]]:
    """Per method and block: cosine between the change it makes to the residual stream and the own fine-tune's."""
    job, _ = cells.job(cells.Cell(*PAIR, TASK, seed=0, n=N))
    pictures = cells.images(TASK, "test")[0][:200]
    before = stream(job.target.model, pictures)
    with holding(job.target.model, tune.fine_tune(PAIR[1], TASK).items()):
        goal = [after - y for after, y in zip(stream(job.target.model, pictures), before, strict=True)]
    found = {}
    for name in METHODS:
        method = cells.method(name)
        delta = carry(job, method, gather(job, method.wanted)).delta
        with holding(job.target.model, added(job.weights, delta)):
            change = [after - y for after, y in zip(stream(job.target.model, pictures), before, strict=True)]
        found[name] = [cosine(made, wanted) for made, wanted in zip(change, goal, strict=True)]
    return found


def drift(name: str) -> dict[int, list[float]]:
    """Per step of a base's fine-tune and block: linear CKA between the residual stream there and at the base."""
    model, pictures = cells.base(name), cells.images(TASK, "test")[0][:200]
    before, found = stream(model, pictures), {}
    for step, state in tune.checkpoints(name, TASK):
        with holding(model, state.items()):
            found[step] = [cka(y, after) for y, after in zip(before, stream(model, pictures), strict=True)]
    return found


def draw_alignment(found: dict) -> None:
    figure, axes = plt.subplots(2, 1, figsize=(9, 6), sharex=True)
    for axis, side in zip(axes, SIDES, strict=True):
        sites = [name for name, signal in found if signal == side.value]
        for index, label in enumerate(("CKA", "cosine before (zero-padded)", "cosine after the map")):
            axis.plot(sites, [found[name, side.value][index] for name in sites], marker=".", label=label)
        axis.set_ylabel(side.value)
        axis.axhline(0, color="grey", linewidth=0.5)
    axes[0].legend()
    axes[1].tick_params(axis="x", rotation=90)
    save(figure, "alignment.png")


def draw_lines(lines: dict, ylabel: str, file: str, title: str = "") -> None:
    """A line a key, over the blocks."""
    figure, axis = plt.subplots(figsize=(6, 3.5))
    for label, values in lines.items():
        axis.plot(range(1, 1 + len(values)), values, marker=".", label=str(label))
    axis.set(xlabel="block", ylabel=ylabel, title=title, xticks=range(1, 1 + len(values)))
    axis.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    save(figure, file)


def save(figure, file: str) -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(IMAGES / file, dpi=110, metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    torch.set_num_threads(1)
    draw_alignment(alignment())
    draw_lines(likeness(), "cosine to the own fine-tune's change", "likeness.png")
    for name in PAIR:
        draw_lines(
            {f"step {step}": values for step, values in drift(name).items()},
            "CKA with the base",
            f"drift-{name}.png",
            name,
        )


if __name__ == "__main__":
    main()
