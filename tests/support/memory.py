"""Bytes of tensors: all that a block makes, and the most that there are at once."""

import weakref
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hf_bico.core.groups import blocks
from hf_bico.io.hub import Hub
from hf_bico.reports import memory
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.dry_run import work_of
from hf_bico.workflows.plan import make_port_plan

BARE = ((memory, "READING", 0),)
"""What tests leave out of the estimate: of tiny models the embeddings are most."""


def least(config: PortConfig) -> str:
    """The least memory that the tensors of a port fit into, a block of layers at a time."""
    plan = make_port_plan(config, Hub())
    work = work_of(plan.models, plan.method, plan.samples.n, config.max_length, config.batch_size)
    work = replace(work, evaluated=1, from_files=True, memory=1)
    with pytest.MonkeyPatch.context() as patch:
        for change in BARE:
            patch.setattr(*change)
        return str(max(memory.stages(work, tuple(blocks(work.pairs))).values()))


class TensorBytes(TorchDispatchMode):
    """Counts the storages of all tensors that come out of a call while they live, and of those named before.

    What a call itself needs while it runs (LAPACK's room) is not seen.
    """

    def __init__(self, held: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: dict[int, weakref.ref] = {}
        for tensor in held:
            self._add(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for each in tree_leaves(found):
            if isinstance(each, Tensor) and each.device.type != "meta":
                self._add(each)
        return found

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return

        def free(_: Any) -> None:
            del self._seen[key]
            self.now -= size

        self._seen[key] = weakref.ref(storage, free)
        self.now += size
        self.peak = max(self.peak, self.now)
