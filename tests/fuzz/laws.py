"""What may come of damage: the right thing, or one line, within half a minute and two gigabytes."""

import atexit
import json
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings

from hf_bico import PortError

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
"""How many are tried of each kind of input."""
SEED = os.environ.get("FUZZ_SEED")
"""Set where a run is to try others; in CI all runs try the same."""
ROOM = 2 << 30
"""Bytes that may be taken more than are held already."""
LONGEST = 4_000
"""Characters of a line of an error; a list of layers is one."""

fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=timedelta(seconds=30),
    derandomize=SEED is None,
    database=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
)
"""How an input is fuzzed."""


class Tally:
    """How many examples were taken as right and how many were refused, by kind of input."""

    def __init__(self) -> None:
        self.counts: dict[str, dict[str, int]] = {}
        if "FUZZ_TALLY" in os.environ:
            atexit.register(self.write, Path(os.environ["FUZZ_TALLY"]) / f"{os.getpid()}.json")

    def add(self, kind: str, outcome: str) -> None:
        row = self.counts.setdefault(kind, {"right": 0, "one line": 0})
        row[outcome] += 1

    def write(self, place: Path) -> None:
        if self.counts:
            place.write_text(json.dumps(self.counts))


TALLY = Tally()


@contextmanager
def right_or_one_line(kind: str) -> Iterator[None]:
    """Let the block end well, or by a `PortError` of one line; anything else is a failure."""
    with _bounded():
        try:
            yield
        except PortError as error:
            said = str(error)
            assert said.isprintable(), repr(said)
            assert 8 < len(said) < LONGEST, said
            TALLY.add(kind, "one line")
            return
        except Exception as error:
            if not isinstance(error, AssertionError):
                raise AssertionError(f"neither right nor one line: {type(error).__name__}: {error}") from error
            raise
    TALLY.add(kind, "right")


@contextmanager
def _bounded() -> Iterator[None]:
    """Let the block take no more memory than `ROOM` above what is held; what asks for more gets a MemoryError."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else None
    if pages is not None:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


_moments = count(time.time_ns())


@contextmanager
def put(folder: Path, name: str, data: bytes) -> Iterator[Path]:
    """Let a folder hold other bytes in a file while the block runs, written at a moment of their own."""
    place = folder / name
    before = place.read_bytes() if place.exists() else None
    try:
        _written(place, data)
        yield folder
    finally:
        if before is None:
            place.unlink()
        else:
            _written(place, before)


def _written(place: Path, data: bytes) -> None:
    place.write_bytes(data)
    moment = next(_moments)  # clocks of file systems are slow, and what has not changed is not read again
    os.utime(place, ns=(moment, moment))
