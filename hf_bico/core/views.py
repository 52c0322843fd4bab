"""Samples that are seen again, in another way."""

from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

from hf_bico.core.collect import Batch
from hf_bico.core.errors import PortError


@runtime_checkable
class Viewable(Protocol):
    """Batches of samples that can be shown in another way every time."""

    def view(self, number: int) -> Iterable[Batch]:
        """Return the batches of the samples' view of this number, the same for both models and whenever it is asked."""
        ...


def with_views(batches: Iterable[Batch], views: int) -> Iterator[Batch]:
    """Yield the batches, then those of so many other views of their samples.

    Raises:
        PortError: the samples have no other views.
    """
    yield from batches
    if not views:
        return
    if not isinstance(batches, Viewable):
        raise PortError("these samples have no other views: leave views out")
    for number in range(views):
        yield from batches.view(number)
