"""Where a long port saves its progress, so that an interrupted one resumes where it was."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import copy
from pathlib import Path
from typing import Any

from huggingface_hub import cached_assets_path, constants
from safetensors.torch import save_file

from hf_bico.core.errors import PortError
from hf_bico.core.low_rank import Delta
from hf_bico.core.moments import Statistics
from hf_bico.core.ranks import here
from hf_bico.core.transport import Transported
from hf_bico.io.checkpoints import SafeTensors
from hf_bico.io.kept import read_part, write_part
from hf_bico.io.writer import staged

EVERY = 60.0
"""Seconds between two writes of the statistics; about as much work is lost at most."""


class Workspace:
    """A folder in the cache for one port, named by a hash of all that its result depends on.

    It lets a collection resume (`hf_bico.core.chain.Resume`), and is removed with `clear` when the port is done. Of
    several ranks every one has a folder of its own, with the sums of its own share; all go by the facts of rank 0.

    Args:
        key: all that the result depends on, as plain JSON data.

    Raises:
        PortError: the folder cannot be made.
    """

    def __init__(self, key: Mapping[str, Any]) -> None:
        ranks = here()
        share = {"share": [ranks.rank, ranks.world]} if ranks.world > 1 else {}
        digest = hashlib.sha256(json.dumps(dict(key) | share, sort_keys=True).encode()).hexdigest()[:32]
        try:
            self.folder: Path = cached_assets_path("hf_bico", namespace="ports", subfolder=digest)
        except (OSError, ValueError) as error:  # the client's own, for a file in place of the folder
            raise PortError(
                f"no progress can be kept under {constants.HF_ASSETS_CACHE} ({error}): make room there, or "
                "name another folder in HF_ASSETS_CACHE"
            ) from error
        self.statistics, self.facts = self.folder / "moments.safetensors", self.folder / "facts.json"
        self.batches, self.saved = 0, time.monotonic()

    def group(self, name: str) -> "Workspace":
        """Return the same place with statistics of a group's own."""
        found = copy(self)
        found.statistics, found.batches, found.saved = self._of(name, "moments"), 0, time.monotonic()
        return found

    def moved(self, name: str, like: Delta) -> Transported | None:
        """Return a group that was moved before, by every rank; None if it was not."""
        place, found = self._of(name, "moved"), None
        if place.exists():
            with suppress(PortError, KeyError, ValueError, TypeError):  # of another version, or cut short: move it anew
                found = read_part(place, like)
        return found if all(here().exchanged(f"{name} before", found is not None)) else None

    def keep(self, name: str, part: Transported) -> Transported:
        """Write a group that was moved, free its statistics' file, and return it as read from the disk."""
        write_part(self._of(name, "moved"), part)
        self._of(name, "moments").unlink(missing_ok=True)
        return read_part(self._of(name, "moved"), part.delta)

    def _of(self, name: str, what: str) -> Path:
        return self.folder / f"{what}-{name}.safetensors"

    def load(self, fresh: Statistics) -> tuple[Statistics, int]:
        """Return the statistics so far, and how many batches went into them."""
        if self.statistics.exists():
            try:
                tensors = SafeTensors(self.statistics)
                batches = int(tensors.metadata["batches"])
                fresh.load_state_dict(tensors)
                self.batches = batches
            except (PortError, KeyError, ValueError):  # of another version, or cut short: collect anew
                self.batches = 0
        return fresh, self.batches

    def after_batch(self, seen: Statistics) -> None:
        """Count a batch, and write the statistics if the last write is `EVERY` seconds ago."""
        self.batches += 1
        if time.monotonic() - self.saved >= EVERY:
            with staged(self.statistics) as stage:
                save_file(seen.state_dict(), stage, metadata={"batches": str(self.batches)})
            self.saved = time.monotonic()

    def _known(self) -> dict[str, Any]:
        return json.loads(self.facts.read_text()) if self.facts.exists() else {}

    def has(self, name: str) -> bool:
        """Return whether the value of this name was computed already."""
        return name in self._known()

    def once(self, name: str, compute: Callable[[], Any]) -> Any:
        """Return a JSON value that is computed at most once, also across restarts."""
        ranks = here()
        facts = ranks.first("what is known", self._known)
        if name not in facts:
            facts[name] = ranks.exchanged(name, compute())[0]
            ranks.first("what is remembered", lambda: self._remember(facts))
        return facts[name]

    def _remember(self, facts: Mapping[str, Any]) -> None:
        with staged(self.facts) as stage:
            stage.write_text(json.dumps(facts))

    def clear(self) -> None:
        """Remove the folder and all that is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
