"""What every method is to the rest of the tool."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from hf_bico.core.collect import Batch, Side
from hf_bico.core.errors import PortError, listed
from hf_bico.core.moments import Statistics
from hf_bico.core.transport import Transported, transport
from hf_bico.core.types import OF_LOSS, Map, Pair, Signal, Tensors

Track = Callable[[Iterable, str, int], Iterable]
"""(items, what, how many) → the same items, shown as they pass."""


def untracked(items: Iterable, what: str, total: int) -> Iterable:
    return items


@dataclass(frozen=True)
class Job:
    """All that a port gives its method."""

    tau: Tensors
    """The source's task vector."""
    pairs: Sequence[Pair]
    source: Side
    target: Side
    weights: Tensors
    """The target's tensors."""
    batches: Callable[[], Iterable[Batch]]
    """The calibration samples, as often as they are asked for."""
    statistics: Statistics
    """What they showed of the method's `signals`."""
    track: Track = untracked


@dataclass(frozen=True)
class Method:
    """A frozen dataclass whose fields are the method's options."""

    name: ClassVar[str]
    citation: ClassVar[str]
    summary: ClassVar[str]
    """What it does, in the card's words."""

    @property
    def signals(self) -> frozenset[Signal]:
        """What must be collected for every pair."""
        raise NotImplementedError

    @property
    def draws(self) -> int:
        """Random cotangents a sample that it wants for label-free gradients."""
        return 0

    @property
    def needs_loss(self) -> bool:
        """Whether it takes gradients of the task's own loss."""
        return bool(self.signals & OF_LOSS)

    @property
    def why_not_storable(self) -> str | None:
        """Why its maps cannot be kept for any fine-tune to come; None where s L τ Rᵀ of its plan is all it does."""
        return "it does not move τ by two factors a layer"

    def check(self, pairs: Sequence[Pair]) -> None:
        """Raises PortError for pairs that the method cannot serve, saying why."""

    def plan(self, pairs: Sequence[Pair], statistics: Statistics) -> Iterator[tuple[Pair, Map]]:
        """A map for every pair, in order. It never sees τ, so one plan serves every fine-tune and every α."""
        raise NotImplementedError

    def carry(self, job: Job) -> Transported:
        """τ in the target's coordinates: planned, then moved, unless the method has another way."""
        maps = job.track(self.plan(job.pairs, job.statistics), f"Moving τ ({self.name})", len(job.pairs))
        return transport(job.tau, maps, job.weights)


def require_same_shapes(name: str, pairs: Sequence[Pair]) -> None:
    """Raises PortError for a method that works weight by weight and pairs of unequal shapes."""
    unequal = [
        f"{b.name} is {b.d_out} × {b.d_in}, its partner {a.d_out} × {a.d_in}"
        for a, b in pairs
        if (a.d_out, a.d_in) != (b.d_out, b.d_in)
    ]
    if unequal:
        raise PortError(f"{name} needs layers of equal shapes: {listed(unequal)}")
