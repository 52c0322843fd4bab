"""Two small BERTs: shapes, pre-training by masked tokens and the next segment, and fine-tunes with a new head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hub_scripts.world.text.corpus import END, MASK, PAD, SPECIAL, VOCABULARY, stream
from hub_scripts.world.zoo.training import fill, fit

STEPS, BATCH, LENGTHS, RATE, DECAY, MASKED = 1600, 64, (32, 48, 64), 4e-3, 0.05, 0.2
CLS = VOCABULARY
"""The id behind the shared vocabulary."""


@dataclass(frozen=True)
class Shape:
    width: int
    layers: int
    units: int
    seed: int


SHAPES = {"bert-narrow": Shape(64, 3, 256, 41), "bert-wide": Shape(96, 4, 256, 42)}


def config(name: str) -> object:
    """Heads are 16 wide; 128 places."""
    from transformers import BertConfig

    shape = SHAPES[name]
    return BertConfig(
        vocab_size=VOCABULARY + 1,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.width // 16,
        intermediate_size=shape.units,
        max_position_embeddings=128,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=PAD,
        initializer_range=0.1,
    )


def build(name: str) -> nn.Module:
    """A fresh model with both heads of pre-training, so that its pooler is trained too; places start as waves."""
    from transformers import BertForPreTraining

    model = BertForPreTraining(config(name))
    with torch.no_grad():
        table = model.bert.embeddings.position_embeddings.weight
        turn = torch.arange(len(table))[:, None] * 1e3 ** (-torch.arange(0, table.shape[1], 2) / table.shape[1])
        table.copy_(0.14 * torch.cat([turn.sin(), turn.cos()], 1))
    return model


def load(name: str) -> nn.Module:
    return fill(name, build(name))


def segments(text: Tensor, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Crops of the stream as <s> A </s> B </s>: ids (BATCH, length), segment ids, and whether B is from elsewhere."""
    inner = length - 3
    first = torch.randint(len(text) - inner, (BATCH, 1), generator=generator)
    rows, other = text[first + torch.arange(inner)], torch.rand(BATCH, generator=generator) < 0.5
    cut = int(torch.randint(inner // 4, 3 * inner // 4, (), generator=generator))
    second = torch.where(other[:, None], rows[:, cut:].roll(1, 0), rows[:, cut:])
    mark, end = torch.full((BATCH, 1), CLS), torch.full((BATCH, 1), END)
    ids = torch.cat([mark, rows[:, :cut], end, second, end], 1)
    kind = (torch.arange(length) > cut + 1).long().expand(BATCH, -1)
    return ids, kind, other.long()


def masked(ids: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A share MASKED of the places: four in five hidden, one in ten another token, one in ten as it is.

    Returns the ids as the model sees them and the labels (-100 elsewhere), both (n, T).
    """
    luck, what = (torch.rand(ids.shape, generator=generator) for _ in range(2))
    chosen = (luck < MASKED) & (ids != CLS) & (ids != END)
    noise = torch.randint(len(SPECIAL), VOCABULARY, ids.shape, generator=generator)
    shown = torch.where(what < 0.8, MASK, torch.where(what < 0.9, noise, ids))
    return torch.where(chosen, shown, ids), torch.where(chosen, ids, -100)


def pretrain(name: str, steps: int = STEPS) -> tuple[nn.Module, list[float]]:
    """A base from nothing: cross-entropy of the masked tokens plus that of the next segment."""
    seed = SHAPES[name].seed
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = build(name).train()
    return model, fit(name, model, objective(model, generator), steps, RATE, DECAY, muon=True)


def objective(model: nn.Module, generator: torch.Generator) -> Callable[[int], Tensor]:
    """The pre-training loss of a step, of random crops of the training documents."""
    text = torch.from_numpy(stream().astype("int64"))

    def loss_of(step: int) -> Tensor:
        ids, kind, other = segments(text, LENGTHS[step % len(LENGTHS)], generator)
        return sum(losses(model, ids, kind, other, generator))

    return loss_of


def losses(
    model: nn.Module, ids: Tensor, kind: Tensor, other: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Of the masked tokens, whose logits alone are computed, and of the next segment."""
    seen, labels = masked(ids, generator)
    out = model.bert(input_ids=seen, token_type_ids=kind)
    places = labels >= 0
    words = F.cross_entropy(model.cls.predictions(out.last_hidden_state[places]), labels[places])
    return words, F.cross_entropy(model.cls.seq_relationship(out.pooler_output), other)
