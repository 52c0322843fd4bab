"""Parts of a change on disk: each is written when its layers have moved, and read tensor by tensor from then on."""

import json
from collections import ChainMap
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from hf_bico.core.low_rank import Delta, LowRank
from hf_bico.core.riders import Rode
from hf_bico.core.transport import Moved, Transported
from hf_bico.core.types import Fit, Slice
from hf_bico.io.checkpoints import SafeTensors
from hf_bico.io.writer import staged

FACTORS = ("b", "a")
"""Of a product, in the file's names before its number."""


def write_part(path: Path, part: Transported) -> None:
    """Write a part of a change, complete or not at all.

    Raises:
        PortError: the disk is full or cannot be written to.
    """
    products = [(key, where, product) for key, parts in part.delta.products.items() for where, product in parts.items()]
    tensors = {f"whole/{key}": tensor.contiguous() for key, tensor in part.delta.whole.items()}
    for number, (_, _, product) in enumerate(products):
        tensors |= {f"{name}/{number}": getattr(product, name).contiguous() for name in FACTORS}
    told = {
        "moved": [asdict(each) for each in part.moved],
        "rode": [asdict(each) for each in part.rode],
        "products": [[key, asdict(where)] for key, where, _ in products],
    }
    with staged(path) as stage:
        save_file(tensors, stage, metadata={"part": json.dumps(told)})


def read_part(path: Path, like: Delta) -> Transported:
    """Return a part of a change, whose whole tensors stay in the file until they are read.

    Args:
        like: a change of the same tensors.

    Raises:
        PortError: the file cannot be read.
        KeyError, ValueError, TypeError: it is of another version.
    """
    stored = SafeTensors(path)
    told = json.loads(stored.metadata["part"])
    delta = Delta(like.shapes)
    lazy: Any = _Whole(path)
    delta.whole = ChainMap({}, lazy)
    for number, (key, where) in enumerate(told["products"]):
        factors = (stored[f"{name}/{number}"] for name in FACTORS)
        delta.products.setdefault(key, {})[_slice(where)] = LowRank(*factors)
    return Transported(delta, [_moved(row) for row in told["moved"]], rode=[Rode(**row) for row in told["rode"]])


class _Whole(SafeTensors):
    """The whole tensors of a part by their names in the model."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.files = {key.removeprefix("whole/"): file for key, file in self.files.items() if key.startswith("whole/")}

    def __getitem__(self, key: str) -> Tensor:
        return self.files[key].get_tensor(f"whole/{key}")


def _moved(row: dict[str, Any]) -> Moved:
    output, input_ = (row[side] and Fit(**row[side]) for side in ("output", "input"))
    return Moved(**row | {"output": output, "input": input_})


def _slice(said: dict[str, Any]) -> Slice:
    """Return a slice of its JSON, in which tuples are lists."""
    given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in said.items()}
    return Slice(**given)
