"""Maps from demo/base to demo/plus, ports over them, and what is in their files."""

import torch
from safetensors.torch import load_file
from support.world import config, fine_tune, write_model

from hf_bico.io.hub import Hub
from hf_bico.workflows import align
from hf_bico.workflows.config import AlignConfig, PortConfig
from hf_bico.workflows.port import run

WEIGHTS = "open_clip_model.safetensors"


def aligned(output, **options) -> align.Aligned:
    """Maps from demo/base to demo/plus."""
    chosen = {"base": "demo/base", "target": "demo/plus", "dataset": "demo/task", "n": 20} | options
    return align.run(AlignConfig(**chosen, output=output), Hub())


def ported(output, source="demo/ft", **options) -> dict[str, torch.Tensor]:
    """What a port wrote."""
    chosen = {"target": "demo/plus", "dataset": "demo/task", "base": "demo/base", "n": 20} | options
    if "maps" not in options:  # maps are made by the paper's method
        chosen = {"method": "bico"} | chosen
    run(PortConfig(str(source), output=output, **chosen), Hub())
    return load_file(output / WEIGHTS)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def factors(folder) -> dict[str, torch.Tensor]:
    return {
        f"{path.name}/{key}": tensor
        for path in sorted(folder.glob("*.safetensors"))
        for key, tensor in load_file(path).items()
    }


def tuned_from(world, folder, seed=7, text=False):
    """Another fine-tune of the base in `folder`, or one whose text tower changed too."""
    small, base = config(32, 2, 32), load_file(world / "base" / WEIGHTS)
    tensors = fine_tune(small, base, seed=seed)
    if text:
        keys = [key for key in base if key.startswith("transformer.resblocks") and base[key].ndim == 2]
        tensors |= {key: base[key] + 0.01 * torch.randn(base[key].shape) for key in keys}
    write_model(folder, small, tensors)
    return folder
