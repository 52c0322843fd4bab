"""Writes folders that are complete or not there: staged beside their place, then renamed."""

import errno
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from hf_bico.core.errors import PortError, setting
from hf_bico.core.transport import added
from hf_bico.core.types import Tensors
from hf_bico.io.adapter import CONFIG, WEIGHTS
from hf_bico.io.checkpoints import OpenedBase
from hf_bico.io.outside import read_object
from hf_bico.io.stages import beside, replace

RECORDS = ("hf_bico.json", "hf_bico_maps.json", "compare.json")
"""Files of which every result that is a folder has one."""


def require_room(place: Path, needed: int, *, overwrite: bool = False) -> None:
    """Refuse, before the work, a place where its result cannot be written.

    Args:
        place: a new or empty folder.
        needed: bytes.
        overwrite: whether an earlier result that is there is to be replaced.

    Raises:
        PortError: the folder is in use, and is not to be replaced or is no result of this program; it may not be
            written to, or the disk has fewer than `needed` bytes left.
    """
    here, another = Path.cwd(), f"name another with {setting('output')}"
    used = place.exists() and (not place.is_dir() or any(place.iterdir()))
    if place.is_symlink() or place.resolve() in (here, *here.parents) or (used and not overwrite):
        instead = f", or replace it with {setting('overwrite')}" if used and is_result(place) else ""
        raise PortError(f"{place} is not a new or empty folder: {another}{instead}")
    if used and not is_result(place):
        raise PortError(f"{place} is no result of hf-bico, and is not replaced: {another}, or remove it yourself")
    free = shutil.disk_usage(require_writable(place)).free
    if free < needed:
        raise PortError(
            f"no space left for {place.name}: {needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free"
        )


def is_result(folder: Path) -> bool:
    """Return whether a folder's record says that this program wrote it, and nobody made a repository of it since."""
    if folder.is_symlink() or not folder.is_dir() or (folder / ".git").exists():
        return False
    return any(_is_ours(folder / name) for name in RECORDS if (folder / name).is_file())


def _is_ours(record: Path) -> bool:
    try:
        said = read_object(record)
    except PortError:
        return False
    return isinstance(said.get("hf_bico"), str) and isinstance(said.get("schema"), int)


def require_apart(place: Path, inputs: Iterable[str | Path | None]) -> None:
    """Refuse to replace a folder that something is read from.

    Raises:
        PortError: one of the inputs is the folder, or is in it.
    """
    for each in map(str, filter(None, inputs)):
        path = Path(os.path.expanduser(each))
        if path.exists() and path.resolve().is_relative_to(place.resolve()):
            raise PortError(
                f"{place} would be replaced, and {each} is read from it: name another with {setting('output')}"
            )


def require_writable(place: Path) -> Path:
    """Return the nearest existing folder above a place; refuse one that may not be written to.

    Raises:
        PortError: it may not.
    """
    above = next(parent for parent in place.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise PortError(
            f"nothing can be written to {place}: {above} is not a folder that may be "
            f"written to; name another with {setting('output')}"
        )
    return above


def require_folder_of(file: Path) -> None:
    """Refuse a place for a file in a folder that is not there: only a result that is a folder is made with those above.

    Raises:
        PortError: it is not there, or may not be written to.
    """
    if not file.absolute().parent.exists():
        raise PortError(f"there is no folder {file.parent}: make it, or name another place with {setting('output')}")
    require_writable(file)


@contextmanager
def staged(place: Path, *, overwrite: bool = False):
    """Yield a path beside `place` to write a file or folder to; move it to `place` if the block succeeds, else drop it.

    Args:
        overwrite: whether a folder that is there is replaced, once the new one is whole; else it must be empty.

    Raises:
        PortError: the disk is full or cannot be written to.
    """
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with beside(place) as folder:
            stage = folder / place.name
            yield stage
            for path in (stage, *stage.rglob("*")):
                path.chmod(0o755 if path.is_dir() else 0o644)  # safetensors' files can be read by their owner alone
            if overwrite and place.is_dir():
                replace(place, stage, folder / ".before")  # no result has a dot before its name
            else:
                if place.is_dir():
                    place.rmdir()
                stage.rename(place)
    except (OSError, SafetensorError) as error:
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        why = "no space left" if full else " ".join(str(error).split())
        raise PortError(f"{place.name} was not written: {why}") from error


def write_adapter(
    stage: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], base: Path, extra: Iterable[str]
) -> None:
    """Write a PEFT adapter, and copy the files `extra` (tokenizer and the like) from its base's folder."""
    stage.mkdir(exist_ok=True)
    (stage / CONFIG).write_text(json.dumps(dict(config), indent=2, sort_keys=True) + "\n", encoding="utf-8")
    save_file(dict(tensors), stage / WEIGHTS, metadata={"format": "pt"})
    copy_files(base, stage, extra)


def write_model(stage: Path, base: OpenedBase, delta: Tensors, alpha: float, head: Tensors) -> None:
    """Write θ_B + α τ_B as a repo of its library: tokenizer and processor are the base's, weights keep their dtype.

    Args:
        base: what the change is added to; its weights have the names of `delta` and `head`.
        head: layers on top that the base lacks, or that replace its own.

    Raises:
        PortError: NaN or Inf in the sum.
    """
    stage.mkdir(exist_ok=True)
    library, weights, files = base.library, base.weights, base.pinned.files
    dtype = next((tensor.dtype for tensor in weights.values() if tensor.is_floating_point()), torch.float32)
    tensors = dict(weights) | dict(added(weights, delta, alpha)) | {key: t.to(dtype) for key, t in head.items()}
    library.write(stage, base.model, base.folder, tensors.items())
    kept = () if (stage / library.config_file).exists() else (library.config_file,)
    copy_files(base.folder, stage, (name for name in (*kept, *library.extra(files)) if name in files))


def copy_files(folder: Path, stage: Path, names: Iterable[str]) -> None:
    """Copy some files of a folder to the same places in another."""
    for name in names:
        (stage / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, stage / name)
