"""Memory and time of ports between models of billions of parameters, on random bfloat16 weights of their shapes.

    python -m hub_scripts.benchmarks.big --pair llama --depth 4 --memory 9GB

Llama-2-7B → Llama-3-8B, and the encoder of T5-3B → that of T5-Large, cut to a few blocks, with a small vocabulary, few
samples and short texts: fewer rows then meet than a layer is wide, so that every map is found exactly without the whole
singular value decomposition, which takes minutes for 14336 × 11008. Every port runs in a process of its own. Beside
what it took stands what the estimate says of the same shapes, and of the whole depth with more samples.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hf_bico.core.collect import Batch, Side
from hf_bico.core.device import held, is_accelerator, peak, restart_peak
from hf_bico.core.difference import Difference
from hf_bico.core.errors import PortError
from hf_bico.core.method import Job
from hf_bico.core.methods import method_of
from hf_bico.core.pairing import pair_sites
from hf_bico.families import family_of
from hf_bico.families.losses import loss_of
from hf_bico.io.workspace import Workspace
from hf_bico.reports.memory import Work, bytes_of, fitted, stages
from hf_bico.reports.report import Clock
from hf_bico.workflows.in_groups import by_groups

WORDS = 1000
"""A small vocabulary, so that embeddings are not most of a model of few blocks."""
DEPTHS = {"llama": 32, "t5": 24}
WHOLE = {"n": 100, "length": 256, "batch_size": 8}
"""The samples of the port whose memory is estimated at the whole depth."""


def model(pair: str, side: int, depth: int, device: str) -> nn.Module:
    """A model of so many blocks with random weights in bfloat16, made on its device."""
    torch.manual_seed(side)
    if pair == "llama":
        mlp, heads = ((11008, 32), (14336, 8))[side]
        config = transformers.LlamaConfig(
            vocab_size=WORDS,
            hidden_size=4096,
            intermediate_size=mlp,
            num_attention_heads=32,
            num_key_value_heads=heads,
            num_hidden_layers=depth,
            max_position_embeddings=512,
            dtype=torch.bfloat16,
        )
        kind: Any = transformers.LlamaForCausalLM
    else:
        mlp, heads, width = ((16384, 32, 128), (4096, 16, 64))[side]
        config = transformers.T5Config(
            vocab_size=WORDS, d_model=1024, d_ff=mlp, num_heads=heads, d_kv=width, num_layers=depth
        )
        kind = transformers.T5EncoderModel
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            return kind(config).eval()
    finally:
        torch.set_default_dtype(torch.float32)


class Tuned(Mapping):
    """A fine-tune of random weights: each tensor is made when it is read, as one of a file would be read."""

    def __init__(self, base: Mapping[str, Tensor]) -> None:
        self.base = base

    def __getitem__(self, key: str) -> Tensor:
        return self.base[key] * 1.02

    def __iter__(self) -> Iterator[str]:
        return iter(self.base)

    def __len__(self) -> int:
        return len(self.base)


def probe(body: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """The loss of a classifier that reads the first eight coordinates of the mean, of an encoder without a head."""
    features = body(batch["input_ids"]).last_hidden_state.float().mean(1)
    return F.cross_entropy(features[:, :8], batch["labels"][:, 0] % 8, reduction="sum")


class Turned(torch.autograd.Function):
    """A linear map whose gradient at its input is taken with the weight turned round in memory first."""

    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor) -> Tensor:
        context.weight = weight
        return F.linear(x, weight)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return F.linear(gradient, context.weight.T.contiguous()), None


class QuickBackward(TorchFunctionMode):
    """Has linear maps without a bias run as `Turned`: where a CPU has no products of bfloat16, torch's own backward
    pass takes 25 times as long as its forward pass.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear and len(args) > 1 and args[1].dtype is torch.bfloat16 and args[1].device.type == "cpu":
            return Turned.apply(*args[:2])
        return func(*args, **(kwargs or {}))


