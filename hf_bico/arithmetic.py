"""Task arithmetic on repos: τ out of a fine-tune and its base, and τ onto a model."""

from pathlib import Path

from hf_bico.blueprint import base_of
from hf_bico.core.errors import PortError
from hf_bico.core.transport import check_fine_tune
from hf_bico.io.checkpoints import Named, SafeTensors, require_finite, shards
from hf_bico.io.hub import Hub
from hf_bico.io.reference import Pinned, sha256
from hf_bico.io.task_vector import TaskVector, check_fits
from hf_bico.io.writer import require_room, require_writable, staged, write_model
from hf_bico.models import anatomies, check_models
from hf_bico.weigh import change_of, open_source, opening_files


def extract(source: str, base: str | None, output: Path, hub: Hub) -> tuple[TaskVector, int]:
    """Save τ = source − base as one safetensors file; the vector and how many tensors changed.

    Raises:
        PortError: the two are not of one shape, the file exists, or either cannot be had.
    """
    if output.exists():
        raise PortError(f"{output} exists; name another with --output")
    require_writable(output)
    tuned = hub.resolve(source)
    root = hub.resolve(base or base_of(tuned, hub))
    library, purpose, models = anatomies((tuned, root), hub, None)
    check_models(library, models)
    folders = [hub.fetch(pinned, opening_files(library, pinned)) for pinned in (tuned, root)]
    hashes = [sha256(*(folder / name for name in shards(library, pinned)))
              for pinned, folder in zip((tuned, root), folders, strict=True)]
    lineage = {"source": str(tuned), "base": str(root), "source_sha256": hashes[0], "base_sha256": hashes[1]}
    views = open_source(library, purpose, models, folders)
    tau = change_of(*(mine.without(mine.keys() - theirs.keys()) for mine, theirs in (views, views[::-1])))
    check_fine_tune(tau, tau.base, models[1].sites())
    vector = TaskVector(tau, lineage)
    return vector, vector.save(output)


def apply(delta: Path, target: str, output: Path, alpha: float, hub: Hub) -> tuple[Pinned, dict[str, str]]:
    """Write target + α τ as a whole model; the target and the vector's lineage.

    Raises:
        PortError: the vector does not fit the target, or the target cannot be had.
    """
    vector = TaskVector.load(delta)
    pinned = hub.resolve(target)
    library, purpose, (model,) = anatomies((pinned,), hub, None)
    folder = hub.fetch(pinned, (library.config_file, *library.weights(pinned.files), *library.extra(pinned.files)))
    weights = Named(SafeTensors.of(library, pinned, folder), model.shapes.names)
    require_finite(pinned, weights)
    named = Named(vector.tensors, library.names(model.skeleton, vector.tensors))  # a bare body lacks its prefix
    change = {**named, **{key: vector.tensors[key] for key in vector.tensors.keys() - named.used}}
    check_fits(change, weights, str(pinned))
    require_room(output, sum(tensor.nbytes for tensor in weights.values()))
    with staged(output) as stage:
        write_model(stage, library, library.skeleton(folder, purpose), folder, pinned.files, weights, change, alpha, {})
    return pinned, dict(vector.lineage)
