"""Measures the time and memory of a piece of work."""

import platform
import re
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Meter:
    """Measures the seconds spent in its `with` blocks, and the peak memory in bytes during them.

    Memory is the device's on CUDA, else the resident memory of the whole process. Where the system cannot reset its
    high-water mark (Linux can), the peak is that since the process began.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self.seconds, self.peak_bytes = 0.0, 0

    @contextmanager
    def __call__(self) -> Iterator["Meter"]:
        self._restart()
        start = time.perf_counter()
        yield self
        self.seconds += time.perf_counter() - start
        self.peak_bytes = max(self.peak_bytes, self._peak())

    def _restart(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            with suppress(OSError):
                _CLEAR.write_text("5")

    def _peak(self) -> int:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)
            return torch.cuda.max_memory_allocated(self.device)
        return peak_memory()


def peak_memory() -> int:
    """Return the process's high-water mark of resident memory, in bytes."""
    with suppress(OSError):
        if found := re.search(r"VmHWM:\s+(\d+)", _STATUS.read_text()):
            return 1024 * int(found[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)
