"""Ports between two T5 encoders on text tasks, scored by a linear probe of the calibration samples.

    python -m hub_scripts.world.text.results --methods bico theseus naive --json out.json

For every task, both directions, N and seed: N training samples are drawn; either base's own probe of them gives the
loss of its gradients; the change is ported; a fresh probe of the ported encoder, trained on the same N samples, is
scored on the test split. So is the target's base (the zero of its gain) and its own fine-tune (the whole of it).
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor, nn

from hf_bico import Batch, port
from hf_bico.core.errors import PortError
from hf_bico.core.methods import METHODS
from hf_bico.core.transport import added, holding
from hub_scripts.world.text.models import SHAPES, load
from hub_scripts.world.text.probe import accuracy, probe, probe_loss
from hub_scripts.world.text.tasks import TEXT_TASKS, samples
from hub_scripts.world.text.tune import fine_tune

BATCH = 50
Labelled = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Row:
    """One accuracy in percent."""

    source: str
    target: str
    task: str
    n: int
    seed: int
    what: str
    """"base" and "fine-tuned" are the target's own; else the method that carried the change over."""
    accuracy: float


def drawn(task: str, n: int, seed: int) -> Labelled:
    ids, labels = samples(task, "train")
    pick = torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed))[:n]
    return ids[pick], labels[pick]


def ported_accuracy(
    name: str, tuned: dict[str, Tensor], base: nn.Module, target: nn.Module, few: Labelled, test: Labelled, classes: int
) -> float:
    """Of the target with the change that this method carries over; both models are as they were afterwards."""
    losses = tuple(probe_loss(*probe(model, *few, classes)) for model in (base, target))
    batches = [Batch(part, part) for part in zip(*(tensor.split(BATCH) for tensor in few), strict=True)]
    ported = port(
        tuned=tuned,
        base=base,
        target=target,
        calibration=batches,
        loss=losses,
        method=METHODS[name](),
        only=["linear"],  # as all tables so far
    )
    with holding(target, added(target.state_dict(), ported.delta)):
        return accuracy(target, few, test, classes)


def task_rows(task: str, sizes: list[int], seeds: int, methods: list[str]) -> Iterator[Row]:
    """All accuracies of a task."""
    classes, test = len(TEXT_TASKS[task].classes), samples(task, "test")
    bases = {name: load(name) for name in SHAPES}
    tuned = {name: fine_tune(name, task) for name in SHAPES}
    for n in sizes:
        for seed in range(seeds):
            few = drawn(task, n, seed)
            for source, target in (list(SHAPES), list(SHAPES)[::-1]):
                told = (source, target, task, n, seed)
                yield Row(*told, "base", accuracy(bases[target], few, test, classes))
                for name in methods:
                    yield Row(
                        *told,
                        name,
                        ported_accuracy(name, tuned[source], bases[source], bases[target], few, test, classes),
                    )
                yield Row(*told, "fine-tuned", accuracy(load(target, tuned[target]), few, test, classes))


def usable(methods: list[str]) -> list[str]:
    """Those that serve this pair; the reasons of the others are printed."""
    from hf_bico.core.pairing import pair_sites
    from hf_bico.families import family_of

    a, b = (family_of(model).sites(model) for model in map(load, SHAPES))
    fit = []
    for name in methods:
        try:
            METHODS[name]().check(pair_sites(a, b))
            fit.append(name)
        except PortError as error:
            print(f"{name} is left out: {error}")
    return fit


def table(rows: list[Row], methods: list[str]) -> str:
    """Means over the seeds, and the share of a fine-tune's gain that every method brought."""
    columns = ["base", *methods, "fine-tuned"]
    lines = [
        "| direction | task | N | " + " | ".join(columns) + " | of the gain: " + " / ".join(methods) + " |",
        "|---" * (4 + len(columns)) + "|",
    ]
    for (source, target, task, n), means in _means(rows).items():
        base, tuned = means["base"], means["fine-tuned"]
        gaps = " / ".join(
            f"{100 * (means[m] - base) / (tuned - base):.0f} %" if tuned > base + 1 else "–" for m in methods
        )
        cells = " | ".join(f"{means[column]:.1f}" for column in columns)
        lines.append(f"| {source} → {target} | {task} | {n} | {cells} | {gaps} |")
    return "\n".join(lines)


def _means(rows: list[Row]) -> dict[tuple, dict[str, float]]:
    """By direction, task and N; then the same over all tasks."""
    found: dict[tuple, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for key in (lambda r: (r.source, r.target, r.task, r.n), lambda r: (r.source, r.target, "mean", r.n)):
        for row in sorted(rows, key=lambda r: (r.source, r.target, r.task, r.n)):
            found[key(row)][row.what].append(row.accuracy)
    return {key: {what: mean(values) for what, values in columns.items()} for key, columns in found.items()}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["bico", "naive"],
        choices=list(METHODS),
        metavar="NAME",
        help=", ".join(METHODS),
    )
    parser.add_argument("--tasks", nargs="+", default=list(TEXT_TASKS), choices=list(TEXT_TASKS))
    parser.add_argument("-n", "--sizes", nargs="+", type=int, default=[50, 100, 200])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write every accuracy to this file")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    rows, start, methods = [], time.time(), usable(args.methods)
    for task in args.tasks:
        rows += task_rows(task, args.sizes, args.seeds, methods)
        print(f"{task} done after {time.time() - start:.0f} s", flush=True)
        if args.json:
            args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    print(table(rows, methods))


if __name__ == "__main__":
    main()
