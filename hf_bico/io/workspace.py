"""Where a long port keeps what it has done, so that an interrupted one picks up where it was."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from huggingface_hub import cached_assets_path
from safetensors.torch import save_file

from hf_bico.core.errors import PortError
from hf_bico.core.methods import Method
from hf_bico.core.moments import Statistics
from hf_bico.core.types import Pair
from hf_bico.io.checkpoints import SafeTensors
from hf_bico.io.writer import staged

EVERY = 60.0
"""Seconds between two writes of the moments; at most so much is lost."""


class Workspace:
    """A folder in the cache for one port, named by a hash of all that its result depends on; gone when it is done."""

    def __init__(self, key: dict[str, Any]) -> None:
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
        self.folder: Path = cached_assets_path("hf_bico", namespace="ports", subfolder=digest)
        self.moments, self.facts = self.folder / "moments.safetensors", self.folder / "facts.json"
        self.batches, self.saved = 0, time.monotonic()

    def statistics(self, pairs: Iterable[Pair], method: Method) -> Statistics:
        """The moments so far; `batches` says of how many batches."""
        statistics = Statistics(pairs, method.signals, method.draws)
        if self.moments.exists():
            try:
                tensors = SafeTensors(self.moments)
                statistics.load_state_dict(tensors)
                self.batches = int(tensors.metadata["batches"])
            except (PortError, KeyError):
                statistics, self.batches = Statistics(pairs, method.signals, method.draws), 0
        return statistics

    def after_batch(self, statistics: Statistics) -> None:
        """Count a batch, and write the moments if the last time is long ago."""
        self.batches += 1
        if time.monotonic() - self.saved >= EVERY:
            with staged(self.moments) as stage:
                save_file(statistics.state_dict(), stage, metadata={"batches": str(self.batches)})
            self.saved = time.monotonic()

    def _facts(self) -> dict[str, Any]:
        return json.loads(self.facts.read_text()) if self.facts.exists() else {}

    def has(self, name: str) -> bool:
        """Whether a value was computed already."""
        return name in self._facts()

    def once(self, name: str, compute: Callable[[], Any]) -> Any:
        """A JSON value that is computed at most once, also over several starts."""
        facts = self._facts()
        if name not in facts:
            facts[name] = compute()
            with staged(self.facts) as stage:
                stage.write_text(json.dumps(facts))
        return facts[name]

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
