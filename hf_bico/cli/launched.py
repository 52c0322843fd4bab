"""A command that a launcher started as several processes: they join, one of them talks, and they end together."""

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, NamedTuple, NoReturn, TextIO

JOINING, WORKING = timedelta(minutes=5), timedelta(days=30)
"""How long processes wait for one another: at the start, and then, for one that scores or pushes takes its time."""
SIZE = 4096
"""Bytes of the last word of a process to another."""
HEARING, LEAVING = 3.0, 10.0
"""Seconds that a process whose work broke off waits to hear why, and that one has to leave its work."""
STOPPED = 143
"""Exit code after a launcher's signal to stop."""


class Ending(NamedTuple):
    """How a process ended."""

    code: int
    line: str | None = None
    """What is to be told of it; None if that was told already, or there is nothing to tell."""

    def packed(self) -> bytes:
        """Return it as a message of `SIZE` bytes."""
        line = self.line and self.line[: SIZE // 8]  # JSON spells a letter with six bytes at most
        return json.dumps([self.code, line]).encode().ljust(SIZE)

    @classmethod
    def unpacked(cls, message: bytes) -> "Ending":
        """Return what was packed."""
        return cls(*json.loads(message))


class Ended(BaseException):
    """Raised in the main thread when another process has ended, or the launcher wants this one to."""


def is_launched() -> bool:
    """Return whether a launcher (accelerate launch, torchrun) started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def run_together(run: Callable[[], Ending]) -> Ending:
    """Run a command in every process of the launcher's group, and return how they ended, to tell in rank 0 alone.

    A process that fails, or dies, ends all of them: each with the same code, and with one message.
    """
    try:
        ranks = _join()
    except (OSError, RuntimeError, ValueError) as error:
        why = " ".join(str(error).split())
        told = "RANK and WORLD_SIZE say that this is one of several processes, which do not find one another"
        return Ending(2, f"Error: {told}: unset them to run alone ({why})")
    from hf_bico.core.ranks import within

    loud, watch = sys.stderr, Watch(ranks.rank, ranks.world)
    if ranks.rank:  # rank 0 talks
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # until the process ends
    signal.signal(signal.SIGTERM, watch.stop)
    try:
        with within(ranks):
            ending = _ran(run, watch, loud)
        watch.close()
    except Ended:
        watch.close()
        watch.heard.wait(HEARING)
        ending = Ending(STOPPED, "Error: the launcher stopped all processes; nothing was written")
    sys.stderr = loud
    return watch.ended(ending)


def _ran(run: Callable[[], Ending], watch: "Watch", loud: TextIO) -> Ending:
    """Return how a command ended; an error of its own is shown, one that comes of another process's end is not."""
    try:
        return run()
    except Exception:
        if not watch.heard.wait(HEARING):
            traceback.print_exc(file=loud)
        return Ending(1)


def leave(code: int) -> NoReturn:
    """End this process at once; threads that still wait for another would have it abort."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _join() -> Any:
    """Return the ranks of the launcher's group; this process takes the accelerator of its number.

    Raises:
        RuntimeError: the others did not come in time, or their address is no good.
    """
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    from hf_bico.core.device import take
    from hf_bico.core.ranks import Group

    take(int(os.environ.get("LOCAL_RANK", "0")))
    store, rank, world = next(rendezvous("env://", timeout=JOINING))
    store.add("hf_bico/here", 1)
    until = time.monotonic() + JOINING.total_seconds()
    while store.add("hf_bico/here", 0) < world:
        if time.monotonic() > until:
            raise RuntimeError(f"not all {world} came in {JOINING.total_seconds():.0f} s")
        time.sleep(0.05)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=WORKING)
    return Group()


class Watch:
    """Hears the last words of the other processes, each in a thread: rank 0 those of all, the others that of rank 0.

    Every process says one, and rank 0 tells the user; one that dies closes its connections, which is heard too. Then
    the main thread is stopped; if it does not come back in time, for it may wait for the dead one, the process ends all
    the same.
    """

    def __init__(self, rank: int, world: int) -> None:
        import torch.distributed as dist

        self.rank, self.world = rank, world
        self.words: Any = dist.new_group(backend="gloo", timeout=WORKING)
        self.first: Ending | None = None
        """The first bad ending that was heard of."""
        self.heard, self.over, self.stopped = threading.Event(), threading.Event(), False
        self.lock, self.said, self.turn = threading.Lock(), False, threading.Lock()
        self.peers = range(1) if rank else range(1, world)
        self.threads = [threading.Thread(target=self._hear, args=(peer,), daemon=True) for peer in self.peers]
        for thread in self.threads:
            thread.start()

    def stop(self, number: int, frame: object) -> None:
        """Leave the work that is being done, once."""
        if not self.over.is_set() and not self.stopped:
            self.stopped = True
            raise Ended

    def close(self) -> None:
        """Say that the work is over: from now on nothing stops the main thread, which then gives its signals back."""
        with self.turn:
            self.over.set()

    def interrupt(self) -> None:
        """Stop the main thread, whatever it waits for, unless its work is over."""
        with self.turn:
            if not self.over.is_set():
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    def ended(self, ending: Ending) -> Ending:
        """Say how this process ended, and return how it is to end: as the first that failed did, told by rank 0."""
        heard = self.first if ending.code else None
        found = heard or ending
        self._say(found)
        if found.code:  # what is heard from now on, while this process speaks, makes it tell no more
            return found if self.rank == 0 or heard else found._replace(line=None)
        for thread in self.threads:
            thread.join(LEAVING)
        return self.first or found

    def _hear(self, peer: int) -> None:
        """Wait for the last word of a process; a bad one ends this process too."""
        word = self._word_of(peer)
        if not word.code:
            return
        self.first = self.first or word
        self.heard.set()
        if not self.over.is_set():
            self._say(word)
            self.interrupt()
        if not self.over.wait(LEAVING):
            os.write(2, f"{word.line}\n".encode() if word.line else b"")
            os._exit(word.code)

    def _word_of(self, peer: int) -> Ending:
        import torch
        import torch.distributed as dist

        message = torch.zeros(SIZE, dtype=torch.uint8)
        try:
            dist.recv(message, src=peer, group=self.words)
        except RuntimeError:  # its connection is closed
            line = f"Error: process {peer} of {self.world} was killed or lost its connection; nothing was written"
            return Ending(1, line if self.rank == 0 or (self.rank, peer) == (1, 0) else None)
        return Ending.unpacked(message.numpy().tobytes())

    def _say(self, ending: Ending) -> None:
        """Say this process's word to those that listen, if it has said none yet; what rank 0 tells, no other must."""
        import torch
        import torch.distributed as dist

        with self.lock:
            said, self.said = self.said, True
        if not said:
            word = ending if self.rank else ending._replace(line=None)
            message = torch.frombuffer(bytearray(word.packed()), dtype=torch.uint8)
            for peer in self.peers:
                with suppress(RuntimeError):  # it is gone
                    dist.send(message, dst=peer, group=self.words)
