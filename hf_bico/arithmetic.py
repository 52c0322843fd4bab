"""Task arithmetic on repos: τ out of a fine-tune and its base, and τ onto a model."""

from pathlib import Path

from hf_bico.blueprint import base_of
from hf_bico.core.errors import PortError
from hf_bico.core.transport import Difference, check_fine_tune
from hf_bico.families import FAMILIES
from hf_bico.io.checkpoints import SafeTensors, require_family, require_finite
from hf_bico.io.hub import Hub
from hf_bico.io.reference import Pinned, sha256
from hf_bico.io.task_vector import TaskVector, check_fits
from hf_bico.io.writer import require_room, require_writable, staged, write_model


def extract(source: str, base: str | None, output: Path, hub: Hub) -> tuple[TaskVector, int]:
    """Save τ = source − base as one safetensors file; the vector and how many tensors changed.

    Raises:
        PortError: the two are not of one shape, the file exists, or either cannot be had.
    """
    if output.exists():
        raise PortError(f"{output} exists; name another with --output")
    require_writable(output)
    family = FAMILIES[0]
    tuned = hub.resolve(source)
    root = hub.resolve(base or base_of(tuned, hub))
    for pinned in (tuned, root):
        require_family(pinned, family)
    folders = [hub.fetch(pinned, (family.config_file, family.weights_file)) for pinned in (tuned, root)]
    paths = [folder / family.weights_file for folder in folders]
    lineage = {"source": str(tuned), "base": str(root), "source_sha256": sha256(paths[0]),
               "base_sha256": sha256(paths[1])}
    tau = Difference(*map(SafeTensors, paths))
    check_fine_tune(tau, tau.base, family.sites(family.skeleton(folders[1])))
    vector = TaskVector(tau, lineage)
    return vector, vector.save(output)


def apply(delta: Path, target: str, output: Path, alpha: float, hub: Hub) -> tuple[Pinned, dict[str, str]]:
    """Write target + α τ as a whole model; the target and the vector's lineage.

    Raises:
        PortError: the vector does not fit the target, or the target cannot be had.
    """
    family = FAMILIES[0]
    vector = TaskVector.load(delta)
    pinned = hub.resolve(target)
    require_family(pinned, family)
    folder = hub.fetch(pinned, (family.config_file, family.weights_file, *family.extra_files))
    weights = SafeTensors(folder / family.weights_file)
    require_finite(pinned, weights)
    check_fits(vector.tensors, weights, str(pinned))
    require_room(output, sum(tensor.nbytes for tensor in weights.values()))
    with staged(output) as stage:
        write_model(stage, family, folder, pinned.files, vector.tensors, alpha)
    return pinned, dict(vector.lineage)
