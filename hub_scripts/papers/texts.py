"""Labelled texts as tokens, and the encoders that read them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer, PreTrainedTokenizerBase, T5EncoderModel
from transformers.utils import logging

from hf_bico.core.errors import PortError
from hf_bico.tasks.samples import EVAL_SPLITS
from hf_bico.tasks.splits import HubDataset
from hf_bico.tasks.strategies import chosen
from hub_scripts.papers.spec import Dataset
from hub_scripts.papers.tune import Run, whole_split

FILES = (
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*",
    "spiece.model",
    "special_tokens_map.json",
)
NO_LABEL = -1
logging.set_verbosity_error()  # an encoder leaves its decoder's weights aside: no news


@dataclass(frozen=True)
class Texts:
    """Token ids and labels of texts of any length."""

    ids: Sequence[list[int]]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def of(self, rows: Sequence[int]) -> Texts:
        return Texts([self.ids[row] for row in rows], self.labels[list(rows)])

    def batches(self, size: int, device: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Texts of one length together, since a padded place would be a row like any other; shortest first."""
        rows = defaultdict(list)
        for row, ids in enumerate(self.ids):
            rows[len(ids)].append(row)
        for _, alike in sorted(rows.items()):
            for part in torch.tensor(alike).split(size):
                yield torch.tensor([self.ids[row] for row in part]).to(device), self.labels[part].to(device)

    def padded(self, rows: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Ids, mask and labels of a batch of any lengths: for training, where nothing is collected."""
        ids = [torch.tensor(self.ids[row]) for row in rows]
        masks = [torch.ones_like(each) for each in ids]
        return pad_sequence(ids, batch_first=True), pad_sequence(masks, batch_first=True), self.labels[list(rows)]


def load(ref: str, run: Run) -> T5EncoderModel:
    """On the CPU, in float32, without gradients."""
    folder = _folder(ref, run)
    try:
        model = T5EncoderModel.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise PortError(f"{ref} cannot be opened as a T5 encoder: {' '.join(str(error).split())}") from error
    return model.eval().requires_grad_(False)


def load_tokenizer(ref: str, run: Run) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(_folder(ref, run))
    except (OSError, ValueError) as error:
        raise PortError(f"{ref} has no tokenizer that can be opened: {' '.join(str(error).split())}") from error


def _folder(ref: str, run: Run) -> Path:
    return run.hub.fetch(run.hub.resolve(ref), FILES)


def read(
    entry: Dataset, split: str | None, tokenizer: PreTrainedTokenizerBase, length: int, run: Run, n: int | None = None
) -> Texts:
    """A split as tokens (`n` of its rows, if told); rows without a label are left out.

    Raises:
        PortError: no such split or column, nothing with a label.
    """
    dataset = HubDataset(run.hub, run.hub.resolve(entry.ref, "dataset"), entry.config)
    name = split or next((each for each in EVAL_SPLITS if each in dataset.splits and each != entry.split), "test")
    rows, label = whole_split(dataset, name), entry.label or "label"
    missing = [column for column in (*entry.text, label) if column not in rows.features]
    if missing:
        raise PortError(f"{dataset.pinned} has no column {', '.join(missing)}; it has {', '.join(rows.features)}")
    keep = [row for row, each in enumerate(rows[:][label]) if each != NO_LABEL]
    if not keep:
        raise PortError(f"the split {name!r} of {dataset.pinned} has no labels: name another with eval_split")
    if n is not None:
        keep = [keep[place] for place in chosen([0] * len(keep), "random", n, seed=0)]
    data = rows.select(keep)[:]
    ids = tokenizer(*(list(data[column]) for column in entry.text), truncation=True, max_length=length)["input_ids"]
    return Texts(ids, torch.tensor(data[label]))
