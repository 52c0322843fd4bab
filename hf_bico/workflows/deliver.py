"""A finished result as a folder that is whole or not there, and as one commit: for ports, live ports and maps."""

import re
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from hf_bico.core.errors import PortError
from hf_bico.core.method import Track, untracked
from hf_bico.io.hub import Hub
from hf_bico.io.writer import require_room, staged
from hf_bico.workflows.destination import OPENS, Destination


@dataclass(frozen=True)
class Delivery:
    """Where a result goes: a folder, a repo, both or neither."""

    what: str
    """Subject and verb of the words that say where it is kept if its push fails: "port is"."""
    output: Path | None
    destination: Destination | None
    opens: re.Pattern[str] = OPENS
    """Files of an earlier push that would open in place of the new ones."""
    overwrite: bool = False
    """Whether a folder that is there is replaced."""

    def require_room(self, size: int) -> None:
        """Refuse, before the work, a result of so many bytes that cannot be kept.

        Raises:
            PortError: the folder is in use, or the disk is full.
        """
        require_room(self.output or Path(tempfile.gettempdir()) / "hf-bico-output", size, overwrite=self.overwrite)

    def send(self, fill: Callable[[Path, str | None], None], hub: Hub, track: Track = untracked) -> str | None:
        """Write the folder, push it, and return the URL of the commit or pull request; None without a push.

        Args:
            fill: writes everything into a staged folder, given the repo's name or None.

        Raises:
            PortError: the folder cannot be written; the push failed, and the error says where the result is kept.
        """
        if self.output is None and self.destination is None:
            return None
        with ExitStack() as stack:
            place = self.output
            if place is None:
                folder = Path(tempfile.mkdtemp(prefix="hf-bico-"))
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
                place = folder / "ported"
            with staged(place, overwrite=self.overwrite) as stage:
                fill(stage, self.destination.repo if self.destination else None)
            url = None
            for to in track([self.destination] if self.destination else [], "Pushing", 1):
                try:
                    url = _push(hub, place, to, self.opens)
                except PortError as error:
                    stack.pop_all()  # keep the folder: it took long to make
                    raise PortError(f"{error.message} (the {self.what} kept in {place})") from error
        return url


def _push(hub: Hub, place: Path, to: Destination, opens: re.Pattern[str]) -> str:
    return hub.push(
        place,
        to.repo,
        parent=to.parent,
        message=to.message,
        private=to.private,
        create_pr=to.create_pr,
        stale=to.left_over(opens),
    )
