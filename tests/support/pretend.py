"""A second device that computes on the CPU, where a tensor that was left behind is an error as on a real accelerator.

A tensor there is a wrapper without storage of its own around one on the CPU. Torch takes no new device once a backward
pass ran, so it is registered before everything else: `python -m pytest -p support.pretend …`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._device import _device_constructors
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
_setup_privateuseone_for_python_backend(NAME)
DEVICE = torch.device(NAME, 0)
aten = torch.ops.aten
BETWEEN = {
    aten.copy_.default,
    aten._to_copy.default,
    aten.index.Tensor,
    aten.index_put_.default,
    aten.index_put.default,
    aten._index_put_impl_.default,
}
"""What takes tensors of two devices on a real accelerator too; an index may lie on the CPU."""


class Pretend(Tensor):
    """A tensor on the pretend device."""

    own: Tensor

    @staticmethod
    def __new__(cls, own: Tensor) -> "Pretend":
        made = Tensor._make_wrapper_subclass(
            cls, own.shape, strides=own.stride(), storage_offset=own.storage_offset(), dtype=own.dtype, device=DEVICE
        )
        made.own = own
        return made

    def __repr__(self) -> str:
        return f"Pretend({self.own})"

    def __getitem__(self, index: Any) -> Tensor:
        parts = index if isinstance(index, tuple) else (index,)
        return super().__getitem__(tuple(torch.tensor(part) if isinstance(part, list) else part for part in parts))

    def tolist(self) -> Any:
        return self.own.tolist()

    def data_ptr(self) -> int:
        return self.own.data_ptr()

    def __deepcopy__(self, memo: Any) -> Tensor:
        return memo.setdefault(id(self), self.detach().clone().requires_grad_(self.requires_grad))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


def run(func: Any, args: Any, kwargs: Any) -> Any:
    """Run an operation on the CPU's tensors; what comes out is on the device that it would be on.

    Raises:
        RuntimeError: tensors of more than no dimensions are on both.
    """
    tensors: list[Tensor] = []
    mapped([args, kwargs], lambda each: tensors.append(each) if isinstance(each, Tensor) else None)
    here = any(isinstance(each, Pretend) for each in tensors)
    if here and func not in BETWEEN:
        alien = next((each for each in tensors if not isinstance(each, Pretend) and each.dim()), None)
        if alien is not None:
            raise RuntimeError(f"{func}: tensors are on {DEVICE} and on {alien.device}")
    if func is aten.copy_.default:
        getattr(args[0], "own", args[0]).copy_(getattr(args[1], "own", args[1]))
        return args[0]
    to = kwargs.get("device")
    stays = here if to is None else torch.device(to).type == NAME
    wrapped = {id(each.own): each for each in tensors if isinstance(each, Pretend)}
    out = func(*mapped(args, _inner), **mapped(kwargs, _inner))

    def outer(each: Any) -> Any:
        if not isinstance(each, Tensor) or not stays:
            return each
        return wrapped[id(each)] if id(each) in wrapped else Pretend(each)

    return mapped(out, outer)


def mapped(tree: Any, of: Callable[[Any], Any]) -> Any:
    """Return what an operation is given or gives, with the image of each leaf; torch's own takes most of a run."""
    kind = type(tree)
    if kind is list or kind is tuple:
        return kind([mapped(each, of) for each in tree])
    if kind is dict:
        return {name: mapped(each, of) for name, each in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return kind(*(mapped(each, of) for each in tree))
    return of(tree)


def _inner(each: Any) -> Any:
    if isinstance(each, Pretend):
        return each.own
    return torch.device("cpu") if isinstance(each, torch.device) and each.type == NAME else each


_tensor = torch.tensor


def tensor(data: Any, *, device: Any = None, **kwargs: Any) -> Tensor:
    """Return what `torch.tensor` does, which makes none on such a device."""
    if device is not None and torch.device(device).type == NAME:
        return _tensor(data, device="cpu", **kwargs).to(device)
    return _tensor(data, device=device, **kwargs)


_device_constructors()  # remembers torch's own, which `with torch.device(…)` goes by
torch.tensor = tensor
_library = torch.library.Library("_", "IMPL")
_library.fallback(lambda op, *args, **kwargs: run(op, args, kwargs), "PrivateUse1")
