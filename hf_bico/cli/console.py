"""How a command talks: results on stdout, everything else on stderr."""

import json
import logging
import threading
from enum import StrEnum
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

interrupted = threading.Event()
"""Set by Ctrl-C, for the libraries below that swallow its exception."""
stderr = Console(stderr=True, highlight=False, soft_wrap=True)


class Format(StrEnum):
    """How results are printed."""

    HUMAN = "human"
    JSON = "json"
    QUIET = "quiet"


class Terminal:
    """How a command talks in the chosen format."""

    def __init__(self, format: Format, quiet: bool) -> None:
        self.format = Format.QUIET if quiet else format
        self.out = Console(highlight=False, soft_wrap=True)
        self._told: set[str] = set()
        _quieten_libraries()
        _tell_warnings(self.format)

    def track(self, items, what: str, total: int):
        """Yield the items, with a progress bar on stderr while they pass; where that is no terminal, with a line when a
        stage first begins.
        """
        bare = self.format is Format.QUIET or not stderr.is_terminal
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=stderr, disable=bare, transient=True) as progress:
            for item in progress.track(items, total=total, description=what):
                if interrupted.is_set():  # a library below swallowed it
                    raise KeyboardInterrupt
                self._tell(what)
                yield item

    def _tell(self, what: str) -> None:
        if self.format is not Format.QUIET and not stderr.is_terminal and what not in self._told:
            self._told.add(what)
            stderr.print(f"{what} …", markup=False)

    def say(self, human: Any, data: Any, quiet: str) -> None:
        """Print the result, in the one form that was asked for."""
        if self.format is Format.HUMAN:
            self.out.print(human)
        elif self.format is Format.JSON or quiet:
            print(json.dumps(data, ensure_ascii=False) if self.format is Format.JSON else quiet)

    def add(self, *lines: str) -> None:
        """Print more of the result, for human readers alone."""
        if self.format is Format.HUMAN:
            for line in lines:
                self.out.print(line, markup=False)

    def note(self, line: str) -> None:
        """Print what was read in another way than its owner may think."""
        self.warn(f"Note: {line}")

    def warn(self, line: str) -> None:
        """Print a line on stderr, unless only the result was asked for."""
        if self.format is not Format.QUIET:
            stderr.print(line, markup=False)


def _quieten_libraries() -> None:
    """Silence the libraries' chatter, and their bars, which stay on the screen and count every small file."""
    import datasets
    import huggingface_hub

    for name in ("httpx2", "httpx", "open_clip", "huggingface_hub", "datasets"):
        logging.getLogger(name).setLevel(logging.ERROR)
    huggingface_hub.utils.disable_progress_bars()
    datasets.disable_progress_bars()


class _Told(logging.Handler):
    """Prints our own warnings on stderr, around a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        stderr.print(record.getMessage(), markup=False)


def _tell_warnings(format: Format) -> None:
    logger = logging.getLogger("hf_bico")
    for handler in [each for each in logger.handlers if isinstance(each, _Told)]:
        logger.removeHandler(handler)
    logger.addHandler(_Told(logging.ERROR if format is Format.QUIET else logging.WARNING))