def batches(options: argparse.Namespace) -> list[Batch]:
    ids = torch.randint(3, WORDS, (options.n, options.length), generator=torch.Generator().manual_seed(0))
    shown = [{"input_ids": part, "labels": part} for part in ids.to(options.device).split(options.batch_size)]
    return [Batch(part, part) for part in shown]


def work_of(options: argparse.Namespace, models: list[nn.Module], samples: Mapping[str, int]) -> Work:
    sites = [family_of(each).sites(each) for each in models]
    return Work(
        pair_sites(*sites),
        sites[0],
        method_of(options.method, options.set),
        models=[each.state_dict() for each in models],
        logits=(WORDS, WORDS) if options.pair == "llama" else (0, 0),
        memory=bytes_of(options.memory),
        **samples,
    )


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Port in this process; the models' making is not timed."""
    device, before = options.device, held(options.device)
    models = [model(options.pair, side, options.depth, device) for side in (0, 1)]
    work = work_of(options, models, {name: vars(options)[name] for name in WHOLE})
    apart = is_accelerator(device)
    groups, clock, shown = fitted(work, before, apart=apart), Clock(), batches(options)
    sides = [Side(each, loss_of(each) if options.pair == "llama" else probe) for each in models]
    job = Job(Difference(Tuned(work.models[0]), work.models[0]), work.pairs, *sides, work.models[1], lambda: shown)
    workspace = Workspace({"benchmark": [vars(options), time.time()]})
    restart_peak(device)
    try:
        with torch.enable_grad(), QuickBackward():
            result = by_groups(job, work.method, groups, clock, workspace)
        most = peak(device)
        kept = sum(each.kept for each in result.moved) / len(result.moved)
    finally:
        workspace.clear()
    return {
        "groups": len(groups),
        "seconds": dict(clock.seconds),
        "peak": most,
        "estimate": before + max(stages(work, groups, apart=apart).values()),
        "once": before + max(stages(work, [slice(0, len(work.pairs))], apart=apart).values()),
        "kept": kept,
    }


def whole(options: argparse.Namespace) -> Iterator[tuple[str, float]]:
    """Yield what the whole depth needs on a card: all layers at once, and block by block."""
    work = work_of(options, [model(options.pair, side, DEPTHS[options.pair], "meta") for side in (0, 1)], WHOLE)
    yield "all at once", max(stages(work, [slice(0, len(work.pairs))], apart=True).values())
    for memory in (80, 40, 24):
        within = replace(work, memory=memory * 10**9)
        try:
            groups = fitted(within, 0, apart=True)
            yield f"groups: {len(groups)}, on a card of {memory} GB", max(stages(within, groups, apart=True).values())
        except PortError as error:
            yield f"a card of {memory} GB does not do ({error})", 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", choices=DEPTHS, default="llama")
    parser.add_argument("--depth", type=int, default=4, help="blocks of both models")
    parser.add_argument("--memory", help="the most that the port may take [default: all layers in one pass]")
    parser.add_argument("-n", type=int, default=8, help="calibration samples")
    parser.add_argument("--length", type=int, default=32, help="tokens of a sample")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--method", default="bico")
    parser.add_argument("--set", action="append", default=[], help="an option of the method, as name=value")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure(options)))
        return
    done = subprocess.run([sys.executable, *sys.argv, "--here"], check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{options.pair}, {options.depth} blocks, {options.method}, N = {options.n} texts of {options.length} tokens, "
        f"{options.device}, {torch.get_num_threads()} threads"
    )
    stages_ = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in found["seconds"].items())
    print(f"{found['groups']} groups of layers: {stages_}; {found['kept']:.2f} of τ kept")
    print(
        f"peak {found['peak'] / 1e9:.2f} GB, estimate {found['estimate'] / 1e9:.2f} GB "
        f"({found['estimate'] / found['peak']:.2f} ×); all layers at once {found['once'] / 1e9:.2f} GB"
    )
    for what, size in whole(options):
        print(f"the whole depth, N = {WHOLE['n']}, {what}" + (f": {size / 1e9:.1f} GB" if size else ""))


if __name__ == "__main__":
    main()
