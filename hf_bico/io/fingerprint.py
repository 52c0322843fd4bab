"""Hashes that say which weights a repo holds, whatever it is called and however its files are cut into shards."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from hf_bico.core.errors import PortError
from hf_bico.io.checkpoints import SafeTensors

LOOKED_AT = 64
"""Number of elements of every tensor that the sample reads."""


@dataclass(frozen=True)
class Fingerprint:
    """sha256 (hex) of what a model's files hold, at three depths; each covers names, dtypes and shapes too."""

    header: str
    """Hash of names, dtypes and shapes as stored."""
    sample: str
    """Hash of up to 64 evenly spaced elements of every tensor: two fine-tunes of one base differ in it."""
    full: str | None = None
    """Hash of every byte; None where it was not asked for."""

    @classmethod
    def of_record(cls, data: Any) -> "Fingerprint":
        """Return the fingerprint that `record` made this of.

        Raises:
            PortError: it is not such a record.
        """
        names = cls.__dataclass_fields__
        if (
            not isinstance(data, Mapping)
            or set(data) - set(names)
            or not all(_is_hash(data.get(name)) or (name == "full" and data.get(name) is None) for name in names)
        ):
            raise PortError("a fingerprint needs the sha256 hashes header, sample and, if it was taken, full")
        return cls(**data)

    def record(self) -> dict[str, str | None]:
        """Return the hashes as plain JSON data."""
        return asdict(self)

    def matches(self, other: "Fingerprint", full: bool = False) -> bool:
        """Return whether both are of the same weights.

        Args:
            full: compare every byte; a side whose bytes were not all read then matches nothing.
        """
        alike = (self.header, self.sample) == (other.header, other.sample)
        return alike and (not full or (self.full is not None and self.full == other.full))


def fingerprint(tensors: SafeTensors, full: bool = False) -> Fingerprint:
    """Return the fingerprint of a model's files; one tensor is read at a time, and without `full` only parts of it."""
    names = sorted(tensors)
    header = hashlib.sha256()
    for name in names:
        stored = tensors.files[name].get_slice(name)
        header.update(f"{name}\0{stored.get_dtype()}\0{tuple(stored.get_shape())}\n".encode())
    start = header.digest()
    sample = _hashed(start, (few(tensors[name]) for name in names))
    whole = _hashed(start, (raw(tensors[name]) for name in names)) if full else None
    return Fingerprint(header.hexdigest(), sample, whole)


def raw(tensor: Tensor) -> Tensor:
    """Return a tensor's bytes (n, bytes per element), uint8; a view where the tensor is contiguous."""
    flat = tensor.reshape(-1)
    return flat.view(torch.uint8).view(len(flat), tensor.element_size())


def few(tensor: Tensor) -> Tensor:
    """Return the bytes of up to `LOOKED_AT` evenly spaced elements, the first and the last among them."""
    rows = raw(tensor)
    n, last = min(LOOKED_AT, len(rows)), len(rows) - 1
    return rows[[i * last // max(n - 1, 1) for i in range(n)]]


def _hashed(start: bytes, parts: Iterable[Tensor]) -> str:
    digest = hashlib.sha256(start)
    for part in parts:
        digest.update(part.numpy().data)
    return digest.hexdigest()


def _is_hash(text: Any) -> bool:
    return isinstance(text, str) and len(text) == 64 and not set(text) - set("0123456789abcdef")
