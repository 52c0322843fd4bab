"""Time of methods beside BiCo's on random weights, each with the collection of its statistics.

    python -m hub_scripts.benchmarks.methods
    python -m hub_scripts.benchmarks.methods --size wide --methods bico "response ridge=1" response

Processor seconds of one thread, the least of `--repeat` runs in turn.
"""

import argparse
import time

import open_clip
import torch
import torch.nn.functional as F

from hf_bico import class_loss
from hf_bico.core.chain import carry, gather
from hf_bico.core.collect import Batch
from hf_bico.core.methods import Job, Method, method_of
from hf_bico.workflows.live import job_of

TEXT = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1}
EMBED, CLASSES = 64, 10
VISION = {
    "small": {"image_size": 32, "patch_size": 4, "head_width": 16},  # the shapes of our world
    "wide": {"image_size": 224, "patch_size": 16, "head_width": 64},
    "block": {"image_size": 224, "patch_size": 16, "head_width": 64},  # one block of wide
}
SHAPES = {"small": ((64, 4), (96, 6)), "wide": ((384, 6), (512, 8)), "block": ((384, 1), (512, 1))}
"""Width and blocks of A and of B."""
SAMPLES = {"small": 100, "wide": 20, "block": 20}


def job(size: str) -> Job:
    """Return a port of noise between two random models, all samples in one batch."""
    torch.manual_seed(0)
    base, target = (
        open_clip.CLIP(embed_dim=EMBED, text_cfg=TEXT, vision_cfg={**VISION[size], "width": width, "layers": layers})
        for width, layers in SHAPES[size]
    )
    tuned = {
        key: tensor + 1e-3 * torch.randn_like(tensor) if key.startswith("visual.") else tensor
        for key, tensor in base.state_dict().items()
    }
    n, side = SAMPLES[size], VISION[size]["image_size"]
    batch = torch.randn(n, 3, side, side), torch.randint(CLASSES, (n,))
    return job_of(
        tuned=tuned,
        base=base.eval(),
        target=target.eval(),
        calibration=[Batch(batch, batch)],
        loss=class_loss(F.normalize(torch.randn(CLASSES, EMBED), dim=-1)),
        only=["linear"],
    )


def seconds(work: Job, method: Method) -> tuple[float, float]:
    """Return the time to collect statistics and to carry τ over."""
    start = time.process_time()
    seen = gather(work, method.wanted)
    between = time.process_time()
    carry(work, method, seen)
    return between - start, time.process_time() - between


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SHAPES, default="small")
    parser.add_argument("--methods", nargs="+", default=["bico", "response ridge=1", "response"])
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    work, best = job(options.size), {}
    for _ in range(options.repeat):
        for words in options.methods:
            name, *given = words.split()
            found = seconds(work, method_of(name, given))
            best[words] = min(best.get(words, found), found, key=sum)
    first = sum(best[options.methods[0]])
    for words, (collected, carried) in best.items():
        total = collected + carried
        print(f"{words:24} {collected:6.2f} + {carried:6.2f} = {total:6.2f} s, {total / first:.2f}", flush=True)


if __name__ == "__main__":
    main()
