"""Folders beside a place, in which what will be there is made; those that a killed process left are removed."""

import ctypes
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

EXCHANGE = 2
"""Linux's RENAME_EXCHANGE."""
LOCK = ".at-work"
"""What the name of a folder's lock ends in: a file beside it, there as long as the folder. The process that works in
the folder holds it locked, and the system unlocks it however that process ends.
"""


@contextmanager
def beside(place: Path) -> Iterator[Path]:
    """Yield a new folder beside a place, to make it in, and remove the folder at the end.

    What processes that are gone left of their own for the same place is removed first.
    """
    for left in place.parent.glob(f".{glob.escape(place.name)}-*{LOCK}"):
        _remove_if_left(left)
    lock, held = _new_lock(place)
    folder = _folder_of(lock)
    try:
        folder.mkdir(0o700)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        held.close()
        lock.unlink(missing_ok=True)


def replace(place: Path, stage: Path, aside: Path) -> None:
    """Move a finished folder to where another is, which is moved out of the way first; it is never half there.

    Where the system can (Linux), the two change places in one step. Else the other is put back if the move fails.

    Args:
        aside: where the other goes, or stays at `stage`; whoever calls removes both.
    """
    if _exchanged(place, stage):
        return
    try:
        place.rename(aside)
        stage.rename(place)
    except BaseException:
        if aside.exists() and not place.exists():
            aside.rename(place)
        raise


def _exchanged(a: Path, b: Path) -> bool:
    """Let two paths change places; return whether the system and the disk can do that."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    here = -100  # AT_FDCWD: relative paths begin in the working folder
    return bool(call(here, os.fsencode(a), here, os.fsencode(b), EXCHANGE) == 0)


def _folder_of(lock: Path) -> Path:
    return lock.with_name(lock.name.removesuffix(LOCK))


def _new_lock(place: Path) -> tuple[Path, IO[str]]:
    """Make a lock, and return it with what holds it; another if a process took it for left before it was locked."""
    while True:
        number, name = tempfile.mkstemp(LOCK, f".{place.name}-", place.parent)
        held = os.fdopen(number, "w")
        if _is_mine(held, otherwise=True) and os.path.exists(name):
            return Path(name), held
        held.close()


def _remove_if_left(lock: Path) -> None:
    """Remove a folder and its lock if no process holds that; what cannot be removed stays."""
    with suppress(OSError), lock.open("r+") as file:
        if _is_mine(file, otherwise=False):
            shutil.rmtree(_folder_of(lock), ignore_errors=True)
            lock.unlink()


def _is_mine(file: IO[str], *, otherwise: bool) -> bool:
    """Lock a file until it is closed, and return whether no other process holds it.

    Args:
        otherwise: what is returned where the system or the disk has no such locks.
    """
    if os.name == "nt":
        return otherwise
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return otherwise
    return True
