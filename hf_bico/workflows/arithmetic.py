"""Task arithmetic on repos: τ from a fine-tune and its base, and τ onto a model."""

from dataclasses import replace
from pathlib import Path

from hf_bico.core.errors import PortError, setting
from hf_bico.core.types import Tensors
from hf_bico.io.adapter import one_kind
from hf_bico.io.changes.delta import open_base, open_delta
from hf_bico.io.changes.vectors import TaskVector, check_fits, difference, is_vector, vector
from hf_bico.io.checkpoints import Named, OpenedBase, open_repo, require_finite
from hf_bico.io.hub import Hub
from hf_bico.io.models import repo_models
from hf_bico.io.reference import Pinned
from hf_bico.io.writer import require_apart, require_folder_of, require_room, staged, write_model
from hf_bico.reports.report import SumReport, write_report


def extract(
    source: str,
    base: str | None,
    output: Path,
    hub: Hub,
    subfolder: str | None = None,
    source_kind: str | None = None,
    *,
    trust_base: bool = False,
    overwrite: bool = False,
) -> tuple[TaskVector, int]:
    """Save τ = source − base as one safetensors file; return it and the number of tensors that changed.

    Args:
        subfolder: the folder of the source's repo that it is in.
        source_kind: what the source is taken for where it holds both: "model", or "adapter".
        trust_base: take the base for the fine-tune's even if their weights have nothing in common.
        overwrite: whether a task vector that is in the file is replaced.

    Raises:
        PortError: the two differ in shapes, the file exists, or either model cannot be had.
    """
    if output.exists() and not (overwrite and is_vector(output)):
        why = "is no task vector, and is not replaced" if overwrite else "exists"
        raise PortError(f"{output} {why}; name another with {setting('output')}")
    require_folder_of(output)
    found = difference(one_kind(hub.resolve(source), source_kind, subfolder), base, hub, trusted=trust_base)
    return found, found.save(output, overwrite=overwrite)


def apply(
    delta: str | Path, target: str, output: Path, alpha: float, hub: Hub, *, overwrite: bool = False
) -> tuple[Pinned, dict[str, str]]:
    """Write target + α τ as a whole model; return the target and the vector's lineage.

    Args:
        delta: a file that `extract` wrote, or a delta repo, whose head is written too.
        overwrite: whether a result that is in `output` is replaced.

    Raises:
        PortError: the vector does not fit the target, or the target cannot be had; a delta repo of another base.
    """
    require_room(output, 0, overwrite=overwrite)
    require_apart(output, (delta, target))
    head: Tensors = {}
    if not Path(delta).is_file():
        if Path(delta).suffix == ".safetensors":
            made = f"`hf-bico extract SOURCE --output {delta}`"
            raise PortError(f"there is no file {delta}: make it with {made}")
        stored = open_delta(hub, hub.resolve(str(delta)))
        base, head = open_base(hub, stored.record, [stored], target, full=False), stored.head
        found = vector(stored, base)
        change = found.tensors
    else:
        found = TaskVector.load(Path(delta))
        base, change = _onto(found, hub.resolve(target), hub)
    weights = base.weights.without(head)
    require_finite(base.pinned, weights)
    check_fits(change, weights, str(base.pinned))
    require_room(output, sum(tensor.nbytes for tensor in weights.values()), overwrite=overwrite)
    with staged(output, overwrite=overwrite) as stage:
        write_model(stage, replace(base, weights=weights), change, alpha, head)
        write_report(stage, SumReport(target=str(base.pinned), alpha=alpha, task_vector=dict(found.lineage)))
    return base.pinned, dict(found.lineage)


def _onto(found: TaskVector, pinned: Pinned, hub: Hub) -> tuple[OpenedBase, Tensors]:
    """Return the model to which a vector is added, and the change by that model's names."""
    library, purpose, (model,) = repo_models((pinned,), hub, None)
    base = open_repo(hub, pinned, library, purpose, model=model.skeleton)
    named = Named(found.tensors, library.names(model.skeleton, found.tensors))  # a bare body lacks its prefix
    change = {**named, **{key: found.tensors[key] for key in found.tensors.keys() - named.used}}
    return base, change
