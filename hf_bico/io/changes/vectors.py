"""τ as named tensors with a lineage: added, scaled, saved; `extract` writes one, `apply` adds one to a model."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from hf_bico.core.errors import PortError, listed
from hf_bico.core.transport import check_fine_tune, check_scale
from hf_bico.core.types import Tensors
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
from hf_bico.io.hub import Hub
from hf_bico.io.models import base_of, check_models, repo_models
from hf_bico.io.reference import Pinned, at_revision
from hf_bico.io.writer import require_writable, staged

LINEAGE = "hf_bico"
Rule = Callable[[str, Sequence[Tensor], Sequence[float]], Tensor]
"""(name, a tensor's change in every vector, weights) → the change that they make together."""


@dataclass(frozen=True)
class TaskVector:
    """τ: named changes of a base model's tensors, read one at a time, and what they are the difference of.

    Vectors of one base add up, and scale: `0.5 * (a + b) - c`. What does not change need not be in a vector.
    """

    tensors: Tensors
    """Name in the model's state dict → change."""
    lineage: Mapping[str, str]
    """source, base, and the sha256 of the tensors of either."""

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        base: str | Path | None = None,
        *,
        revision: str | None = None,
        token: str | None = None,
    ) -> "TaskVector":
        """Return the change that a repo holds.

        Args:
            source: a fine-tune or an adapter (its change is that from its base), a delta repo, or a file that `save`
                wrote.
            base: of a fine-tune whose card or config does not name it.
            revision: of `source`.
            token: a User Access Token, else that of `hf auth login` or HF_TOKEN.

        Raises:
            PortError: it cannot be had, no base is known, or the two are no fine-tune and its base.
        """

        return vector_of(str(source), None if base is None else str(base), revision, token)

    def __add__(self, other: "TaskVector") -> "TaskVector":
        """Add another vector of the same base.

        Raises:
            PortError: the two are of different bases, or a tensor has two shapes.
        """
        return combined([self, other], [1.0, 1.0]) if isinstance(other, TaskVector) else NotImplemented

    def __sub__(self, other: "TaskVector") -> "TaskVector":
        return combined([self, other], [1.0, -1.0]) if isinstance(other, TaskVector) else NotImplemented

    def __mul__(self, scale: float) -> "TaskVector":
        """Scale the vector; refuse a scale that is NaN or Inf."""
        if not isinstance(scale, Real):
            return NotImplemented
        check_scale(scale)
        return combined([self], [float(scale)])

    __rmul__ = __mul__

    def __radd__(self, other: Any) -> "TaskVector":
        """Serve `sum`, which begins at 0."""
        return self if isinstance(other, int) and other == 0 else NotImplemented

    def __neg__(self) -> "TaskVector":
        return self * -1.0

    def norm(self) -> float:
        """Return ‖τ‖ (Frobenius, of all tensors together), in float64."""
        return sum(float(tensor.double().square().sum()) for tensor in self.tensors.values()) ** 0.5

    def save(self, place: str | Path) -> int:
        """Write the tensors that changed to a new .safetensors file; how many there are.

        Raises:
            PortError: the place is taken or cannot be written; NaN or Inf.
        """
        place = Path(place).expanduser()
        if place.exists():
            raise PortError(f"{place} exists; name another")
        require_writable(place)
        changed: dict[str, Tensor] = {}
        for key, tensor in self.tensors.items():
            if not tensor.isfinite().all():
                raise PortError(f"NaN or Inf in {key} of the task vector")
            if tensor.any():
                changed[key] = tensor.contiguous()
        with staged(place) as stage:
            save_file(changed, stage, metadata={"format": "pt", LINEAGE: json.dumps(dict(self.lineage))})
        return len(changed)

    @classmethod
    def load(cls, place: Path) -> "TaskVector":
        """Return what `save` wrote; refuse any other file."""
        file = SafeTensors(place)
        if LINEAGE not in file.metadata:
            raise PortError(f"{place.name} is not a task vector: it carries no lineage; make one with `extract`")
        try:
            lineage = {str(name): str(value) for name, value in json.loads(file.metadata[LINEAGE]).items()}
        except (AttributeError, ValueError) as error:
            raise PortError(
                f"the lineage in {place.name} is no readable JSON object; make it anew with `extract`"
            ) from error
        return cls(file, lineage)


