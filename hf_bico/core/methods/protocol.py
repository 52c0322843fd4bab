"""What every method is to the rest of the tool."""

from collections.abc import Iterator, Sequence
from typing import ClassVar, Protocol

from hf_bico.core.moments import Evidence
from hf_bico.core.types import Map, Pair, Signal


class Method(Protocol):
    """A frozen dataclass whose fields are the method's options."""

    name: ClassVar[str]
    citation: ClassVar[str]
    summary: ClassVar[str]
    """What it does, in the card's words."""
    signals: ClassVar[frozenset[Signal]]
    """What must be collected for every pair before `plan`."""

    def plan(self, pairs: Sequence[Pair], evidence: Evidence) -> Iterator[tuple[Pair, Map]]:
        """A map for every pair, in order. It never sees τ, so one plan serves every fine-tune and every α."""
        ...
