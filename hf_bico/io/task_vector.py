"""τ as a safetensors file with its lineage: `extract` writes one, `apply` adds one to a model."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from hf_bico.core.errors import PortError, listed
from hf_bico.core.types import Tensors
from hf_bico.io.checkpoints import SafeTensors
from hf_bico.io.writer import staged

LINEAGE = "hf_bico"


@dataclass(frozen=True)
class TaskVector:
    """Named changes and what they are the difference of."""

    tensors: Tensors
    lineage: Mapping[str, str]

    def save(self, place: Path) -> int:
        """Write the tensors that changed; how many there are."""
        changed: dict[str, Tensor] = {}
        for key, tensor in self.tensors.items():
            if tensor.any():
                changed[key] = tensor
        with staged(place) as stage:
            save_file(changed, stage, metadata={"format": "pt", LINEAGE: json.dumps(dict(self.lineage))})
        return len(changed)

    @classmethod
    def load(cls, place: Path) -> "TaskVector":
        """Raises PortError for a file that `save` did not write."""
        file = SafeTensors(place)
        if LINEAGE not in file.metadata:
            raise PortError(f"{place.name} is not a task vector: it carries no lineage; make one with `extract`")
        return cls(file, json.loads(file.metadata[LINEAGE]))


def check_fits(delta: Tensors, target: Tensors, name: str) -> None:
    """Refuse a delta that a model cannot take.

    Raises:
        PortError: tensors that the target lacks, has in another shape, or that hold NaN or Inf; all of them listed.
    """
    odd = []
    for key, change in delta.items():
        if key not in target:
            odd.append(f"{key} is not in it")
        elif target[key].shape != change.shape:
            odd.append(f"{key} is {tuple(target[key].shape)}, not {tuple(change.shape)}")
        elif not change.isfinite().all():
            odd.append(f"{key} has NaN or Inf")
    if odd:
        raise PortError(f"the task vector does not fit {name}: {listed(odd)}")
