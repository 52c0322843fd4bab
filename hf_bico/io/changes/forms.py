"""The forms that a port can be written in: the whole model, its change alone, or a LoRA of the new base."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from hf_bico.core.errors import PortError, setting
from hf_bico.core.low_rank import Delta, Factored, LowRank
from hf_bico.core.types import Slice, Tensors


class Form(StrEnum):
    """What is written: the whole model, a delta repo, or a LoRA."""

    MODEL = "model"
    DELTA = "delta"
    LORA = "lora"


DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
"""The dtypes that a change's matrices may be stored in."""
EPSILON = 1e-6
"""Share of a layer's largest singular value below which singular values are rounding."""
MEASURABLE = 0.01
"""A layer's ‖rounding‖/‖τ_B‖ above which a change is stored in float32 unless another dtype is chosen."""


@dataclass(frozen=True)
class Cut:
    """What a layer's change lost when it was stored."""

    key: str
    rank: int | None
    """Rank of its factors; None for a whole matrix."""
    error: float
    """‖what is not stored‖ / ‖τ_B‖ of the layer."""


@dataclass(frozen=True)
class Shaped:
    """A change as it is scored and written."""

    delta: Delta
    alpha: float
    """The factor that the change is still to be multiplied with; 1 for a stored change, which has its α in it."""
    dtype: str | None = None
    """The dtype that its matrices are stored in; None for a whole model."""
    cuts: tuple[Cut, ...] = ()


@dataclass(frozen=True)
class Storage:
    """How a change is stored, applied before scoring, so that what is scored is what is written."""

    form: Form = Form.MODEL
    rank: int | None = None
    """The rank that a LoRA cuts a dense change of a layer to."""
    energy: float | None = None
    """The share of ‖τ_B‖², in (0, 1], that a LoRA keeps of a dense change of a layer, in place of `rank`."""
    dtype: str | None = None
    """The dtype of a delta's matrices; None: bfloat16, or float32 where the loss would be measurable."""

    @classmethod
    def of(cls, form: str, rank: int | None, energy: float | None, dtype: str | None, library: str) -> "Storage":
        """Return the storage with these options; refuse options that do not go together.

        Args:
            library: name of the target's library.

        Raises:
            PortError: an unknown form, options that contradict each other, a library that PEFT does not serve.
        """
        as_, of_rank, of_energy, of_dtype = map(setting, ("form", "rank", "energy", "dtype"))
        if form not in list(Form):
            raise PortError(f"{as_} {form} is not a form of a port: choose one of {', '.join(Form)}")
        if form != Form.LORA and (rank is not None or energy is not None):
            raise PortError(f"{of_rank} and {of_energy} need {as_} lora")
        if form != Form.DELTA and dtype is not None:
            raise PortError(f"{of_dtype} needs {as_} delta")
        if dtype not in (None, *DTYPES):
            raise PortError(f"{of_dtype} {dtype}: a delta is stored in {' or '.join(DTYPES)}")
        if rank is not None and energy is not None:
            raise PortError(f"{of_rank} and {of_energy} exclude each other: give one of the two")
        if (rank is not None and rank < 1) or (energy is not None and not 0 < energy <= 1):
            raise PortError(f"{of_rank} must be 1 or more, {of_energy} a share in (0, 1]")
        if form == Form.LORA and library != "transformers":
            raise PortError(
                f"{as_} lora is for models of transformers, which PEFT serves, not of {library}: use {as_} delta"
            )
        return cls(Form(form), rank, energy, dtype)

    @property
    def cuts(self) -> bool:
        """Whether a LoRA is cut to a rank or to a share of energy."""
        return self.rank is not None or self.energy is not None

    def truncated(self, delta: Delta) -> tuple[Delta, list[Cut]]:
        """Return a change as this form can hold it, and the cuts: a LoRA's weights are in factors, cut if told to."""
        return as_products(delta, self.rank, self.energy) if self.form is Form.LORA else (delta, [])

    def stored(self, delta: Delta, alpha: float, cuts: Iterable[Cut] = ()) -> "Shaped":
        """Return α τ_B as the file will hold it; a whole model takes the change as it is.

        Args:
            cuts: what was lost when the change was `truncated`.
        """
        if self.form is Form.MODEL:
            return Shaped(delta, alpha)
        return stored(delta, alpha, "float32" if self.form is Form.LORA else self.dtype, cuts)


