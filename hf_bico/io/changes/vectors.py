"""Task vectors as named tensors with a lineage, to add, scale and save; `extract` writes one, `apply` adds one."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from hf_bico.core.brief import cut
from hf_bico.core.errors import PortError, listed
from hf_bico.core.finite import is_finite
from hf_bico.core.notes import note
from hf_bico.core.transport import check_fine_tune, check_scale
from hf_bico.core.types import Tensors
from hf_bico.families import PurposeKind
from hf_bico.io.adapter import one_kind
from hf_bico.io.base_names import base_of
from hf_bico.io.changes.adapter_source import Adapted
from hf_bico.io.changes.delta import (
    REPORT_FILE,
    SECTION,
    LazyTensors,
    OpenedBase,
    StoredDelta,
    open_base,
    open_delta,
)
from hf_bico.io.changes.source import change_of, open_source, opening_files
from hf_bico.io.checkpoints import SafeTensors, shards
from hf_bico.io.fingerprint import fingerprint
from hf_bico.io.fits import check_models
from hf_bico.io.hub import Hub
from hf_bico.io.models import repo_models
from hf_bico.io.outside import parse_object
from hf_bico.io.reference import Pinned, at_revision
from hf_bico.io.writer import require_writable, staged

LINEAGE = "hf_bico"
EXTRACT = "`hf-bico extract SOURCE --output FILE.safetensors`"
Rule = Callable[[str, Sequence[Tensor], Sequence[float]], Tensor]
"""(name, the tensor's change in every vector, weights) → the merged change."""


@dataclass(frozen=True)
class TaskVector:
    """A task vector τ: changes of a base model's tensors by name, read one at a time, and where they come from.

    Vectors of one base can be added and scaled: `(a + b) / 2 - c`. A vector is indexed by the tensors' names, and its
    length is their number. Unchanged tensors need not be in it.
    """

    tensors: Tensors
    """Name in the model's state dict → change."""
    lineage: Mapping[str, str]
    """`source` and `base`, and the sha256 of their tensors: `source_sha256`, `base_sha256`."""

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        base: str | Path | None = None,
        *,
        revision: str | None = None,
        token: str | None = None,
        trust_base: bool = False,
    ) -> "TaskVector":
        """Return the task vector of a fine-tune, an adapter, a delta repo, or a file.

        Args:
            source: a fine-tune or an adapter (τ: its change from its base), a delta repo, or a file written by `save`.
            base: the base of a fine-tune whose card or config does not name it, or where a delta's base is now.
            revision: of `source`.
            token: a User Access Token. None: that of `hf auth login` or HF_TOKEN.
            trust_base: take the base for the fine-tune's even if their weights have nothing in common.

        Raises:
            PortError: it cannot be opened, no base is known, or the two are not a fine-tune and its base.
        """

        return vector_of(str(source), None if base is None else str(base), revision, token, trusted=trust_base)

    def __add__(self, other: "TaskVector") -> "TaskVector":
        """Return the sum with another vector of the same base.

        Raises:
            PortError: the two are of different bases; on reading, for a tensor that has two shapes.
        """
        return combined([self, other], [1.0, 1.0]) if isinstance(other, TaskVector) else NotImplemented

    def __sub__(self, other: "TaskVector") -> "TaskVector":
        """Return the difference from another vector of the same base; see `__add__`."""
        return combined([self, other], [1.0, -1.0]) if isinstance(other, TaskVector) else NotImplemented

    def __mul__(self, scale: float) -> "TaskVector":
        """Return the vector times a number; refuse NaN and Inf."""
        if not isinstance(scale, Real):
            return NotImplemented
        check_scale(scale)
        return combined([self], [float(scale)])

    __rmul__ = __mul__

    def __radd__(self, other: Any) -> "TaskVector":
        """Return the vector itself for 0, with which `sum` begins."""
        return self if isinstance(other, int) and other == 0 else NotImplemented

    def __truediv__(self, scale: float) -> "TaskVector":
        """Return the vector divided by a number; refuse 0, NaN and Inf."""
        if not isinstance(scale, Real):
            return NotImplemented
        if scale == 0:
            raise PortError("a task vector cannot be divided by 0")
        return self * (1 / scale)

    def __getitem__(self, name: str) -> Tensor:
        """Return the change of a tensor by its name in the model's state dict, read now; a KeyError if it has none."""
        return self.tensors[name]

    def __contains__(self, name: object) -> bool:
        return name in self.tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        """Return how many tensors it holds; some of them may be zero."""
        return len(self.tensors)

    def __bool__(self) -> bool:
        return True  # not by its length

    def __repr__(self) -> str:
        source, base = (cut(self.lineage.get(role, "?"), 100) for role in ("source", "base"))
        return f"TaskVector({len(self)} tensors, {source} − {base})"

    def __neg__(self) -> "TaskVector":
        return self * -1.0

    def norm(self) -> float:
        """Return ‖τ‖ (Frobenius, over all tensors), computed in float64."""
        return sum(float(tensor.double().square().sum()) for tensor in self.tensors.values()) ** 0.5

    def save(self, place: str | Path, *, overwrite: bool = False) -> int:
        """Write the tensors that are not zero to a new .safetensors file, and return their number.

        Args:
            overwrite: replace the task vector that is in the file.

        Raises:
            PortError: the file exists or cannot be written; NaN or Inf.
        """
        place = Path(place).expanduser()
        if place.exists() and not (overwrite and is_vector(place)):
            why = "is no task vector, and is not replaced" if overwrite else "exists"
            raise PortError(f"{place} {why}: name another file")
        require_writable(place)
        changed: dict[str, Tensor] = {}
        for key, tensor in self.tensors.items():
            if not is_finite(tensor):
                raise PortError(f"NaN or Inf in {key} of the task vector")
            if tensor.any():
                changed[key] = tensor.contiguous()
        with staged(place) as stage:
            save_file(changed, stage, metadata={"format": "pt", LINEAGE: json.dumps(dict(self.lineage))})
        return len(changed)

    @classmethod
    def load(cls, place: Path) -> "TaskVector":
        """Return the vector in a file that `save` wrote.

        Raises:
            PortError: it is another kind of file.
        """
        file = SafeTensors(place)
        if LINEAGE not in file.metadata:
            raise PortError(f"{place.name} is not a task vector: it has no lineage; make one with {EXTRACT}")
        try:
            said = parse_object(file.metadata[LINEAGE].encode(), f"the lineage in {place.name}")
        except PortError as error:
            raise PortError(f"{error.message}; make it anew with {EXTRACT}") from error
        lineage = {name: str(value) for name, value in said.items()}
        return cls(file, lineage)


