"""Fine-tunes of the real models, as users of sentence models make them, and a next version of MiniLM.

What is kept is the model of features. The classifier of the sections was of use in training; a port's models answer by
a probe of the samples that are drawn (`--head probe`), and the fine-tunes here are scored in that way too. How well
each does by itself is in its `made.json`.

    python -m hub_scripts.real.tune            # all of RECIPES
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hub_scripts.real.packages import MINILM, MPNET, kept, model
from hub_scripts.real.texts import CLASSES, GERMAN, SECTIONS, other_texts, rows
from hub_scripts.world.zoo.tune import freeze_embeddings

NEXT, OTHERS = "minilm-next", "others"
TOKENS, SCORED = 48, 600
SHARP = 20.0
"""What cosines are multiplied by for the softmax over a batch, as in these models' own training."""
Coded = Callable[[list[str]], dict[str, Tensor]]


@dataclass(frozen=True)
class Recipe:
    """A fine-tune: AdamW, warm-up over a twentieth, cosine, no dropout, token tables frozen, autocast to bfloat16."""

    base: str
    task: str
    steps: int
    rate: float = 5e-5
    head_rate: float = 1e-3
    """The classifier's, which starts at zero."""
    batch: int = 16


RECIPES = {
    NEXT: Recipe(MINILM, OTHERS, 400, batch=32),
    "minilm-sections": Recipe(MINILM, SECTIONS, 500),
    "minilm-next-sections": Recipe(NEXT, SECTIONS, 500),
    "mpnet-sections": Recipe(MPNET, SECTIONS, 500),
    "minilm-german": Recipe(MINILM, GERMAN, 400, batch=32),
    "minilm-next-german": Recipe(NEXT, GERMAN, 400, batch=32),
    "mpnet-german": Recipe(MPNET, GERMAN, 400, batch=32),
}
"""The next version, then the fine-tunes; MiniLM's own is ported, and the others are what a port is measured by."""


def tuned(name: str) -> Path:
    """Return a fine-tune of RECIPES as a repo folder, made once.

    Raises:
        NotToBeHad: the packages cannot be fetched.
    """
    return kept(name, lambda folder: _write(RECIPES[name], folder))


def base(name: str) -> Path:
    """Return MINILM, MPNET or NEXT as a repo folder.

    Raises:
        NotToBeHad: the packages cannot be fetched.
    """
    return tuned(name) if name == NEXT else model(name)


def told(name: str) -> dict[str, Any]:
    """Return what is known of a fine-tune: its recipe, its score in per cent, its distance from its base."""
    return dict(json.loads((tuned(name) / "made.json").read_text()))


def _write(recipe: Recipe, folder: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    torch.manual_seed(0)
    start = time.time()
    tokenizer = AutoTokenizer.from_pretrained(base(recipe.base))
    body = AutoModel.from_pretrained(base(recipe.base)).eval()  # no dropout
    before = [p.detach().clone() for p in body.parameters() if p.ndim > 1]
    head = nn.Linear(body.config.hidden_size, len(CLASSES))
    nn.init.zeros_(head.weight)

    def coded(texts: list[str]) -> dict[str, Tensor]:
        return tokenizer(texts, padding=True, truncation=True, max_length=TOKENS, return_tensors="pt")

    fit(recipe, body, head, losses(recipe, body, head, coded))
    body.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    after = [p.detach() for p in body.parameters() if p.ndim > 1]
    about = asdict(recipe) | {
        "score": round(score(recipe.task, body, head, coded), 2),
        "moved": round(100 * float(norm([b - a for a, b in zip(before, after, strict=True)]) / norm(before)), 2),
        "seconds": round(time.time() - start),
    }
    (folder / "made.json").write_text(json.dumps(about) + "\n")


def norm(tensors: list[Tensor]) -> Tensor:
    """Return the Frobenius norm of all of them."""
    return torch.stack([tensor.norm() for tensor in tensors]).norm()


def losses(recipe: Recipe, body: nn.Module, head: nn.Linear, coded: Coded) -> Callable[[], Tensor]:
    """Return a function that draws a batch and gives its loss."""
    generator = torch.Generator().manual_seed(0)
    data = other_texts() if recipe.task == OTHERS else [tuple(row.values()) for row in rows(recipe.task, "train")]

    def loss() -> Tensor:
        picked = [data[i] for i in torch.randint(len(data), (recipe.batch,), generator=generator).tolist()]
        one, other = (list(some) for some in zip(*picked, strict=True))
        with torch.autocast("cpu", dtype=torch.bfloat16):  # the weights stay float32
            x = pooled(body, coded(one)).float()
            y = None if recipe.task == SECTIONS else pooled(body, coded(other)).float()
        if y is None:
            return F.cross_entropy(head(x), torch.tensor(other))
        cosines = F.normalize(x, dim=-1) @ F.normalize(y, dim=-1).T
        return F.cross_entropy(SHARP * cosines, torch.arange(len(cosines)))

    return loss


def fit(recipe: Recipe, body: nn.Module, head: nn.Linear, loss_of: Callable[[], Tensor]) -> None:
    """Train body and head in place."""
    freeze_embeddings(body)
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
        loss = loss_of()
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([*matrices, *vectors, *head.parameters()], 1.0)
        adam.step()
        schedule.step()
        seen += loss.item()
        if step % 25 == 0:
            about = f"{recipe.base} {recipe.task} {step}/{recipe.steps} loss {seen / 25:.3f}"
            print(f"{about} {time.time() - start:.0f} s", flush=True)
            seen = 0.0


def pooled(body: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """(n, d): the mean of the rows that are no padding, as both models' cards say, without their normalisation."""
    mask = inputs["attention_mask"][..., None].float()
    return (body(**inputs).last_hidden_state * mask).sum(1) / mask.sum(1)


@torch.no_grad()
def score(task: str, body: nn.Module, head: nn.Linear, coded: Coded) -> float:
    """In per cent of the first SCORED test rows: accuracy under the classifier, or MRR@10 of the German texts.

    A next version is scored on the German texts too.
    """

    def features(texts: list[str]) -> Tensor:
        parts = [pooled(body, coded(texts[first : first + 50])) for first in range(0, len(texts), 50)]
        return torch.cat(parts)

    if task == SECTIONS:
        some = rows(SECTIONS, "test")[:SCORED]
        found = head(features([str(row["text"]) for row in some])).argmax(-1)
        return 100 * float((found == torch.tensor([row["label"] for row in some])).float().mean())
    some = rows(GERMAN, "test")[:SCORED]
    x, y = (F.normalize(features([str(row[key]) for row in some]), dim=-1) for key in ("anchor", "positive"))
    cosines = x @ y.T
    rank = (cosines >= cosines.diag()[:, None]).sum(1)
    return 100 * float(((rank <= 10) / rank).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(RECIPES), help=", ".join(RECIPES))
    for name in parser.parse_args().names:
        print(tuned(name), told(name), flush=True)


if __name__ == "__main__":
    main()
