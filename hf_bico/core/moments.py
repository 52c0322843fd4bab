"""Streamed cross-moments: all that a port keeps of the calibration samples."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_bico.core.errors import PortError
from hf_bico.core.linalg import grid_resample, polar_factor
from hf_bico.core.types import Fit, Pair, Signal, Stream, Tensors, Tokens


@dataclass
class CrossMoment:
    """Sums over the rows of a pair of streams; adding in any order, in any batches, gives the same.

    cross = Σ b aᵀ (d_B, d_A); energy_source = Σ‖a‖²; energy_target = Σ‖b‖². Uncentred, unscaled.
    """

    cross: Tensor | None = None
    energy_source: float = 0.0
    energy_target: float = 0.0

    def add(self, a: Tensor, b: Tensor, resample: Tensor | None = None) -> None:
        """Add a batch: a (n, T_A, d_A), b (n, T_B, d_B), and P (T_B, T_A) where the token counts differ.

        bᵀ(P a) equals (Pᵀ b)ᵀ a: the side with more tokens is resized, for fewer rows and the same moments.
        """
        dtype = torch.promote_types(a.dtype, torch.float32)
        a, b = a.to(dtype), b.to(dtype)
        resized = a if resample is None else resample.to(a) @ a
        self.energy_source += float(resized.square().sum())
        self.energy_target += float(b.square().sum())
        if a.shape[1] < b.shape[1]:
            b = resample.to(b).T @ b
        else:
            a = resized
        cross = b.flatten(0, 1).T @ a.flatten(0, 1)
        self.cross = cross if self.cross is None else self.cross.to(cross).add_(cross)

    def merge(self, other: "CrossMoment") -> None:
        """Add another stream's sums."""
        if other.cross is not None:
            self.cross = other.cross.clone() if self.cross is None else self.cross + other.cross
        self.energy_source += other.energy_source
        self.energy_target += other.energy_target

    def procrustes(self, *, rtol: float) -> tuple[Tensor, Fit]:
        """R (d_B, d_A) = argmin ‖A Rᵀ − B‖ on the directions that the data determine, and how good it is.

        Raises:
            ValueError: nothing was added, or nothing but zeros.
        """
        if self.cross is None:
            raise ValueError("there are no calibration samples")
        factor, rank, nuclear = polar_factor(self.cross, rtol=rtol)
        match = nuclear**2 / (self.energy_source * self.energy_target)
        return factor, Fit(rank, min(factor.shape), max(0.0, 1.0 - match))


class Evidence:
    """The cross-moments of a set of pairs. Pairs that share their streams (q, k and v their input) share one."""

    def __init__(self, pairs: Iterable[Pair], signals: Iterable[Signal]) -> None:
        self.signals = frozenset(signals)
        self._moments: dict[tuple[Stream, Stream], CrossMoment] = {}
        self._resample: dict[tuple[Stream, Stream], Tensor | None] = {}
        for pair in pairs:
            for signal in self.signals:
                streams = pair.streams(signal)
                self._moments[streams] = CrossMoment()
                self._resample[streams] = resampling(pair.source.tokens, pair.target.tokens)

    def __getitem__(self, key: tuple[Pair, Signal]) -> CrossMoment:
        pair, signal = key
        return self._moments[pair.streams(signal)]

    def partners(self, stream: Stream) -> list[Stream]:
        """A's streams that meet `stream` of B."""
        return [a for a, b in self._moments if b == stream]

    def add(self, a: Stream, b: Stream, rows_a: Tensor, rows_b: Tensor) -> None:
        """Add a batch's rows, (n, T, d) each, of two streams that meet."""
        moment = self._moments[a, b]
        moment.add(rows_a, rows_b, self._resample[a, b])
        if not (moment.energy_source < float("inf") and moment.energy_target < float("inf")):
            raise PortError(f"NaN or Inf in the {a.signal.value} of {a.name} (source) or {b.name} (target)")

    def state_dict(self) -> dict[str, Tensor]:
        """All sums as named tensors, to be written to a file."""
        state = {}
        for (a, b), moment in self._moments.items():
            name = f"{a.signal.value}/{a.name}/{b.name}"
            energies = torch.tensor([moment.energy_source, moment.energy_target], dtype=torch.float64)
            state |= {name: moment.cross, f"{name}/energies": energies}
        return state

    def load_state_dict(self, state: Tensors) -> None:
        """Take over the sums of a `state_dict` of the same pairs and signals; a name that is missing is a KeyError."""
        for (a, b), moment in self._moments.items():
            name = f"{a.signal.value}/{a.name}/{b.name}"
            moment.cross = state[name]
            moment.energy_source, moment.energy_target = state[f"{name}/energies"].tolist()

    def merge(self, other: "Evidence") -> None:
        for streams, moment in self._moments.items():
            moment.merge(other._moments[streams])


def resampling(source: Tokens, target: Tokens) -> Tensor | None:
    """P (T_B, T_A) between two token layouts, None where they are the same.

    Raises:
        PortError: the layouts cannot be matched.
    """
    if source == target:
        return None
    if source.prefix != target.prefix or len(source.grid) != len(target.grid):
        raise PortError(f"token layouts do not match: {source} and {target}")
    return grid_resample(source.grid, target.grid, prefix=source.prefix)
