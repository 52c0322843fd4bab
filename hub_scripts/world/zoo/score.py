"""How good the zoo's bases are: on fresh distortions, and on docstrings of files that none of them has seen.

python -m hub_scripts.world.zoo.score
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from hub_scripts.world.text.corpus import END, TOKENIZER
from hub_scripts.world.zoo import bert, lm, vit
from hub_scripts.world.zoo.text import OTHER, documents

CROPS, LENGTH = 300, 64


def held_out_crops(tokenizer: str) -> Tensor:
    """(CROPS, LENGTH) tokens of held-out documents, always the same places of the text."""
    coder = Tokenizer.from_file(str(OTHER if tokenizer == "other" else TOKENIZER))
    order = np.random.default_rng(0).permutation(len(documents(True)))[:1500]
    coded = coder.encode_batch([documents(True)[i][1] for i in order])
    text = torch.tensor([i for one in coded for i in [*one.ids, END]])
    starts = torch.linspace(0, len(text) - LENGTH - 1, CROPS).long()
    return text[starts[:, None] + torch.arange(LENGTH)]


@torch.no_grad()
def lm_scores(name: str) -> str:
    ids, model = held_out_crops(lm.SHAPES[name].tokenizer), lm.load(name)
    loss = lm.next_token_loss(model, ids).item()
    return f"{name}: held-out loss {loss:.2f} a token, perplexity {math.exp(loss):.1f}"


@torch.no_grad()
def bert_scores(name: str) -> str:
    """Of the masked tokens of held-out text; the share of the commonest token is the chance."""
    generator, model = torch.Generator().manual_seed(0), bert.load(name)
    text = held_out_crops("first").flatten()
    ids, kind, _ = bert.segments(text, LENGTH, generator)
    seen, labels = bert.masked(ids, generator)
    out, places = model.bert(input_ids=seen, token_type_ids=kind), labels >= 0
    logits = model.cls.predictions(out.last_hidden_state[places])
    right = 100 * (logits.argmax(-1) == labels[places]).float().mean()
    chance = 100 * labels[places].bincount().max() / places.sum()
    return (
        f"{name}: masked loss {F.cross_entropy(logits, labels[places]):.2f}, {right:.1f} % right, "
        f"the commonest token is {chance:.1f} %"
    )


def main() -> None:
    for name in vit.SHAPES:
        print(f"{name}: {vit.score(name):.1f} % of fresh distortions, 135 concepts", flush=True)
    for name in bert.SHAPES:
        print(bert_scores(name), flush=True)
    for name in lm.SHAPES:
        print(lm_scores(name), flush=True)


if __name__ == "__main__":
    main()
