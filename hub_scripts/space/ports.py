"""Checks and ports as visitors of a page may ask for them: repos of the Hub alone, of bounded size, for a bounded time.

They run as a library (`hf_bico.workflows`). A push is held back until the visitor has seen the port and asks for it.
"""

import re
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bounds

from hf_bico.core.errors import PortError, setting
from hf_bico.core.method import Track
from hf_bico.core.methods import METHODS
from hf_bico.io.hub import Hub
from hf_bico.io.reference import Pinned
from hf_bico.workflows import check, port
from hf_bico.workflows.config import CheckConfig, PortConfig
from hf_bico.workflows.dry_run import dry_run

BOUNDS = bounds.BOUNDS
REPO = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?(@[\w./-]+)?")
Show = Callable[[int, int, str], None]
"""(how many are done, of how many, what) tells a visitor how far it is."""


def unseen(done: int, total: int, what: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Held:
    """A push that waits for its visitor's word."""

    folder: Path
    repo: str
    how: dict[str, Any]

    def send(self, token: str) -> str:
        """Push with the visitor's own token, and return the commit's URL.

        Raises:
            PortError: the result is no longer kept, or the Hub refuses.
        """
        if not self.folder.is_dir():
            raise PortError("this port is no longer kept here: port it again")
        return Hub(token).push(self.folder, self.repo, **self.how)


class Door(Hub):
    """The Hub as visitors reach it.

    Args:
        token: the visitor's own; None reads what everyone may read.
    """

    def __init__(self, token: str | None = None) -> None:
        super().__init__(token)
        self.held: Held | None = None

    def resolve(self, text: str, kind: str = "model") -> Pinned:
        """Return a repo pinned to a commit; see `Hub.resolve`.

        Raises:
            PortError: it is no repo's name, such as a path, also where a card names it; it is too large.
        """
        name = text.strip().removeprefix("hf://")
        if not REPO.fullmatch(name) or ".." in name:
            raise PortError(f"{name!r} is no repo of the Hub: give a name such as org/name or org/name@revision")
        pinned = super().resolve(f"hf://{name}", kind)
        most = BOUNDS.model_mb if kind == "model" else BOUNDS.dataset_mb
        size = self._bytes(pinned) / 1e6
        if size > most:
            raise PortError(
                f"{name} has {size:,.0f} MB, and this page takes {most:,} MB at most: use hf-bico on your own machine"
            )
        return pinned

    def _bytes(self, pinned: Pinned) -> int:
        """Return the size of a model's weights, or of a whole dataset."""
        with self.hub_errors_as_one_line(str(pinned), pinned.name, pinned.kind):
            info = self.api.repo_info(pinned.name, revision=pinned.commit, repo_type=pinned.kind, files_metadata=True)
        ends = ".safetensors" if pinned.kind == "model" else ""
        return sum(each.size or 0 for each in info.siblings or () if each.rfilename.endswith(ends))

    def push(self, folder: Path, repo: str, **how: Any) -> str:
        """Hold a push back; return where it would go."""
        self.held = Held(folder, repo, how)
        return f"{self.api.endpoint}/{repo}"


@dataclass(frozen=True)
class Made:
    """A port that waits to be taken away."""

    outcome: port.Outcome
    folder: Path
    held: Held | None
    """Its push, where the visitor has logged in and the verdict allows it."""

    @property
    def card(self) -> str:
        """Its card without the metadata."""
        return (self.folder / "README.md").read_text(encoding="utf-8").split("\n---\n", 1)[1]

    def zipped(self) -> str:
        """Return a file that has all of it."""
        name = self.outcome.report["lineage"]["target"]["name"].split("/")[-1]
        return shutil.make_archive(str(self.folder.parent / f"port-to-{name}"), "zip", self.folder)

    def drop(self) -> None:
        """Throw it away."""
        shutil.rmtree(self.folder.parent, ignore_errors=True)


_kept: deque[Made] = deque()


def keep(made: Made) -> Made:
    """Keep a port until there are too many, and return it."""
    _kept.append(made)
    while len(_kept) > BOUNDS.kept:
        _kept.popleft().drop()
    return made


OWN_MACHINE = "take fewer samples or one method by its name, or use hf-bico on your own machine"


class TooLong(Exception):
    """Raised in the midst of what takes too long. It is no PortError: a check would make a verdict of that."""


@contextmanager
def bounded(show: Show) -> Iterator[Track]:
    """Yield what shows the progress of a visit, and stop what takes too long; what was fetched is tidied up then.

    Raises:
        PortError: it took too long.
    """
    end = time.monotonic() + BOUNDS.seconds

    def track(items: Iterable[Any], what: str, total: int) -> Iterable[Any]:
        for done, item in enumerate(items):
            if time.monotonic() > end:
                raise TooLong
            show(done, total, what)
            yield item

    try:
        yield track
    except TooLong as error:
        raise PortError(f"stopped after {BOUNDS.seconds} s, the most on this page: {OWN_MACHINE}") from error
    finally:
        bounds.tidy()


@dataclass(frozen=True)
class Asked:
    """What a visitor asks for; an empty box is None or ""."""

    source: str | None
    target: str | None
    dataset: str | None = ""
    base: str | None = ""
    samples: int = 100
    method: str = "auto"
    scored: int = 200
    push_to: str | None = ""
    """The repo to push to; by default SOURCE-on-TARGET in the visitor's own namespace."""

    def __post_init__(self) -> None:
        require_at_most("samples", self.samples, BOUNDS.samples)
        require_at_most("scored samples", self.scored, BOUNDS.scored)
        for name in ("source", "target", "dataset", "base", "push_to"):
            object.__setattr__(self, name, (getattr(self, name) or "").strip())

    def choices(self) -> dict[str, Any]:
        """Return what checks and ports share."""
        named = {"source": self.source, "target": self.target, "dataset": self.dataset}
        return named | {"base": self.base or None, "n": self.samples, "memory": f"{BOUNDS.memory_mb}MB"}


def checked(asked: Asked, show: Show = unseen) -> dict[str, Any]:
    """Return what a check finds, as `hf-bico check --format json` prints it.

    Raises:
        PortError: what `hf_bico.workflows.check.run` refuses, or more than the bounds.
    """
    with bounded(show) as track:
        return check.run(CheckConfig(**asked.choices()), Door(), track)


def ported(asked: Asked, show: Show = unseen, token: str | None = None) -> Made:
    """Return a port, scored and written to a folder of its own.

    Args:
        token: the visitor's own; with it a push is prepared.

    Raises:
        PortError: what `hf_bico.workflows.port.run` refuses, or more than the bounds.
    """
    if not asked.dataset:
        raise PortError(f"a port needs samples of the task: give {setting('dataset')}")
    bounds.PLACE.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="port-", dir=bounds.PLACE)) / "ported"
    to = {"push": True, "push_to": asked.push_to or None} if token else {}
    config = PortConfig(**asked.choices(), method=asked.method, eval_n=asked.scored, output=folder, **to)
    door = Door(token)
    try:
        with bounded(show) as track:
            _, cost = dry_run(config, door)
            if cost.seconds > BOUNDS.seconds:
                raise PortError(
                    f"this port would take about {cost.seconds:,.0f} s, and {BOUNDS.seconds} s is the most on this "
                    f"page: {OWN_MACHINE}"
                )
            return Made(port.run(config, door, track), folder, door.held)
    except BaseException:
        shutil.rmtree(folder.parent, ignore_errors=True)
        raise


def require_at_most(what: str, n: int, most: int) -> None:
    """Refuse more of something than there may be.

    Raises:
        PortError: there is.
    """
    if not isinstance(n, int) or not 1 <= n <= most:
        raise PortError(f"{n} {what}: this page takes 1 to {most}")


def methods() -> list[dict[str, str]]:
    """Return the methods that a port may be made by, with what each does."""
    return [{"name": name, "summary": kind().summary} for name, kind in METHODS.items()]
