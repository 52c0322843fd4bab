"""Time, passes and peak memory of methods on a pair of text models of random weights, shaped as BERTs.

    python -m hub_scripts.benchmarks.texts
    python -m hub_scripts.benchmarks.texts --methods bico "response views=4" auto --n 100 --base 384 --target 768

Every method runs in a process of its own, on one thread; seconds are the processor's. Passes, forward + backward, are
those of all samples through either model.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from hf_bico.core.chain import carry, gather
from hf_bico.core.collect import Batch
from hf_bico.core.device import peak_memory
from hf_bico.core.method import Job
from hf_bico.core.methods import method_of
from hf_bico.core.views import Viewable
from hf_bico.tasks.parts import live_folds
from hf_bico.workflows.live import job_of

CLASSES, LONGEST, BATCH, VOCABULARY = 5, 48, 16, 30522
MASK = 103
"""The token that a view puts in place of some."""


def model(width: int, layers: int, seed: int) -> BertForSequenceClassification:
    """Return a BERT of this width with random weights."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
        num_labels=CLASSES,
    )
    return BertForSequenceClassification(config).eval()


class Texts:
    """Random texts in batches, which can be seen again with a tenth of their tokens masked."""

    def __init__(self, n: int, seen: int | None = None) -> None:
        self.n, self.seen = n, seen

    def view(self, number: int) -> "Texts":
        return Texts(self.n, number)

    def __length_hint__(self) -> int:
        return -(-self.n // BATCH)

    def __iter__(self) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(1000, VOCABULARY, (self.n, LONGEST), generator=generator)
        mask = (torch.arange(LONGEST) < torch.randint(8, LONGEST + 1, (self.n, 1), generator=generator)).long()
        labels = torch.randint(CLASSES, (self.n,), generator=generator)
        if self.seen is not None:
            drawn = torch.rand(ids.shape, generator=generator.manual_seed(1 + self.seen))
            ids = torch.where(drawn < 0.1, MASK, ids)
        for k in range(0, self.n, BATCH):
            rows = slice(k, k + BATCH)
            batch = {"input_ids": ids[rows], "attention_mask": mask[rows], "labels": labels[rows]}
            meets = torch.diag_embed(mask[rows].float())
            yield Batch(batch, batch, {"text": meets})


def job(base: int, target: int, layers: int, n: int) -> Job:
    """Return a port of noise between two random models."""
    a, b = model(base, layers, 0), model(target, layers, 1)
    moves = ("encoder.layer", "pooler")
    tuned = {
        key: tensor + 1e-2 * tensor.std() * torch.randn_like(tensor) if any(each in key for each in moves) else tensor
        for key, tensor in a.state_dict().items()
    }
    texts = Texts(n)
    assert isinstance(texts, Viewable)
    work = job_of(tuned=tuned, base=a, target=b, calibration=list(texts), only=["linear"])
    return replace(work, batches=lambda: texts, folds=live_folds(texts, work.target))


def counted(some: nn.Module, passes: dict[str, int]) -> None:
    """Count the samples that a model passes forward and backward."""
    inner: Any = some.base_model

    def before(module: nn.Module, given: Any, named: Any) -> None:
        passes["forward"] += len(given[0] if given else named["input_ids"])

    def after(module: nn.Module, given: Any, named: Any, found: Any) -> None:
        if found[0].requires_grad:
            found[0].register_hook(lambda gradient: passes.__setitem__("backward", passes["backward"] + len(gradient)))

    inner.register_forward_pre_hook(before, with_kwargs=True)
    inner.register_forward_hook(after, with_kwargs=True)


def measured(options: argparse.Namespace, words: str) -> dict[str, Any]:
    """Return what one method takes, in this process."""
    torch.set_num_threads(1)
    work = job(options.base, options.target, options.layers, options.n)
    passes = {side: {"forward": 0, "backward": 0} for side in ("base", "target")}
    counted(work.base.model, passes["base"])
    counted(work.target.model, passes["target"])
    name, *given = words.split()
    method, before, start = method_of(name, given), peak_memory(), time.process_time()
    found = carry(work, method, gather(work, method.wanted))
    seconds = time.process_time() - start
    shares = {side: {k: v / options.n for k, v in each.items()} for side, each in passes.items()}
    choice = getattr(found, "choice", None)
    took = f"{choice.chosen.name} × {choice.chosen.alpha:g}" if choice else ""
    losses = [(each.name, each.alpha, each.loss, each.refusal) for each in choice.tried] if choice else []
    size = sum(float(change.square().sum()) for change in found.delta.values()) ** 0.5
    return {
        "method": words,
        "seconds": seconds,
        "before": before,
        "peak": peak_memory(),
        "passes": shares,
        "took": took,
        "norm": size,
        "tried": losses,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=["bico", "response", "response views=4", "auto"])
    parser.add_argument("--base", type=int, default=768)
    parser.add_argument("--target", type=int, default=384)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--here", action="store_true", help="run the one method in this process")
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measured(options, options.methods[0])), flush=True)
        return
    same = [f"--{name}={getattr(options, name)}" for name in ("base", "target", "layers", "n")]
    for words in options.methods:
        command = [sys.executable, "-m", "hub_scripts.benchmarks.texts", "--here", *same, "--methods", words]
        out = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
        a, b = out["passes"]["base"], out["passes"]["target"]
        print(
            f"{words:18} {out['seconds']:7.1f} s  before {out['before'] / 1e9:.2f} GB  peak {out['peak'] / 1e9:.2f} GB"
            f"  base {a['forward']:5.1f} + {a['backward']:4.1f}  target {b['forward']:5.1f} + {b['backward']:4.1f}"
            f"  ‖Δ‖ {out['norm']:.6g} {out['took']}",
            flush=True,
        )
        for each in out["tried"]:
            print("    ", *each, flush=True)


if __name__ == "__main__":
    main()
