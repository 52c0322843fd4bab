"""Time and memory of a port on random weights of real shapes, as ratios to the least it could cost.

    python -m hub_scripts.benchmarks.port -n 100 --depth 12

ViT-B/16 (224 px) → ViT-B/16-plus (240 px). The floor is the same forward and backward of both models with frozen
weights and nothing collected. Both run in processes of their own, so that each has a peak of memory of its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import open_clip
import torch
import torch.nn.functional as F

from hf_bico import BiCo, class_loss, port
from hf_bico.core.collect import Batch, frozen

SHAPES = {"source": {"image_size": 224, "width": 768}, "target": {"image_size": 240, "width": 896}}
TEXT = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1}
EMBED, CLASSES = 512, 100


def models(depth: int, device: str, scale: float = 1.0) -> list[torch.nn.Module]:
    """Return both, `scale` times as wide."""
    torch.manual_seed(0)
    shapes = [shape | {"width": int(scale * shape["width"])} for shape in SHAPES.values()]
    return [
        open_clip.CLIP(embed_dim=EMBED, text_cfg=TEXT, vision_cfg={**shape, "layers": depth, "patch_size": 16})
        .eval()
        .to(device)
        for shape in shapes
    ]


def batches(n: int, size: int, device: str):
    """Random images, made as they are needed."""
    for start in range(0, n, size):
        count = min(size, n - start)
        labels = torch.randint(CLASSES, (count,), device=device)
        yield Batch(
            *(
                (torch.randn(count, 3, side, side, device=device), labels)
                for side in (shape["image_size"] for shape in SHAPES.values())
            )
        )


def floor(source, target, loss, samples) -> None:
    """Forward and backward of both, the gradient starting where the first block does."""
    for model in (source, target):
        model.visual.ln_pre.register_forward_hook(lambda _, args, y: y.detach().requires_grad_())
    with frozen(source), frozen(target):
        for batch in samples:
            for model, inputs in ((source, batch.base), (target, batch.target)):
                loss(model, inputs).backward()


def measure(what: str, options: argparse.Namespace) -> dict[str, float]:
    """Seconds and peak bytes of one run in this process; the models' making is not timed."""
    source, target = models(options.depth, options.device, options.scale)
    loss = class_loss(F.normalize(torch.randn(CLASSES, EMBED, device=options.device), dim=-1))
    samples = batches(options.n, options.batch_size, options.device)
    weights = sum(p.numel() * p.element_size() for model in (source, target) for p in model.visual.parameters())
    state = source.state_dict() if what == "port" else {}
    tuned = {key: tensor + 1e-3 * torch.randn_like(tensor) for key, tensor in state.items()}
    start, work = time.perf_counter(), time.process_time()
    if what == "floor":
        floor(source, target, loss, samples)
    else:
        port(
            tuned=tuned,
            base=source,
            target=target,
            calibration=samples,
            loss=loss,
            method=BiCo(mlp=options.mlp),
            only=["linear"],
        )
    if options.device.startswith("cuda"):
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    taken = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - work}
    return {**taken, "peak": peak, "weights": weights}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=100, help="calibration samples")
    parser.add_argument("--depth", type=int, default=12, help="blocks of both models")
    parser.add_argument("--scale", type=float, default=1.0, help="of both widths; heads are 64 wide")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=1, help="runs of each, in turn; the least seconds count")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--mlp", choices=("auto", "whole", "merged"), default="auto", help="as of bico")
    parser.add_argument("--only", choices=("floor", "port"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.only, options)))
        return
    runs: dict[str, list[dict[str, float]]] = {"floor": [], "port": []}
    for _ in range(options.repeat):
        for what, results in runs.items():
            command = [sys.executable, *sys.argv, "--only", what]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            results.append(json.loads(done.stdout.splitlines()[-1]))
    best = {what: min(results, key=lambda run: run["seconds"]) for what, results in runs.items()}
    print(
        f"N = {options.n}, {options.depth} blocks, batches of {options.batch_size}, {options.device}, "
        f"{torch.get_num_threads()} threads"
    )
    for what, run in best.items():
        print(f"{what:6} {run['seconds']:8.1f} s, {run['cpu']:8.1f} s of CPUs  {run['peak'] / 1e9:6.2f} GB peak")
    weights = best["port"]["weights"]
    print(
        f"port / floor: time {best['port']['seconds'] / best['floor']['seconds']:.2f}, "
        f"of CPUs {best['port']['cpu'] / best['floor']['cpu']:.2f}, "
        f"memory {best['port']['peak'] / best['floor']['peak']:.2f}; "
        f"port's memory / both towers' weights ({weights / 1e9:.2f} GB): {best['port']['peak'] / weights:.2f}"
    )


if __name__ == "__main__":
    main()
