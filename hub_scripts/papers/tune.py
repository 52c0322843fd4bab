"""Fine-tunes by the papers' protocol, kept as ordinary repos in the output folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import datasets
import torch
from datasets.packaged_modules.parquet.parquet import Parquet
from torch import Tensor, nn

from hf_bico.core.errors import PortError
from hf_bico.core.methods import Track, untracked
from hf_bico.io.hub import Hub
from hf_bico.tasks.splits import HubDataset
from hub_scripts.papers.plan import FineTune, folder_of
from hub_scripts.papers.spec import Protocol, Spec

CARD = """---
base_model: {ref}
base_model_relation: finetune
library_name: {library}
datasets: [{dataset}]
---
# {title}

{ref} fine-tuned on {dataset}: {protocol}.
{accuracy} of the {share:.0%} of the training split that were kept for validation.
"""


@dataclass(frozen=True)
class Run:
    """Where and how: the client, the output folder, the device, samples a pass, processes that load pictures."""

    hub: Hub
    output: Path
    device: str
    size: int = 8
    workers: int = 0
    track: Track = untracked

    def place(self, spec: Spec, tune: FineTune) -> Path:
        return self.output / "fine-tunes" / folder_of(spec, tune)


def whole_split(dataset: HubDataset, name: str) -> datasets.Dataset:
    """A split that will be read over and over, in any order: from the cache of `datasets`.

    Raises:
        PortError: there is none of that name.
    """
    if name not in dataset.splits:
        raise PortError(f"{dataset.pinned} has no split {name!r}; it has {', '.join(dataset.splits)}")
    builder = dataset.builder
    with dataset.hub.hub_errors_as_one_line(f"dataset {dataset.pinned}", dataset.pinned.name, "dataset"):
        if isinstance(builder, Parquet):  # this split alone; some repos have ten
            files = {name: list(builder.config.data_files[name])}
            return datasets.load_dataset(
                "parquet", data_files=files, split=name, features=builder.info.features, token=dataset.hub.token
            )
        builder.download_and_prepare()
        return builder.as_dataset(split=name)


def parted(n: int, protocol: Protocol) -> tuple[list[int], list[int]]:
    """Rows to learn from and rows kept for validation, at random by the seed.

    Raises:
        PortError: there are too few for one of each.
    """
    order = torch.randperm(n, generator=torch.Generator().manual_seed(protocol.seed)).tolist()
    kept = round(protocol.held_out * n)
    if kept >= n or (protocol.held_out and not kept):
        raise PortError(f"{n} rows are too few to keep {protocol.held_out:.0%} of them for validation")
    return order[kept:], sorted(order[:kept])


def schedule(adam: torch.optim.Optimizer, protocol: Protocol) -> torch.optim.lr_scheduler.LRScheduler:
    """Linear warm-up, then a cosine to zero."""
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, protocol.steps - protocol.warmup)
    if not protocol.warmup:
        return cosine
    warm = torch.optim.lr_scheduler.LinearLR(adam, 1 / protocol.warmup, total_iters=protocol.warmup)
    return torch.optim.lr_scheduler.SequentialLR(adam, [warm, cosine], [protocol.warmup])


def learn(
    parameters: Sequence[nn.Parameter],
    loss: Callable[[tuple[Tensor, ...]], Tensor],
    batches: Iterable[tuple[Tensor, ...]],
    protocol: Protocol,
    size: int,
    track: Track,
    what: str,
) -> None:
    """AdamW on the mean loss of every batch, which goes through the model `size` samples at a time.

    Args:
        loss: summed over the samples it is given; their labels come last.
        batches: whole batches, of tensors with a row a sample; as many as there are steps, or more.
    """
    adam = torch.optim.AdamW(parameters, lr=protocol.rate, weight_decay=protocol.decay)
    rates = schedule(adam, protocol)
    for batch in track(islice(batches, protocol.steps), what, protocol.steps):
        for part in zip(*(tensor.split(size) for tensor in batch), strict=True):
            (loss(part) / len(batch[-1])).backward()
        adam.step()
        adam.zero_grad()
        rates.step()


def endless(loader: Iterable) -> Iterator:
    """Epoch after epoch."""
    while True:
        yield from loader


def card(spec: Spec, tune: FineTune, library: str, accuracy: float | None) -> str:
    model, dataset = spec.models[tune.model], spec.datasets[tune.dataset]
    protocol = spec.protocols[model.family]
    told = ", ".join(f"{name} {value:g}" for name, value in asdict(protocol).items())
    reached = "No accuracy" if accuracy is None else f"Accuracy {accuracy:.1%}"
    return CARD.format(
        ref=model.ref,
        library=library,
        dataset=dataset.ref,
        title=str(tune),
        protocol=told,
        accuracy=reached,
        share=protocol.held_out,
    )
