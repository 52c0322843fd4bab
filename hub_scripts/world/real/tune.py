"""Fine-tunes of both models on the sections, as users of sentence models make them: mean pooling, a linear classifier.

What is kept is the model of features. Its classifier was of use in training; a port's models answer by a probe of the
samples that are drawn (`--head probe`), and the fine-tunes here are scored in that way too. How well each does under
its own classifier is in its `made.json`.

    python -m hub_scripts.world.real.tune            # all of RECIPES
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hub_scripts.world.real.packages import MINILM, MPNET, kept, model
from hub_scripts.world.real.texts import CLASSES, rows
from hub_scripts.world.zoo.tune import freeze_embeddings

TOKENS = 48
SCORED = 600


@dataclass(frozen=True)
class Recipe:
    """A fine-tune: AdamW, warm-up over a twentieth, cosine, no dropout, token tables frozen, autocast to bfloat16."""

    base: str
    steps: int
    rate: float = 5e-5
    head_rate: float = 1e-3
    """The classifier's, which starts at zero."""
    batch: int = 16


RECIPES = {
    "minilm-sections": Recipe(MINILM, 500),
    "mpnet-sections-150": Recipe(MPNET, 150),
    "mpnet-sections-500": Recipe(MPNET, 500),
}
"""mpnet's own, short and as long as MiniLM's."""


def tuned(name: str) -> Path:
    """Return a fine-tune of RECIPES as a repo folder, made once.

    Raises:
        NotToBeHad: the packages cannot be fetched.
    """
    return kept(name, lambda folder: _write(RECIPES[name], folder))


def own_score(name: str) -> float:
    """Return the accuracy of a fine-tune under its own classifier, in per cent of SCORED texts."""
    return float(json.loads((tuned(name) / "made.json").read_text())["accuracy"])


def _write(recipe: Recipe, folder: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    torch.manual_seed(0)
    start = time.time()
    tokenizer = AutoTokenizer.from_pretrained(model(recipe.base))
    body = AutoModel.from_pretrained(model(recipe.base)).eval()  # no dropout
    head = nn.Linear(body.config.hidden_size, len(CLASSES))
    nn.init.zeros_(head.weight)
    fit(recipe, body, head, lambda texts: coded(tokenizer, texts))
    body.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    found = accuracy(body, head, lambda texts: coded(tokenizer, texts))
    told = {**asdict(recipe), "accuracy": round(found, 2), "seconds": round(time.time() - start)}
    (folder / "made.json").write_text(json.dumps(told) + "\n")


def fit(recipe: Recipe, body: nn.Module, head: nn.Linear, code: object) -> None:
    """Train body and head in place."""
    freeze_embeddings(body)
    data, generator = rows("train"), torch.Generator().manual_seed(0)
    matrices = [p for p in body.parameters() if p.requires_grad and p.ndim > 1]
    vectors = [p for p in body.parameters() if p.requires_grad and p.ndim == 1]
    adam = torch.optim.AdamW(
        [
            {"params": matrices, "lr": recipe.rate, "weight_decay": 0.1},
            {"params": vectors, "lr": recipe.rate, "weight_decay": 0.0},
            {"params": head.parameters(), "lr": recipe.head_rate, "weight_decay": 0.0},
        ]
    )
    warm = recipe.steps // 20
    schedule = torch.optim.lr_scheduler.SequentialLR(
        adam,
        [
            torch.optim.lr_scheduler.LinearLR(adam, 1 / warm, total_iters=warm),
            torch.optim.lr_scheduler.CosineAnnealingLR(adam, recipe.steps - warm),
        ],
        [warm],
    )
    start, seen = time.time(), 0.0
    for step in range(1, recipe.steps + 1):
        picked = [data[i] for i in torch.randint(len(data), (recipe.batch,), generator=generator).tolist()]
        with torch.autocast("cpu", dtype=torch.bfloat16):  # the weights stay float32
            rows_seen = pooled(body, code([row["text"] for row in picked]))
        loss = F.cross_entropy(head(rows_seen.float()), torch.tensor([row["label"] for row in picked]))
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([*matrices, *vectors, *head.parameters()], 1.0)
        adam.step()
        schedule.step()
        seen += loss.item()
        if step % 25 == 0:
            print(f"{recipe.base} {step}/{recipe.steps} loss {seen / 25:.3f} {time.time() - start:.0f} s", flush=True)
            seen = 0.0


def coded(tokenizer: object, texts: list[str]) -> dict[str, Tensor]:
    return tokenizer(texts, padding=True, truncation=True, max_length=TOKENS, return_tensors="pt")


def pooled(body: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """(n, d): the mean of the rows that are no padding, as both models' cards say, without their normalisation."""
    mask = inputs["attention_mask"][..., None].float()
    return (body(**inputs).last_hidden_state * mask).sum(1) / mask.sum(1)


@torch.no_grad()
def accuracy(body: nn.Module, head: nn.Linear, code: object) -> float:
    """In per cent of the first SCORED test texts."""
    some = rows("test")[:SCORED]
    right = 0
    for first in range(0, len(some), 50):
        part = some[first : first + 50]
        found = head(pooled(body, code([row["text"] for row in part]))).argmax(-1)
        right += int((found == torch.tensor([row["label"] for row in part])).sum())
    return 100 * right / len(some)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(RECIPES), help=", ".join(RECIPES))
    for name in parser.parse_args().names:
        print(tuned(name), own_score(name), flush=True)


if __name__ == "__main__":
    main()
