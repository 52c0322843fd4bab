"""Repos whose model lies in a folder of theirs, as sentence-transformers used to write them: read as if at the top."""

import atexit
import re
import shutil
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

from hf_bico.io.reference import Pinned

PLACE = re.compile(r"(0_\w+)/config\.json")


def flattened(pinned: Pinned) -> Pinned:
    """Return a model repo, or a folder of one, with its files named as if its model lay at the top; others are returned
    as they are.
    """
    found = [match[1] for name in pinned.files if (match := PLACE.fullmatch(name))]
    if pinned.kind != "model" or "config.json" in pinned.files or "modules.json" not in pinned.files or not found:
        return pinned
    place = f"{found[0]}/"
    own = tuple(name.removeprefix(place) for name in pinned.files if name.startswith(place))
    above = tuple(name for name in pinned.files if not name.startswith(place) and name not in own)
    folder = pinned.folder and pinned.folder / found[0]
    return replace(pinned, files=own + above, folder=folder, subfolder=pinned.place(found[0]), above=above)


@cache
def linked(folder: Path, names: tuple[str, ...], above: tuple[str, ...]) -> Path:
    """Return a folder, gone when this process ends, with links to those of the files `names` that there are.

    Args:
        folder: the model's.
        above: names of the files that are in the folder above it.
    """
    made = Path(tempfile.mkdtemp(prefix="hf-bico-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    for name in names:
        there = (folder.parent if name in above else folder) / name
        if there.is_file():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).symlink_to(there.resolve())
    return made
