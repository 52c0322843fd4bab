"""What `hf_bico.from_pretrained` takes beside the native loader: seconds and peak memory of either, in one run.

    python -m hub_scripts.benchmarks.delta --layers 8 --width 1024

Memory is the process's own (anonymous) pages over what it has with all libraries imported; pages of mapped files come
and go as the system likes. The model is a random Llama in shards of 200 MB, every linear layer of it changes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch
import transformers

import hf_bico
from hf_bico.families import library_of
from hf_bico.families.purposes import of_model
from hf_bico.io.changes.delta import REPORT_FILE, SECTION
from hf_bico.io.changes.forms import stored
from hf_bico.io.changes.peft import write_delta
from hf_bico.io.checkpoints import open_repo
from hf_bico.io.hub import Hub

SHARD = "200MB"


def write(root: Path, layers: int, width: int) -> tuple[int, int]:
    """`base` and `delta`; the bytes of either."""
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=16,
            num_key_value_heads=16,
            intermediate_size=4 * width,
            vocab_size=2000,
        )
    )
    model.save_pretrained(root / "base", max_shard_size=SHARD)
    pinned = Hub().resolve(str(root / "base"))
    library = library_of(pinned.files)
    base = open_repo(Hub(), pinned, library, of_model(model), model=model)
    change = {key: 1e-3 * torch.randn_like(tensor) for key, tensor in model.state_dict().items() if "proj" in key}
    record = write_delta(root / "delta", base, stored(change, 1.0, None), {}, [])
    (root / "delta" / REPORT_FILE).write_text(json.dumps({SECTION: record}))
    return tuple(sum(path.stat().st_size for path in (root / name).glob("*.safetensors")) for name in ("base", "delta"))


def own_memory() -> int:
    """Bytes of this process's anonymous pages."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def measure(root: Path, what: str) -> tuple[float, int]:
    """Seconds and peak bytes of one load."""
    transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16, vocab_size=9
        )
    )  # imports all of it
    before, peak, done = own_memory(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, own_memory() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    if what == "native":
        model = transformers.LlamaForCausalLM.from_pretrained(root / "base")
    else:
        model = hf_bico.from_pretrained(root / "delta", base=str(root / "base"), device="cpu").model
    sum(float(p.sum()) for p in model.parameters())  # as any use of it, reads every weight
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    return seconds, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--width", type=int, default=1024, help="of the residual stream, a multiple of 16")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(Path(args.measure[0]), args.measure[1])))
        return
    with tempfile.TemporaryDirectory() as folder:
        model, delta = write(Path(folder), args.layers, args.width)
        print(f"model {model / 1e6:.0f} MB in shards of {SHARD}, delta {delta / 1e6:.0f} MB")
        found = {}
        for what in ("native", "delta"):
            said = subprocess.run(
                [sys.executable, __file__, "--measure", folder, what], check=True, text=True, capture_output=True
            ).stdout
            found[what] = seconds, peak = json.loads(said.splitlines()[-1])
            print(f"{what:7} {seconds:6.1f} s, peak {peak / 1e6:.0f} MB = {peak / model:.2f} × the model")
        print(f"delta : native = {found['delta'][0] / found['native'][0]:.1f} × the time")


if __name__ == "__main__":
    main()
