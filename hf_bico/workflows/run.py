"""What every workflow runs with."""

from collections.abc import Callable
from dataclasses import dataclass, field

from hf_bico.core.method import Track, untracked
from hf_bico.io.hub import Hub
from hf_bico.reports.report import Clock


@dataclass(frozen=True)
class Run:
    """The Hub, what shows the progress, and the clock of the stages."""

    hub: Hub
    track: Track = untracked
    clock: Clock = field(default_factory=Clock)
    notes: list[str] = field(default_factory=list)
    """What was read in another way than its owner may think, for the report."""
    spent: Callable[[], float | None] = lambda: None
    """Ends the measurement of the energy, and returns the kWh; see `hf_bico.reports.energy`."""