def is_vector(place: Path) -> bool:
    """Return whether a file is one that `TaskVector.save` wrote."""
    try:
        return place.is_file() and bool(TaskVector.load(place))
    except PortError:
        return False


def weighted_sum(key: str, tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return Σ w τ, summed in order."""
    total = weights[0] * tensors[0]
    for weight, tensor in zip(weights[1:], tensors[1:], strict=True):
        total = total + weight * tensor
    return total


def combined(vectors: Sequence[TaskVector], weights: Sequence[float], rule: Rule = weighted_sum) -> TaskVector:
    """Return several vectors merged by a rule, tensor by tensor as they are read.

    Raises:
        PortError: the vectors are of different bases.
    """
    bases = {vector.lineage.get("base_sha256"): vector.lineage.get("base", "?") for vector in vectors}
    if len(bases) > 1:
        raise PortError(
            f"these task vectors are of different bases, {listed(list(bases.values()))}: only those of one add up"
        )
    names = [vector.lineage.get("source", "?") for vector in vectors]
    terms = [name if weight == 1 else f"{weight:g} × ({name})" for name, weight in zip(names, weights, strict=True)]
    parts = [vector.tensors for vector in vectors]
    made = {key: partial(_made, key, parts, weights, rule) for key in dict.fromkeys(k for part in parts for k in part)}
    lineage = {key: value for key, value in vectors[0].lineage.items() if key != "source_sha256"}
    return TaskVector(LazyTensors(made), lineage | {"source": " + ".join(terms)})


def _made(key: str, parts: Sequence[Tensors], weights: Sequence[float], rule: Rule) -> Tensor:
    """Return one tensor's merged change, float32; it counts as zero in vectors that do not have it."""
    found = [part[key].float() if key in part else None for part in parts]
    like = next(tensor for tensor in found if tensor is not None)
    if any(tensor is not None and tensor.shape != like.shape for tensor in found):
        raise PortError(f"{key} has several shapes: these are not vectors of one base")
    return rule(key, [torch.zeros_like(like) if tensor is None else tensor for tensor in found], weights)


def check_fits(delta: Tensors, target: Mapping[str, Any], name: str) -> None:
    """Refuse a task vector that does not fit a model.

    Args:
        target: name → anything with the shape of the model's tensor.
        name: the model's, for the error.

    Raises:
        PortError: the model lacks tensors or has them in another shape, or they hold NaN or Inf; all of them listed.
    """
    odd = []
    for key, change in delta.items():
        if key not in target:
            odd.append(f"{key} is not in it")
        elif target[key].shape != change.shape:
            odd.append(f"{key} is {tuple(target[key].shape)}, not {tuple(change.shape)}")
        elif not is_finite(change):
            odd.append(f"{key} has NaN or Inf")
    if odd:
        raise PortError(f"the task vector does not fit {name}: {listed(odd)}")


def vector(delta: StoredDelta, base: OpenedBase) -> TaskVector:
    """Return a delta's change as a task vector."""
    return TaskVector(
        delta.changes(base.weights),
        {"source": str(delta.pinned), "base": str(base.pinned), "base_sha256": delta.record.fingerprint.full or ""},
    )


def difference(tuned: Pinned, base: str | None, hub: Hub, *, trusted: bool = False) -> TaskVector:
    """Return the task vector τ = tuned − base.

    Args:
        base: a reference; None: the base that the fine-tune's card or config names.
        trusted: whether the base is taken for the fine-tune's whatever their weights say.

    Raises:
        PortError: no base is known, or the two are not a fine-tune and its base.
    """
    root = hub.resolve(base or base_of(tuned, hub))
    library, purpose, models = repo_models((tuned, root), hub, None)
    check_models(library, models, headed=purpose.kind is not PurposeKind.FEATURES)
    folders = [hub.fetch(pinned, opening_files(library, pinned)) for pinned in (tuned, root)]
    hashes = [
        fingerprint(SafeTensors(*(folder / name for name in shards(library, pinned))), full=True).full or ""
        for pinned, folder in zip((tuned, root), folders, strict=True)
    ]
    lineage = {"source": str(tuned), "base": str(root), "source_sha256": hashes[0], "base_sha256": hashes[1]}
    mine, theirs = open_source(library, purpose, models, folders)
    sites = models[1].sites()
    tau = change_of(mine, theirs, {s.key for site in sites for s in site.slices})
    if tau.apart:
        how = [f"{key} is {what}" for key, what in sorted(tau.apart.items())]
        note(f"left out of the task vector, as fine-tune and base differ in shape there: {listed(how)}")
    check_fine_tune(tau, tau.base, sites, trusted=trusted or isinstance(mine, Adapted))
    return TaskVector(tau, lineage)


def vector_of(
    source: str, base: str | None, revision: str | None, token: str | None, *, trusted: bool = False
) -> TaskVector:
    """Return the task vector of a source; see `TaskVector.from_pretrained`."""
    if Path(source).is_file():
        if base or revision:
            raise PortError(f"{source} is a file: it has no revision and names its base itself; give neither")
        return TaskVector.load(Path(source))
    hub = Hub(token)
    pinned = hub.resolve(at_revision(source, revision))
    if not is_delta(pinned, hub):
        return difference(one_kind(pinned), base, hub, trusted=trusted)
    delta = open_delta(hub, pinned)
    return vector(delta, open_base(hub, delta.record, [delta], base, full=False))


def is_delta(pinned: Pinned, hub: Hub) -> bool:
    """Return whether a repo is a delta repo."""
    return bool(hub.json(pinned, REPORT_FILE).get(SECTION))
