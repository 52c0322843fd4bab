"""What BiCo, THESEUS and the ablations share: an orthogonal map on either side of τ."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from hf_bico.core.errors import PortError, listed
from hf_bico.core.linalg import RTOL
from hf_bico.core.low_rank import Factor
from hf_bico.core.merging import Inside, rank_limit
from hf_bico.core.method import Method
from hf_bico.core.moments import Statistics
from hf_bico.core.types import BilinearMap, Fit, Pair, Signal, Stream, Wanted


@dataclass(frozen=True)
class TwoSided(Method):
    """τ_B = L τ_A Rᵀ, where each of L and R is the Procrustes map of one signal, or the identity."""

    left: ClassVar[Signal | None]
    right: ClassVar[Signal | None]

    rtol: float = RTOL
    """Singular values of a cross-moment below this share of its largest are undetermined."""
    completion: Literal["cut", "free", "filled"] = "cut"
    """What becomes of undetermined directions: cut; completed by whatever the SVD puts there, as the papers' formula
    reads; or, on a gradient's side, filled by the map of the activations at the same place."""
    centred: bool = False
    """Subtract the mean over the rows from the activations."""
    mlp: Inside = "auto"
    """What is used of what the samples show inside MLPs, where blocks are widest: all of it (whole); the means of
    neighbouring patches, and the leading quarter of the singular directions (merged); or that only where it is most of
    the work, the means of large grids and no fewer than 512 directions (auto). The papers use all."""

    def __post_init__(self) -> None:
        if not 0 < self.rtol < 1:
            raise PortError(f"rtol = {self.rtol} is not a share of the largest singular value: give one in (0, 1)")

    @property
    def sides(self) -> tuple[Signal | None, Signal | None]:
        """The signals that the output map and the input map are made from; None is the identity."""
        return self.left, self.right

    @property
    def wanted(self) -> Wanted:
        used = {side for side in self.sides if side is not None}
        if self.completion == "filled":
            used |= {_FILL[side] for side in used if side in _FILL}
        return Wanted(frozenset(used), mlp=self.mlp)

    @property
    def why_not_storable(self) -> str | None:
        return None

    @property
    def by_layer(self) -> bool:
        return True

    def check(self, pairs: Sequence[Pair]) -> None:
        left, right = self.sides
        unequal = [
            f"{b.name}: {what} of {x} and {y}"
            for a, b in pairs
            for side, what, x, y in ((left, "outputs", a.d_out, b.d_out), (right, "inputs", a.d_in, b.d_in))
            if side is None and x != y
        ]
        if unequal:
            raise PortError(f"{self.name} leaves one side as it is, which needs equal widths: {listed(unequal)}")

    def plan(self, pairs: Sequence[Pair], seen: Statistics) -> Iterator[tuple[Pair, BilinearMap]]:
        left, right = self.sides
        last: dict[tuple[Stream, Stream], tuple[Factor | None, Fit | None]] = {}
        given: dict[tuple[Stream, Stream], tuple[Factor | None, Fit | None]] = {}
        for pair in pairs:
            streams = pair.streams(right or Signal.INPUT)
            if streams not in last:  # q, k and v come in a row and share their input's map
                last = {streams: self._side(pair, seen, right)}
            factor, fit = last[streams]
            streams = pair.streams(left or Signal.OUTPUT)
            if streams not in given:  # a layer's experts, too, and give parts of one sum
                given = {streams: (None, None) if pair.target.known else self._side(pair, seen, left)}
            out, out_fit = given[streams]
            yield pair, BilinearMap(out, factor, out_fit, fit)
            seen.done(pair)

    def share(self, pairs: Sequence[Pair], seen: Statistics, which: slice) -> Iterator[tuple[Pair, BilinearMap]]:
        return self.plan(pairs[which], seen)  # no map depends on another

    def _side(self, pair: Pair, seen: Statistics, signal: Signal | None) -> tuple[Factor | None, Fit | None]:
        if signal is None:
            return None, None
        try:
            return self._map(pair, seen, signal)
        except ValueError as error:
            raise PortError(f"{pair.target.name}, {signal.value}: {error}") from error

    def _map(self, pair: Pair, seen: Statistics, signal: Signal) -> tuple[Factor, Fit]:
        """Return the orthogonal map of a signal.

        Raises:
            ValueError: the samples do not determine one.
        """
        fill = seen[pair, _FILL[signal]] if self.completion == "filled" and signal in _FILL else None
        moment = seen[pair, signal]
        if signal is Signal.WEIGHTED_INPUT or (self.centred and signal in (Signal.INPUT, Signal.OUTPUT)):
            moment = moment.centred()
        limit = rank_limit(pair, signal, self.mlp)
        return moment.procrustes(rtol=self.rtol, free=self.completion == "free", fill=fill, limit=limit)


_FILL = {
    Signal.OUTPUT_GRADIENT: Signal.OUTPUT,
    Signal.WEIGHTED_GRADIENT: Signal.OUTPUT,
    Signal.LABEL_FREE_GRADIENT: Signal.OUTPUT,
    Signal.INPUT_GRADIENT: Signal.INPUT,
}
"""Gradient → the activations at the same place, whose map fills its undetermined directions."""
