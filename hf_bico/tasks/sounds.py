"""Sound files of any kind that libsndfile reads, as recordings of one channel."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from hf_bico.core.errors import PortError
from hf_bico.families.sounds import Sound


def as_sound(index: int, value: Mapping[str, Any] | None) -> Sound:
    """Return a row's sound, its channels averaged.

    Args:
        index: the row's, for errors.
        value: the bytes of a file, or else its path, as `datasets` gives them undecoded.

    Raises:
        PortError: there is none, it is truncated or of an unknown kind, it is empty or holds NaN.
    """
    import soundfile

    if value is None or (value.get("bytes") is None and not value.get("path")):
        raise PortError(f"row {index} has no sound: leave such rows out of the dataset, or name another split")
    try:
        data = value["bytes"] if value.get("bytes") is not None else _file(value["path"])
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            said, rate = file.frames, file.samplerate
            samples = file.read(dtype="float32", always_2d=True).mean(1)
    except (OSError, RuntimeError, ValueError) as error:
        raise PortError(f"the sound of row {index} cannot be read: {' '.join(str(error).split())}") from error
    if len(samples) < said or _is_cut(data):
        raise PortError(f"the sound of row {index} cannot be read: its file is truncated")
    if not len(samples) or not np.isfinite(samples).all():
        raise PortError(f"the sound of row {index} {'holds NaN' if len(samples) else 'is empty'}: leave it out")
    return Sound(samples, rate)


def _file(path: str) -> bytes:
    from datasets.utils.file_utils import xopen

    with xopen(path, "rb") as file:
        data: bytes = file.read()
    return data


STREAMED = (0, 0xFFFFFFFF)
"""Sizes in WAV files that were written before their length was known."""


def _is_cut(data: bytes) -> bool:
    """Return whether a WAV file says that it is longer than it is; libsndfile reads what there is."""
    size = int.from_bytes(data[4:8], "little")
    return data[:4] == b"RIFF" and size not in STREAMED and size + 8 > len(data) + 1
