"""Opens delta repos: the base at its commit, checked, and the change added to it tensor by tensor."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import torch
from torch import Tensor, nn

from hf_bico.core.brief import brief
from hf_bico.core.errors import PortError, listed
from hf_bico.core.transport import added, check_scale
from hf_bico.core.types import Tensors
from hf_bico.io.changes.delta import DeltaRecord, LazyTensors, StoredDelta, open_base, open_delta
from hf_bico.io.changes.vectors import Rule, TaskVector, combined, vector, weighted_sum
from hf_bico.io.checkpoints import pick_device
from hf_bico.io.hub import Hub
from hf_bico.io.reference import at_revision

MERGES = ("linear", "ties", "dare_linear", "dare_ties")
"""Ways to merge several deltas."""


class Opened(NamedTuple):
    """A model with what a library's own loader returns beside it."""

    model: nn.Module
    """In eval mode."""
    preprocess: Any
    """open_clip's transform, transformers' image processor; None where the base has none."""
    tokenizer: Any
    """open_clip's or transformers' own; None where the base has none."""

    def __repr__(self) -> str:
        more = "".join(f", {name}={brief(getattr(self, name))}" for name in ("preprocess", "tokenizer"))
        return f"Opened({brief(self.model)}{more})"


def from_pretrained(
    repo: str | Path | Sequence[str | Path],
    *,
    revision: str | None = None,
    base: str | Path | None = None,
    device: str | None = None,
    dtype: torch.dtype | str | None = None,
    alpha: float = 1.0,
    weights: Sequence[float] | None = None,
    merge: str = "linear",
    density: float = 0.5,
    seed: int = 0,
    delta_only: bool = False,
    verify: str = "fast",
    token: str | None = None,
) -> Opened | TaskVector:
    """Return the model of a delta repo: its base, at the commit that it was made for, with α times its change added.

    The base's weights are compared with the fingerprint in the delta before anything is built. The sum is made tensor
    by tensor in the model itself.

    Args:
        repo: `org/name`, `org/name@revision` or a folder; or several of these, of one base, to merge their changes.
        revision: of `repo`, if that is a single repo.
        base: where the base is now: a repo or a folder, which must hold the same weights. None: its repo.
        device: None: CUDA where there is one, else the CPU.
        dtype: to load the model in, torch's or its name. None: the library's own choice.
        alpha: scale of the change; 0 gives the base bit for bit. A head that the delta brings is not scaled.
        weights: of several deltas, in order. None: all 1.
        merge: "linear" (the weighted sum), or PEFT's "ties", "dare_linear", "dare_ties".
        density: for PEFT's merges, the share of a change's elements that is kept, in (0, 1].
        seed: for DARE's draws.
        delta_only: return the change alone, as a `TaskVector`.
        verify: "fast" compares names, shapes, dtypes and a sample of every tensor of the base; "full" every byte of
            the base and of the delta.
        token: a User Access Token. None: that of `hf auth login` or HF_TOKEN.

    Raises:
        PortError: not a delta repo, broken files, another base (both commits are named), tensors that do not fit it,
            deltas of different bases, options that do not exist.
    """
    names = [str(each) for each in ([repo] if isinstance(repo, str | Path) else repo)]
    if not names or (len(names) > 1 and revision is not None):
        raise PortError(
            "from_pretrained takes one delta repo, or a list of them with their revisions as org/name@revision"
        )
    summed = Sum.of(len(names), weights, merge, density, seed)
    device, hub, full = pick_device(device), Hub(token), _is_full(verify)
    check_scale(alpha)
    dtype = _dtype(dtype)
    deltas = [open_delta(hub, hub.resolve(at_revision(name, revision)), full=full) for name in names]
    record = _one_base(deltas)
    found = open_base(hub, record, deltas, base, full=full)
    whole = summed([vector(delta, found) for delta in deltas])
    if delta_only:
        return whole if alpha == 1 else alpha * whole
    loaded = found.library.load(found.folder, device, record.purpose, dtype)
    head = next((delta.head for delta in deltas if delta.record.head), LazyTensors({}))
    write_into(loaded.model, found.weights, whole.tensors if alpha else {}, alpha, head)
    return Opened(loaded.model, loaded.processor, loaded.tokenizer)


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if dtype is not None and (not isinstance(found, torch.dtype) or not found.is_floating_point):
        raise PortError(f"dtype={dtype!r} is not a floating-point dtype of torch, like torch.bfloat16 or 'bfloat16'")
    return found