def stored(delta: Tensors, alpha: float, dtype: str | None, cuts: Iterable[Cut] = ()) -> Shaped:
    """Return α τ_B as a file holds it: matrices, or their factors, rounded to a dtype, but kept in float32 here.

    Biases are not rounded; what is zero is dropped.

    Args:
        dtype: a key of `DTYPES`; None: bfloat16, or float32 where the rounding would be `MEASURABLE`.
        cuts: what layers lost before; their errors are added in quadrature.
    """
    before = {cut.key: cut for cut in cuts}
    found, errors = _rounded(delta, alpha, DTYPES[dtype or "bfloat16"])
    if dtype is None and max(errors.values(), default=0.0) > MEASURABLE:
        dtype = "float32"
        found, errors = _rounded(delta, alpha, DTYPES[dtype])
    rows = []
    for key, error in errors.items():
        product = found.factors(key)
        cut = before.get(key, Cut(key, product.rank if product else None, 0.0))
        rows.append(Cut(key, cut.rank, (cut.error**2 + error**2) ** 0.5))
    return Shaped(found, 1.0, dtype or "bfloat16", tuple(rows))


def _rounded(delta: Tensors, alpha: float, dtype: torch.dtype) -> tuple[Delta, dict[str, float]]:
    """Return the changes times α, rounded, and {name: ‖rounding‖/‖α τ_B‖} for every matrix."""
    shapes: dict[str, Tensor] = {}
    made, errors = Delta(shapes), {}
    for key, change, _ in _changes(delta):
        shapes[key] = torch.empty(tuple(change.shape), device="meta")
        if isinstance(change, LowRank):
            kept = LowRank((alpha * change.b).to(dtype).float(), change.a.to(dtype).float())
            lost = LowRank(torch.cat([kept.b, -alpha * change.b], 1), torch.cat([kept.a, change.a]))
        else:
            whole = alpha * change.float()
            kept = whole.to(dtype).float() if whole.dim() > 1 else whole
            lost = kept - whole
        if alpha and len(change.shape) > 1:
            errors[key] = float(lost.norm()) / (abs(alpha) * float(change.norm()))
        if float(kept.norm()):
            _keep(made, key, kept)
    return made, errors


def as_products(delta: Tensors, rank: int | None, energy: float | None) -> tuple[Delta, list[Cut]]:
    """Return every weight's change in factors, and what each lost: products as they are, dense changes `truncated`.

    Biases stay as they are; what is zero is dropped. Without `rank` and `energy`, only rounding is cut.
    """
    shapes: dict[str, Tensor] = {}
    made, cuts = Delta(shapes), []
    for key, change, exact in _changes(delta):
        shapes[key] = torch.empty(change.shape, device="meta")
        if isinstance(change, LowRank) and exact:
            found, error = change, 0.0
        elif len(change.shape) == 2:
            found, error = truncated(change, rank, energy)
        else:
            _keep(made, key, change)
            continue
        _keep(made, key, found)
        cuts.append(Cut(key, found.rank, error))
    return made, cuts


def _keep(made: Delta, key: str, change: Tensor | LowRank) -> None:
    """Write a whole tensor's change."""
    if isinstance(change, LowRank):
        made.write(Slice(key), change)
    else:
        made.put(key, change)


def _changes(delta: Tensors) -> Iterable[tuple[str, Any, bool]]:
    """Yield (name, change, whether it is in factors) for every change that is not zero."""
    for key in delta:
        product = delta.factors(key) if isinstance(delta, Factored) else None
        change = delta[key] if product is None else product
        if float(change.norm()) > 0:
            yield key, change, product is not None


def truncated(matrix: Tensor, rank: int | None, energy: float | None) -> tuple[LowRank, float]:
    """Return the product nearest to a matrix, and its relative error ‖matrix − product‖/‖matrix‖ (Frobenius).

    Args:
        rank: the largest rank allowed; None: as large as the matrix's.
        energy: take the least rank that keeps this share of ‖matrix‖²; None: all but rounding.
    """
    left, sizes, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    whole = sizes.square().cumsum(0)
    r = int((sizes > EPSILON * sizes[0]).sum())
    if energy is not None:
        r = min(r, int((whole < energy * whole[-1] * (1 - 1e-12)).sum()) + 1)
    r = min(r, rank or r)
    root = sizes[:r].sqrt()
    error = float(sizes[r:].square().sum() / whole[-1]) ** 0.5
    return LowRank((left[:, :r] * root).to(matrix.dtype), (root[:, None] * right[:r]).to(matrix.dtype)), error
