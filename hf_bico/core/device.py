"""The one place that knows of accelerators: which there is, what memory is used, when work on it is done."""

import ctypes
import platform
import re
import resource
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
NARROW = {"mps"}
"""Accelerators without float64, which are taken when they are named alone."""


def usual() -> str:
    """Return the accelerator that torch finds here ("cuda", "xpu", …), else "cpu"; with the number that was taken of
    several, if that is not the first.
    """
    found = torch.accelerator.current_accelerator(check_available=True)
    if found is None or found.type in NARROW:
        return "cpu"
    number = torch.accelerator.current_device_index()
    return f"{found.type}:{number}" if number else found.type


def take(number: int) -> None:
    """Work on the accelerator of this number from now on; where there are fewer, they are taken in turns."""
    if count := torch.accelerator.device_count():
        torch.accelerator.set_device_index(number % count)


def device_of(model: nn.Module) -> torch.device:
    """Return where a model's first parameter lies."""
    return next(model.parameters()).device


def is_accelerator(device: str) -> bool:
    """Return whether a device has a memory of its own."""
    return torch.device(device).type not in ("cpu", "meta")


def title(device: str) -> str:
    """Return what a device calls itself."""
    return str(_asked(device, "get_device_name", device))


def restart_peak(device: str) -> None:
    """Count the peak of memory anew, as far as the system can (Linux can)."""
    if is_accelerator(device):
        _asked(device, "reset_peak_memory_stats", None)
    else:
        with suppress(OSError):
            _CLEAR.write_text("5")


def peak(device: str) -> int:
    """Return the most bytes in use since the count began: the accelerator's if it counts them, else the process's."""
    _asked(device, "synchronize", None)
    return int(_asked(device, "max_memory_allocated", None) or peak_memory())


def held(device: str) -> int:
    """Return bytes that are in use; of the CPU the most that were."""
    found = _asked(device, "memory_allocated", None)
    return peak_memory() if found is None else int(found)


def peak_memory() -> int:
    """Return the process's high-water mark of resident memory, in bytes."""
    with suppress(OSError):
        if found := re.search(r"VmHWM:\s+(\d+)", _STATUS.read_text()):
            return 1024 * int(found[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


def tidy() -> None:
    """Give free memory back to the system, where the C library keeps it: glibc does, for every thread apart."""
    if (trim := _trim()) is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    """Return glibc's `malloc_trim`; None where there is none."""
    if platform.system() != "Linux":
        return None
    found: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return found


def _asked(device: str, name: str, otherwise: Any) -> Any:
    """Return what a device's part of torch says; `otherwise` where it has no such function."""
    if not is_accelerator(device):
        return otherwise
    module: Any = torch.get_device_module(torch.device(device).type)
    return getattr(module, name)(device) if hasattr(module, name) else otherwise
