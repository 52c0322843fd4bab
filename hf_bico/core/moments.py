"""Streamed cross-moments: all that a port keeps of the calibration samples."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from hf_bico.core.errors import PortError
from hf_bico.core.finite import is_finite
from hf_bico.core.gradients import WeightGradient, merge_sums
from hf_bico.core.linalg import GridResize, grid_resize, polar_factor
from hf_bico.core.low_rank import Factor
from hf_bico.core.merging import groups, is_merged
from hf_bico.core.types import INPUTS, ROWS, Fit, Pair, Signal, Stream, Tensors, Tokens, Wanted

Resize = Tensor | GridResize
"""P (T_B, T_A), or (n, T_B, T_A) of texts: which of A's rows B's meet."""


@dataclass
class CrossMoment:
    """Sums over the rows of a pair of streams; they do not depend on the order or the batches in which rows are added.

    cross = Σ b aᵀ (d_B, d_A); for either side energy = Σ‖·‖² and total = Σ w ·, (d,); rows = how many. Unscaled.
    Weighted rows are w [x, 1], so that their last coordinate is w; else w = 1.
    """

    SUMS: ClassVar = ("cross", "total_a", "total_b", "energy_a", "energy_b", "rows")

    weighted: bool = False
    cross: Tensor | None = None
    total_a: Tensor | None = None
    total_b: Tensor | None = None
    energy_a: float = 0.0
    energy_b: float = 0.0
    rows: int = 0
    removed: float = 0.0
    """Frobenius norm of what centring subtracted from the cross-moment."""
    sparse: bool = False
    """Whether it is no mistake if it determines nothing (an expert's that no rows, or one, are sent to): R is zero."""

    @classmethod
    def empty(cls, d_b: int, d_a: int, *, weighted: bool) -> "CrossMoment":
        """Return the moment of no rows, of coordinates (d_b,) and (d_a,)."""
        d_b, d_a = d_b + weighted, d_a + weighted
        return cls(weighted, torch.zeros(d_b, d_a), torch.zeros(d_a), torch.zeros(d_b), sparse=True)

    def add(self, a: Tensor, b: Tensor, resample: Resize | None = None) -> None:
        """Add a batch: a (n, T_A, d_A), b (n, T_B, d_B), and P as `resample` where rows do not meet one to one.

        P is (T_B, T_A) or (n, T_B, T_A). B's rows that meet nothing (padding) do not count. As bᵀ(P a) = (Pᵀ b)ᵀ a,
        the side with more tokens is resized: fewer rows, the same moments.
        """
        dtype = torch.promote_types(a.dtype, torch.float32)
        a, b = a.to(dtype), b.to(dtype)
        resized, rows = a, b.shape[0] * b.shape[1]
        if resample is not None:
            resample = resample.to(a)
            met = resample.any(-1).expand(b.shape[:2])
            resized, rows = resample @ a, int(met.sum())
            b = b if rows == met.numel() else b * met[..., None]
        total_a, total_b = ((side * side[..., -1:] if self.weighted else side).sum((0, 1)) for side in (resized, b))
        energy_a, energy_b = float(resized.square().sum()), float(b.square().sum())
        if resample is not None and a.shape[1] < b.shape[1]:
            b = resample.mT @ b
        else:
            a = resized
        self.merge(CrossMoment(self.weighted, None, total_a, total_b, energy_a, energy_b, rows))
        if self.cross is None:
            self.cross = b.new_zeros(b.shape[-1], a.shape[-1])
        cross = self.cross.to(b)  # added to in place: no second matrix of its size
        self.cross = torch.addmm(cross, b.flatten(0, 1).T, a.flatten(0, 1), out=cross)

    def merge(self, other: "CrossMoment") -> None:
        """Add the sums of other rows of the same pair of streams, in place."""
        merge_sums(self, other)

    def centred(self) -> "CrossMoment":
        """Return the sums of x alone with either side's mean over the rows, weighted where they are, subtracted.

        The two sides' weights differ: the cross-moment's means are taken with their product, an energy's with the
        side's own.

        Raises:
            ValueError: nothing was added.
        """
        if self.cross is None or self.total_a is None or self.total_b is None:
            raise ValueError("there are no calibration samples")
        if self.is_empty:
            d_b, d_a = self.cross.shape
            return CrossMoment.empty(d_b - self.weighted, d_a - self.weighted, weighted=False)
        if self.weighted:
            mean_b, mean_a, weights = self.cross[:-1, -1], self.cross[-1, :-1], float(self.cross[-1, -1])
            cross = self.cross[:-1, :-1]
            taken = [float(total[-1] + total[:-1].square().sum() / total[-1]) for total in (self.total_a, self.total_b)]
        else:
            mean_b, mean_a, weights, cross = self.total_b, self.total_a, self.rows, self.cross
            taken = [float(total.square().sum()) / self.rows for total in (mean_a, mean_b)]
        removed = torch.outer(mean_b, mean_a) / weights
        return CrossMoment(
            False,
            cross - removed,
            None,
            None,
            self.energy_a - taken[0],
            self.energy_b - taken[1],
            self.rows,
            float(removed.norm()),
            self.sparse,
        )

    def procrustes(
        self, *, rtol: float, free: bool = False, fill: "CrossMoment | None" = None, limit: int | None = None
    ) -> tuple[Factor, Fit]:
        """Return R (d_B, d_A) = argmin ‖A Rᵀ − B‖ on the directions that the data determine, and how well it fits.

        `free` and `fill` say what becomes of the other directions, `limit` how many are solved for at most; see
        `polar_factor`.

        Raises:
            ValueError: nothing was added, or what was added determines nothing.
        """
        if self.cross is None:
            raise ValueError("there are no calibration samples")
        other = None if fill is None else fill.cross
        try:
            found = polar_factor(
                self.cross,
                rtol=rtol,
                free=free,
                fill=other,
                removed=self.removed,
                rows=self.greatest_rank,
                limit=limit,
            )
        except ValueError:
            if not self.sparse or not is_finite(self.cross):
                raise
            return torch.zeros_like(self.cross), Fit(0, min(self.cross.shape), 1.0)  # one row, which is its own mean
        return found.small, self.fit(found.rank, found.nuclear)

    @property
    def greatest_rank(self) -> int:
        """What the rank of the cross-moment cannot exceed: its rows, and one for what centring took off."""
        return self.rows + 1

    @property
    def is_empty(self) -> bool:
        """Whether it is an expert's, and no rows met."""
        return self.sparse and self.cross is not None and not self.cross.any()

    def fit(self, rank: int, inner: float) -> Fit:
        """Return how good an orthogonal map is.

        Args:
            inner: ⟨R, cross⟩; of the moment's own map its nuclear norm.
        """
        assert self.cross is not None  # it has a map
        energies = self.energy_a * self.energy_b
        match = inner**2 / energies if energies > 0 else 0.0
        return Fit(rank, min(self.cross.shape), min(1.0, max(0.0, 1.0 - match)))


class Held(NamedTuple):
    """A batch's rows of a stream of A, until B's meet them."""

    rows: Tensor
    """(n, T, d), or (n, M, d) where they are merged."""
    tokens: int
    """T, their number a sample before they were merged."""


class Statistics:
    """What the samples show of a set of pairs: cross-moments, and what some methods need besides.

    Pairs that share both streams (q, k and v share their input) share one cross-moment.
    """

    def __init__(self, pairs: Iterable[Pair], wanted: Wanted) -> None:
        self.wanted = wanted
        self.samples = 0
        """Samples in the label-free gradients so far; a sample's number seeds its cotangents."""
        self.gradients: dict[str, WeightGradient] = {}
        """B's weight gradients by site name."""
        self.weights: tuple[Tensors, Tensors] | None = None
        """A's and B's own tensors, for methods that want them."""
        self._moments: dict[tuple[Stream, Stream], CrossMoment] = {}
        self._layouts: dict[tuple[Stream, Stream], tuple[Tokens, Tokens]] = {}
        self._resample: dict[tuple[Tokens, Tokens], Resize | None] = {}
        self._merged: set[Stream] = set()
        """A's streams whose rows are merged before they meet."""
        self._uses: Counter[tuple[Stream, Stream]] = Counter()
        """How many pairs are still to be planned with a moment; empty where moments stay."""
        for pair in pairs:
            for signal in self.wanted.signals & ROWS:
                streams = pair.streams(signal)
                self._moments[streams] = _moment(pair, signal)
                self._layouts[streams] = layouts = pair.base.layout(signal), pair.target.layout(signal)
                if layouts not in self._resample:
                    self._resample[layouts] = resampling(*layouts)
                if is_merged(pair, signal, wanted.mlp):
                    self._merged.add(streams[0])
            if Signal.WEIGHT_GRADIENT in self.wanted.signals:
                self.gradients[pair.target.name] = WeightGradient()

    def __getitem__(self, key: tuple[Pair, Signal]) -> CrossMoment:
        pair, signal = key
        return self._moments[pair.streams(signal)]

    def spend(self, pairs: Iterable[Pair]) -> None:
        """Let every moment go as soon as the last of some pairs that has it is `done`: they are planned once."""
        self._uses = Counter(pair.streams(signal) for pair in pairs for signal in self.wanted.signals & ROWS)

    def done(self, pair: Pair) -> None:
        """Say that a pair is planned, in the order of the pairs; see `spend`."""
        for streams in (pair.streams(signal) for signal in self.wanted.signals & ROWS) if self._uses else ():
            self._uses[streams] -= 1
            if not self._uses[streams]:
                self._moments.pop(streams, None)

    def unreached(self, pairs: Iterable[Pair]) -> list[str]:
        """Return the names of B's experts that no row reaches in both models, so that their changes stay."""
        outputs = (Signal.OUTPUT_GRADIENT, Signal.WEIGHTED_GRADIENT, Signal.OUTPUT, Signal.LABEL_FREE_GRADIENT)
        watched = next((signal for signal in outputs if signal in self.wanted.signals), None)
        experts = [pair for pair in pairs if watched and pair.target.expert is not None and not pair.target.gives]
        missed = [pair.target.name for pair in experts if watched and self[pair, watched].is_empty]
        return list(dict.fromkeys(name.partition(" MLP")[0] for name in missed))

    def wants(self, stream: Stream) -> bool:
        """Return whether A's stream `stream` is to meet one of B's."""
        return any(a == stream for a, _ in self._moments)

    def partners(self, stream: Stream) -> list[Stream]:
        """Return A's streams that meet the stream `stream` of B."""
        return [a for a, b in self._moments if b == stream]

    def hold(self, a: Stream, rows: Tensor) -> Held:
        """Return a batch's rows (n, T, d) of a stream of A as they wait for B's: merged, where they are to be."""
        count = rows.shape[1]
        if a not in self._merged:
            return Held(rows, count)
        tokens = next(base for (own, _), (base, _) in self._layouts.items() if own == a).seen_as(count)
        return Held(groups(tokens).to(rows) @ rows, count)

    def add(self, a: Stream, b: Stream, held: Held, rows_b: Tensor, meeting: Mapping[str, Tensor]) -> None:
        """Add a batch's rows of two streams that meet as their layouts or the batch's `meeting` say.

        Merged rows meet on A's grid: Σ (S Pᵀ b)(S a)ᵀ in place of Σ b (P a)ᵀ = Σ (Pᵀ b) aᵀ.

        Args:
            held: A's rows.
            rows_b: B's rows (n, T, d).

        Raises:
            PortError: nothing says which rows meet and their numbers differ; NaN or Inf.
        """
        moment, resample = self._moments[a, b], self.meets(a, b, held.tokens, rows_b.shape[1], meeting)
        _require_met(a, b, (*held.rows.shape[:1], held.tokens), rows_b, resample)
        if a in self._merged:
            merge = groups(self._layouts[a, b][0].seen_as(held.tokens))
            pull = (merge if resample is None else merge @ _pulled(resample)).to(rows_b)
            met = pull.any(1)
            moment.add(held.rows[:, met], pull[met] @ rows_b)
        else:
            moment.add(held.rows, rows_b, resample)
        if not (moment.energy_a < float("inf") and moment.energy_b < float("inf")):
            raise PortError(f"NaN or Inf in the {a.signal.value} of {a.name} (base) or {b.name} (target)")

    def meets(self, a: Stream, b: Stream, rows_a: int, rows_b: int, meeting: Mapping[str, Tensor]) -> Resize | None:
        """Return the P of two streams with `rows_a` and `rows_b` rows a sample; None where they meet one to one."""
        base, target = self._layouts[a, b]
        if target.sequence:
            return meeting.get(target.sequence)
        layouts = base.seen_as(rows_a), target.seen_as(rows_b)
        if layouts not in self._resample:
            self._resample[layouts] = resampling(*layouts)
        return self._resample[layouts]

    def parts(self) -> Iterator[tuple[str, "CrossMoment | WeightGradient"]]:
        """Yield (name, what holds sums) of all that was collected, in any order."""
        for (a, b), moment in self._moments.items():
            yield f"{a.signal.value}/{a.name}/{b.name}", moment
        for name, gradient in self.gradients.items():
            yield f"{Signal.WEIGHT_GRADIENT.value}/{name}", gradient

    def state_dict(self) -> dict[str, Tensor]:
        """Return all sums as named tensors, ready to be written to a file."""
        state = {"samples": torch.tensor(self.samples)}
        for name, part in self.parts():
            for field in part.SUMS:
                value = getattr(part, field)
                state[f"{name}/{field}"] = (
                    torch.tensor(value, dtype=torch.float64) if isinstance(value, float) else torch.as_tensor(value)
                )
        return state

    def load_state_dict(self, state: Tensors) -> None:
        """Take over the sums of a `state_dict` of the same pairs and signals.

        Raises:
            KeyError: a name is missing; nothing is taken over.
        """
        samples = int(state["samples"])
        kept = [(part, field, state[f"{name}/{field}"]) for name, part in self.parts() for field in part.SUMS]
        self.samples = samples
        for part, field, value in kept:
            setattr(part, field, value.item() if isinstance(getattr(part, field), int | float) else value)

    def merge(self, other: "Statistics") -> None:
        """Add the sums of other samples, for the same pairs and signals, in place."""
        self.samples += other.samples
        for (_, mine), (_, theirs) in zip(self.parts(), other.parts(), strict=True):
            merge_sums(mine, theirs)


def _moment(pair: Pair, signal: Signal) -> CrossMoment:
    """Return the moment that rows of a pair's signal are to be added to."""
    a, b = pair
    weighted = signal is Signal.WEIGHTED_INPUT
    if b.expert is not None and (signal not in INPUTS or b.hidden_in is not None):
        sides = (b.d_in, a.d_in) if signal in INPUTS else (b.d_out, a.d_out)
        return CrossMoment.empty(*sides, weighted=weighted)
    return CrossMoment(weighted=weighted)


def _require_met(a: Stream, b: Stream, shape_a: tuple[int, ...], rows_b: Tensor, resample: Resize | None) -> None:
    """Refuse rows, (samples, rows a sample) of A, that no one says the meeting of.

    Raises:
        PortError: their numbers of samples differ, or their numbers of rows are not those that P is for.
    """
    if shape_a[0] != rows_b.shape[0]:
        raise PortError(
            f"{a.name} (base) sees {shape_a[0]} samples and {b.name} (target) {rows_b.shape[0]}: they cannot meet"
        )
    if resample is None and shape_a[1] != rows_b.shape[1]:
        raise PortError(
            f"{a.name} (base) has {shape_a[1]} rows a sample and {b.name} (target) "
            f"{rows_b.shape[1]}: say in the batch which of them meet"
        )
    if resample is None:
        return
    whose = resample.shape[0] if resample.ndim > 2 else rows_b.shape[0]
    if (whose, *resample.shape[-2:]) != (rows_b.shape[0], rows_b.shape[1], shape_a[1]):
        raise PortError(
            f"{a.name} (base) has {shape_a[1]} rows a sample and {b.name} (target) {rows_b.shape[1]}, and the "
            f"batch says how {resample.shape[-1]} and {resample.shape[-2]} meet: these layers do not read that text"
        )


def _pulled(resample: Resize) -> Tensor:
    """Return Pᵀ as a matrix (T_A, T_B)."""
    return resample.dense().T if isinstance(resample, GridResize) else resample.T


def resampling(base: Tokens, target: Tokens) -> Resize | None:
    """Return P (T_B, T_A) between two token layouts; None where they are the same.

    Prefix tokens meet in order; the rest of the longer prefix (a distillation token, registers) meets nothing.

    Raises:
        PortError: the layouts cannot be matched.
    """
    if base == target:
        return None
    if base.sequence != target.sequence or len(base.grid) != len(target.grid):
        raise PortError(f"token layouts do not match: {base} and {target}")
    if not base.grid:
        return torch.eye(target.prefix, base.prefix)
    return grid_resize(base.grid, target.grid, prefix=(base.prefix, target.prefix))
