"""Folders beside a place, in which what will be there is made; those that a killed process left are removed."""

import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

LOCK = ".hf_bico-at-work"
"""A file in each of them, locked by the process that works there: the system unlocks it however that process ends."""


@contextmanager
def beside(place: Path) -> Iterator[Path]:
    """Yield a new folder beside a place, to make it in, and remove the folder at the end.

    What processes that are gone left of their own for the same place is removed first.
    """
    for left in place.parent.glob(f".{glob.escape(place.name)}-*/{LOCK}"):
        _remove_if_left(left)
    with tempfile.TemporaryDirectory(prefix=f".{place.name}-", dir=place.parent) as folder:
        new = Path(folder, f"{LOCK}-new")
        with new.open("w") as lock:
            _locked(lock)
            new.rename(Path(folder, LOCK))  # it is seen when it is locked, so that no other takes it for left
            yield Path(folder)


def _remove_if_left(lock: Path) -> None:
    """Remove a folder if no process holds its lock; what cannot be removed stays."""
    with suppress(OSError), lock.open("r+") as file:
        if _locked(file):
            shutil.rmtree(lock.parent, ignore_errors=True)


def _locked(file: IO[str]) -> bool:
    """Lock a file until it is closed, and return whether it is; not where the system has no such locks."""
    if os.name == "nt":
        return False
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another has it, or a file system without locks
        return False
    return True
