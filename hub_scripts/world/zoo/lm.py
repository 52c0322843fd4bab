"""Three small Llamas: shapes, next-token pre-training on docstrings, and fine-tunes on text or prompt and completion.

lm-a and lm-b share the vocabulary and nothing else; lm-c has another vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hub_scripts.world.text.corpus import END, PAD, VOCABULARY
from hub_scripts.world.zoo.text import OTHER_SIZE, stream_of
from hub_scripts.world.zoo.training import fill, fit

BATCH, LENGTHS, RATE, DECAY = 16, (64, 80, 96), 4e-3, 0.05


@dataclass(frozen=True)
class Shape:
    width: int
    layers: int
    kv_heads: int
    units: int
    tokenizer: str
    seed: int
    steps: int


SHAPES = {
    "lm-a": Shape(64, 3, 2, 192, "first", 51, 1000),
    "lm-b": Shape(96, 4, 2, 256, "first", 52, 1000),
    "lm-c": Shape(96, 4, 3, 256, "other", 53, 1000),
}


def build(name: str) -> nn.Module:
    """A fresh model; heads are 16 wide, input and output embeddings are one."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = SHAPES[name]
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=OTHER_SIZE if shape.tokenizer == "other" else VOCABULARY,
            hidden_size=shape.width,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.width // 16,
            num_key_value_heads=shape.kv_heads,
            head_dim=16,
            intermediate_size=shape.units,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            pad_token_id=PAD,
            bos_token_id=None,
            eos_token_id=END,
        )
    )


def load(name: str) -> nn.Module:
    return fill(name, build(name))


def pretrain(name: str, steps: int | None = None) -> tuple[nn.Module, list[float]]:
    """A base from nothing: the next token in random crops of the training documents, mean over tokens."""
    shape = SHAPES[name]
    torch.manual_seed(shape.seed)
    generator = torch.Generator().manual_seed(shape.seed)
    model = build(name).train()
    loss_of = objective(model, shape.tokenizer, generator)
    return model, fit(name, model, loss_of, steps or shape.steps, RATE, DECAY, muon=True)


def objective(model: nn.Module, tokenizer: str, generator: torch.Generator) -> Callable[[int], Tensor]:
    """The pre-training loss of a step, of random crops of the training documents."""
    text = torch.from_numpy(stream_of(tokenizer).astype("int64"))

    def loss_of(step: int) -> Tensor:
        length = LENGTHS[step % len(LENGTHS)]
        first = torch.randint(len(text) - length, (BATCH, 1), generator=generator)
        return next_token_loss(model, text[first + torch.arange(length)])

    return loss_of


def next_token_loss(model: nn.Module, ids: Tensor) -> Tensor:
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
