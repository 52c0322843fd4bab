"""What waits until it is needed waits in a file without a name, and takes no memory."""

from collections.abc import Iterator, Mapping, MutableMapping
from tempfile import TemporaryFile
from typing import IO, Any, NamedTuple

import torch
from torch import Tensor

from hf_bico.core.low_rank import Delta

SMALL = 1 << 16
"""Bytes of a tensor below which it is not worth a file."""


class _Place(NamedTuple):
    """Where a tensor lies in the file, and what it is."""

    start: int
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device


class Shelf(MutableMapping[str, Tensor]):
    """Named tensors in a temporary file, which is gone with the last reference to the shelf; each is read anew, to the
    bit, whenever it is asked for.

    Small ones stay in memory, as do those that the disk has no room for and those that are put there later.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._file: IO[bytes] | None = None
        self._end = 0
        self._places: dict[str, _Place | Tensor] = {}
        for key, tensor in tensors.items():
            self._places[key] = self._kept(tensor.detach())

    def __getitem__(self, key: str) -> Tensor:
        place = self._places[key]
        if isinstance(place, Tensor):
            return place
        assert self._file is not None  # it has a place in it
        found = torch.empty(place.shape, dtype=place.dtype)
        room = _bytes(found)
        self._file.seek(place.start)
        while len(room):
            room = room[self._file.readinto(room) :]  # type: ignore[attr-defined]  # an unbuffered file has it
        return found.to(place.device)

    def __setitem__(self, key: str, tensor: Tensor) -> None:
        self._places[key] = tensor

    def __delitem__(self, key: str) -> None:
        del self._places[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def _kept(self, tensor: Tensor) -> _Place | Tensor:
        """Return where a tensor was written to; the tensor itself where it is small or there is no room."""
        if tensor.nbytes < SMALL:
            return tensor.clone()  # which may be a view of something large
        place = _Place(self._end, tensor.shape, tensor.dtype, tensor.device)
        try:
            if self._file is None:
                self._file = TemporaryFile(prefix="hf_bico-", buffering=0)  # noqa: SIM115  # open as long as the shelf is
            room = _bytes(tensor.cpu().contiguous())
            self._file.seek(self._end)
            while len(room):
                room = room[self._file.write(room) :]
        except OSError:
            return tensor
        self._end += tensor.nbytes
        return place


def _bytes(tensor: Tensor) -> memoryview:
    """Return a contiguous tensor's bytes, in place."""
    found: Any = tensor.reshape(-1).view(torch.uint8).numpy()
    return memoryview(found)


def shelved(delta: Delta) -> Delta:
    """Return the same change with its dense tensors on a shelf; products of thin factors stay in memory."""
    made = Delta(delta.shapes)
    made.whole, made.products = Shelf(delta.whole), delta.products
    return made