def weighted_sum(key: str, tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return Σ w τ, in order."""
    total = weights[0] * tensors[0]
    for weight, tensor in zip(weights[1:], tensors[1:], strict=True):
        total = total + weight * tensor
    return total


def combined(vectors: Sequence[TaskVector], weights: Sequence[float], rule: Rule = weighted_sum) -> TaskVector:
    """Return the vector that several make together by a rule.

    Raises:
        PortError: vectors of different bases.
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
    """Return a tensor's change of all vectors together; it is zero in one that has it not."""
    found = [part[key].float() if key in part else None for part in parts]
    like = next(tensor for tensor in found if tensor is not None)
    if any(tensor is not None and tensor.shape != like.shape for tensor in found):
        raise PortError(f"{key} has several shapes: these are not vectors of one base")
    return rule(key, [torch.zeros_like(like) if tensor is None else tensor for tensor in found], weights)


def check_fits(delta: Tensors, target: Mapping[str, Any], name: str) -> None:
    """Refuse a delta that a model cannot take.

    Raises:
        PortError: tensors that the target lacks, has in another shape, or that hold NaN or Inf; all of them listed.
    """
    odd = []
    for key, change in delta.items():
        if key not in target:
            odd.append(f"{key} is not in it")
        elif target[key].shape != change.shape:
            odd.append(f"{key} is {tuple(target[key].shape)}, not {tuple(change.shape)}")
        elif not change.isfinite().all():
            odd.append(f"{key} has NaN or Inf")
    if odd:
        raise PortError(f"the task vector does not fit {name}: {listed(odd)}")


def vector(delta: StoredDelta, base: OpenedBase) -> TaskVector:
    """Return a delta's change as a task vector."""
    return TaskVector(
        delta.changes(base.weights),
        {"source": str(delta.pinned), "base": str(base.pinned), "base_sha256": delta.record.fingerprint.full or ""},
    )


def difference(tuned: Pinned, base: str | None, hub: Hub) -> TaskVector:
    """Return τ = tuned − base.

    Raises:
        PortError: no base is known, or the two are no fine-tune and its base.
    """
    root = hub.resolve(base or base_of(tuned, hub))
    library, purpose, models = repo_models((tuned, root), hub, None)
    check_models(library, models)
    folders = [hub.fetch(pinned, opening_files(library, pinned)) for pinned in (tuned, root)]
    hashes = [
        fingerprint(SafeTensors(*(folder / name for name in shards(library, pinned))), full=True).full or ""
        for pinned, folder in zip((tuned, root), folders, strict=True)
    ]
    lineage = {"source": str(tuned), "base": str(root), "source_sha256": hashes[0], "base_sha256": hashes[1]}
    mine, theirs = open_source(library, purpose, models, folders)
    tau = change_of(mine.without(mine.keys() - theirs.keys()), theirs.without(theirs.keys() - mine.keys()))
    check_fine_tune(tau, tau.base, models[1].sites())
    return TaskVector(tau, lineage)


def vector_of(source: str, base: str | None, revision: str | None, token: str | None) -> TaskVector:
    """Return what `TaskVector.from_pretrained` gives."""
    if Path(source).is_file():
        if base or revision:
            raise PortError(f"{source} is a file: it has no revision, and says itself what its base is")
        return TaskVector.load(Path(source))
    hub = Hub(token)
    pinned = hub.resolve(at_revision(source, revision))
    if not is_delta(pinned, hub):
        return difference(pinned, base, hub)
    delta = open_delta(hub, pinned)
    return vector(delta, open_base(hub, delta.record, [delta], base, full=False))


def is_delta(pinned: Pinned, hub: Hub) -> bool:
    return bool(hub.json(pinned, REPORT_FILE).get(SECTION))