def _is_full(verify: str) -> bool:
    if verify not in ("fast", "full"):
        raise PortError(f"verify={verify!r}: give fast or full")
    return verify == "full"


@dataclass(frozen=True)
class Sum:
    """How the changes of several deltas are merged into one; see `from_pretrained`."""

    weights: tuple[float, ...]
    merge: str
    density: float
    seed: int

    @classmethod
    def of(cls, count: int, weights: Iterable[float] | None, merge: str, density: float, seed: int) -> "Sum":
        """Return the merge of `count` deltas with these options.

        Raises:
            PortError: an option has no such value, or there are not as many weights as deltas.
        """
        try:
            chosen = (1.0,) * count if weights is None else tuple(map(float, weights))
        except (TypeError, ValueError) as error:
            raise PortError(f"weights={weights!r}: give a list of numbers, one per delta") from error
        if len(chosen) != count:
            raise PortError(f"there are {len(chosen)} weights and {count} deltas: give one weight per delta")
        for weight in chosen:
            check_scale(weight)
        if merge not in MERGES:
            raise PortError(f"merge={merge!r}: give one of {', '.join(MERGES)}")
        if not isinstance(density, Real) or not 0 < density <= 1:
            raise PortError(f"density={density!r}: give a share in (0, 1]")
        return cls(chosen, merge, density, seed)

    def __call__(self, vectors: Sequence[TaskVector]) -> TaskVector:
        if self.merge == "linear" and self.weights == (1.0,):
            return vectors[0]
        return combined(vectors, self.weights, self._rule())

    def _rule(self) -> Rule:
        """Return the rule that merges one tensor's changes: a weighted sum, or PEFT's."""
        if self.merge == "linear":
            return weighted_sum
        from peft.utils import merge_utils

        return partial(self._merged, getattr(merge_utils, self.merge))

    def _merged(self, rule: Any, key: str, tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
        """Return one tensor's changes merged by PEFT's rule.

        DARE draws which elements stay, for every tensor anew; torch's global generator is left as it was.
        """
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(crc32(f"{self.seed}/{key}".encode()))
            return rule(list(tensors), torch.tensor(list(weights)), self.density)


def _one_base(deltas: Sequence[StoredDelta]) -> DeltaRecord:
    """Return the record of the delta that decides base and purpose: the one that brings a head, else the first.

    Raises:
        PortError: the deltas are of different bases or for different tasks, or several bring a head.
    """
    first = deltas[0].record
    for delta in deltas[1:]:
        if not delta.record.fingerprint.matches(first.fingerprint):
            raise PortError(
                f"{delta.pinned} is of {delta.record.name} and {deltas[0].pinned} of {first.name}: only "
                "deltas of one base add up"
            )
        if delta.record.purpose.kind != first.purpose.kind:
            raise PortError(
                f"{delta.pinned} is for {delta.record.purpose.kind} and {deltas[0].pinned} for "
                f"{first.purpose.kind}: only deltas for one kind of task add up"
            )
    headed = [delta for delta in deltas if delta.record.head]
    if len(headed) > 1:
        raise PortError(
            f"{listed([str(delta.pinned) for delta in headed])} each bring a head: only one delta of a sum may"
        )
    return headed[0].record if headed else first


def write_into(model: nn.Module, base: Tensors, change: Tensors, alpha: float, head: Tensors) -> None:
    """Write θ_B + α τ_B and the head into a live model; the sum is made of the base as stored, and rounded once."""
    state = model.state_dict()
    with torch.no_grad():
        for key, tensor in added(base, change, alpha, like=state):
            state[key].copy_(tensor)
        for key, tensor in head.items():
            state[key].copy_(tensor)
