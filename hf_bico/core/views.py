"""Samples that are seen again, in another way."""

from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

from hf_bico.core.collect import Batch
from hf_bico.core.errors import PortError


@runtime_checkable
class Viewable(Protocol):
    """Batches of samples that can be shown in another way every time."""

    def view(self, number: int) -> Iterable[Batch] | None:
        """Return the batches of the samples' view of this number, the same for both models and whenever it is asked;
        None where such samples have no other views.
        """
        ...


def view_of(batches: Iterable[Batch], number: int) -> Iterable[Batch] | None:
    """Return the samples' view of this number; None where they have no other views."""
    return batches.view(number) if isinstance(batches, Viewable) else None


def with_views(batches: Iterable[Batch], views: int) -> Iterator[Batch]:
    """Yield the batches, then those of so many other views of their samples.

    Raises:
        PortError: the samples have no other views.
    """
    yield from batches
    for number in range(views):
        seen = view_of(batches, number)
        if seen is None:
            raise PortError("these samples have no other views: leave views out")
        yield from seen
