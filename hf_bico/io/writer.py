"""Folders that are whole or not there: staged beside their place, then renamed."""

import errno
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from hf_bico.core.errors import PortError
from hf_bico.core.transport import added
from hf_bico.core.types import Tensors
from hf_bico.families import Family
from hf_bico.io.checkpoints import SafeTensors


def require_room(place: Path, needed: int) -> None:
    """Refuse before the work when its result cannot be written.

    Raises:
        PortError: the folder exists and is not empty, or the disk has less than `needed` bytes left.
    """
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise PortError(f"{place} exists and is not an empty folder; name another with --output")
    above = next(parent for parent in place.absolute().parents if parent.exists())
    free = shutil.disk_usage(above).free
    if free < needed:
        raise PortError(f"no space left for {place.name}: {needed / 1e6:.0f} MB are needed, "
                        f"{free / 1e6:.0f} MB are free")


@contextmanager
def staged(place: Path):
    """A folder to write into; it takes its place when the block ends well and is gone otherwise.

    Raises:
        PortError: the disk is full or may not be written.
    """
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{place.name}-", dir=place.parent) as folder:
            stage = Path(folder) / "stage"
            stage.mkdir()
            yield stage
            for path in stage.rglob("*"):
                path.chmod(0o755 if path.is_dir() else 0o644)  # safetensors writes for its owner alone
            if place.exists():
                place.rmdir()
            stage.rename(place)
    except (OSError, SafetensorError) as error:
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        why = "no space left" if full else " ".join(str(error).split())
        raise PortError(f"{place.name} was not written: {why}") from error


def write_model(stage: Path, family: Family, base: Path, base_files: Iterable[str], delta: Tensors,
                alpha: float) -> None:
    """θ_B + α τ_B as a repo of its family: config and tokenizer are the target's own, weights keep their dtype.

    Raises:
        PortError: a tensor of the delta that the target does not have, or of another shape; all of them listed.
    """
    for name in (family.config_file, *family.extra_files):
        if name in base_files:
            shutil.copyfile(base / name, stage / name)
    weights = SafeTensors(base / family.weights_file)
    changed = dict(added(weights, delta, alpha))
    save_file({key: changed[key] if key in changed else weights[key] for key in weights},
              stage / family.weights_file, metadata={"format": "pt"} | weights.metadata)


def write_tensors(place: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """A safetensors file, whole or not there."""
    with staged_file(place) as path:
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path, metadata=metadata)


@contextmanager
def staged_file(place: Path):
    """A path to write to; the file takes its place when the block ends well."""
    with tempfile.TemporaryDirectory(prefix=f".{place.name}-", dir=place.parent) as folder:
        path = Path(folder) / place.name
        yield path
        path.rename(place)
