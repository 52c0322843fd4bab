"""Counts what a process does to the disk and the network, and breaks it at one of these events: for `support.forked`.

A fault by a count of events strikes at the same place on a slow machine and on a fast one.
"""

import errno
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

WRITES = ("os.mkdir", "os.rename", "os.link", "os.symlink", "os.truncate", "shutil.copyfile", "tempfile.mkstemp")
"""Events, by Python's names, that need room on a disk."""
OTHERS = ("os.remove", "os.rmdir", "os.chmod", "shutil.rmtree", "tempfile.mkdtemp", "socket.connect")
"""Events that do not."""
TALK = ("send", "sendall", "recv")
"""Methods of a socket; Python has no events of them."""


class Events:
    """An audit hook that counts, and strikes.

    Args:
        root: the folder whose files count.
        case: `at`, the number of the event to strike at, from 1, or None; `then`, a signal's name or "ENOSPC", which
            is raised at each event from there on, as a disk stays full.
    """

    def __init__(self, root: str, case: Mapping[str, Any]) -> None:
        self.root, self.at, self.then = root, case.get("at"), case.get("then", "")
        self.full, self.numbers, self.names = self.then == "ENOSPC", count(1), []

    def install(self) -> None:
        """Listen until the process ends."""
        sys.addaudithook(self)
        for name in TALK:
            setattr(socket.socket, name, self._counted(getattr(socket.socket, name), name))

    def __call__(self, event: str, args: tuple) -> None:
        if event == "open":
            path, mode, flags = args
            if self._inside(path):
                writes = bool(flags & (os.O_WRONLY | os.O_RDWR)) if isinstance(flags, int) else set("wax+") & set(mode)
                self._seen(f"open {path}", bool(writes))
        elif event in WRITES + OTHERS and (event == "socket.connect" or any(self._inside(each) for each in args)):
            self._seen(f"{event} {args[0] if isinstance(args[0], str) else ''}", event in WRITES)

    def _inside(self, path: Any) -> bool:
        return isinstance(path, str | os.PathLike) and os.path.abspath(path).startswith(self.root)

    def _counted(self, right: Callable, name: str) -> Callable:
        def talk(of: socket.socket, *args: Any) -> Any:
            self._seen(name, False)
            return right(of, *args)

        return talk

    def _seen(self, name: str, writes: bool) -> None:
        if self.full and not writes:
            return
        number = next(self.numbers)
        self.names.append(name)
        if self.at is None or number < self.at:
            return
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if number == self.at:
            os.kill(os.getpid(), getattr(signal, self.then))


def small_files(size: int) -> None:
    """Let no file of this process grow beyond a size, in bytes; a write beyond is an error, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
