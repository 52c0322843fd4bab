"""Measures the time and memory of a piece of work."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from hf_bico.core.device import peak, restart_peak


class Meter:
    """Measures the seconds spent in its `with` blocks, and the peak memory in bytes during them.

    Memory is the accelerator's, or on the CPU the resident memory of the whole process. Where the system cannot reset
    its high-water mark (Linux can), the peak is that since the process began.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self.seconds, self.peak_bytes = 0.0, 0

    @contextmanager
    def __call__(self) -> Iterator["Meter"]:
        restart_peak(self.device)
        start = time.perf_counter()
        yield self
        found = peak(self.device)  # once what runs there has ended
        self.seconds += time.perf_counter() - start
        self.peak_bytes = max(self.peak_bytes, found)
