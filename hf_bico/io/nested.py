"""Repos whose model lies in a folder of theirs, as sentence-transformers used to write them: read as if at the top."""

import atexit
import re
import shutil
import tempfile
from collections.abc import Collection
from dataclasses import replace
from functools import cache
from pathlib import Path

from hf_bico.io.reference import Pinned

PLACE = re.compile(r"(0_\w+)/config\.json")


def flattened(pinned: Pinned) -> Pinned:
    """Return a model repo with its files named as if its model lay at the top; others are returned as they are."""
    found = [match[1] for name in pinned.files if (match := PLACE.fullmatch(name))]
    if pinned.kind != "model" or "config.json" in pinned.files or "modules.json" not in pinned.files or not found:
        return pinned
    names = dict.fromkeys(name.removeprefix(f"{found[0]}/") for name in pinned.files)
    return replace(pinned, files=tuple(names), within=found[0])


def real_names(within: str, names: Collection[str]) -> tuple[str, ...]:
    """Return what files may be called in a repo whose model lies in the folder `within`."""
    return (*names, *(f"{within}/{name}" for name in names))


@cache
def linked(folder: Path, within: str, names: tuple[str, ...]) -> Path:
    """Return a folder, gone when this process ends, with links to those of the files `names` that there are: in the
    folder `within`, else at the top.
    """
    made = Path(tempfile.mkdtemp(prefix="hf-bico-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    for name in names:
        there = next((path for path in (folder / within / name, folder / name) if path.is_file()), None)
        if there is not None:
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).symlink_to(there.resolve())
    return made
