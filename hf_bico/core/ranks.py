"""The processes that share the work on one port: who does what, and how what they found is put together.

One process alone is the usual case, in which every function here gives back what it is given.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import accumulate
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
import torch.distributed as dist
from torch import Tensor

from hf_bico.core.collect import Batch, Elsewhere, samples_in
from hf_bico.core.errors import PortError
from hf_bico.core.low_rank import Delta
from hf_bico.core.moments import Statistics
from hf_bico.core.transport import Transported

T = TypeVar("T")
S = TypeVar("S")


class Ranks:
    """One process, which does all of the work.

    Every method but `share` is called by all ranks at the same step, in the same order; `what` names the step.
    """

    rank = 0
    world = 1

    def exchanged(self, what: str, mine: T) -> list[T]:
        """Return what every rank says, in the order of the ranks."""
        return [mine]

    def add(self, tensor: Tensor) -> None:
        """Add to a tensor on the CPU, in place, the same tensor of all other ranks."""

    def agreed(self, what: str, compute: Callable[[], T]) -> T:
        """Return what this rank computes, if all ranks can.

        Raises:
            PortError: some rank refuses; it is the same error on all of them.
        """
        return compute()

    def lead(self, what: str, compute: Callable[[], T]) -> T | None:
        """Return what rank 0 computes, alone, while the others wait; None on those.

        Raises:
            PortError: rank 0 refuses; all do then.
        """
        return compute()

    def first(self, what: str, compute: Callable[[], T]) -> T:
        """Return what rank 0 computes, alone, to all of them.

        Raises:
            PortError: rank 0 refuses; all do then.
        """
        return compute()

    def each(self, what: str, compute: Callable[[S], T], items: Sequence[S]) -> list[T]:
        """Return `compute` of every item, in order; every item is one rank's, which computes it alone.

        Raises:
            PortError: some rank refuses.
        """
        return [compute(item) for item in items]

    def share(self, costs: Sequence[float]) -> slice:
        """Return which of a row of tasks are this rank's: neighbours, about as costly in all as those of any other."""
        if self.world == 1 or not sum(costs):
            return slice(0, len(costs) if self.rank == 0 else 0)
        ends = list(accumulate(costs))
        middles = [(end - cost / 2) / ends[-1] for cost, end in zip(costs, ends, strict=True)]
        owners = [min(int(middle * self.world), self.world - 1) for middle in middles]
        return slice(sum(who < self.rank for who in owners), sum(who <= self.rank for who in owners))


ALONE = Ranks()
_here: ContextVar[Ranks] = ContextVar("ranks", default=ALONE)


def here() -> Ranks:
    """Return the ranks that share the work of the block that runs."""
    return _here.get()


@contextmanager
def within(ranks: Ranks) -> Iterator[Ranks]:
    """Share the work of the block among some ranks."""
    before = _here.set(ranks)
    try:
        yield ranks
    finally:
        _here.reset(before)


class Group(Ranks):
    """The ranks of torch's process group, which is joined already.

    All that they tell one another goes over the CPU (gloo): sums are large and few, and a rank that dies closes its
    connections, so that every other one that waits for it gets an error.
    """

    def __init__(self) -> None:
        self.rank, self.world = dist.get_rank(), dist.get_world_size()

    def exchanged(self, what: str, mine: T) -> list[T]:
        said: list[Any] = [None] * self.world
        dist.all_gather_object(said, (what, mine))
        if steps := {step for step, _ in said} - {what}:
            raise RuntimeError(f"process {self.rank} has come to {what!r}, another to {', '.join(sorted(steps))}")
        return [each for _, each in said]

    def add(self, tensor: Tensor) -> None:
        dist.all_reduce(tensor)

    def agreed(self, what: str, compute: Callable[[], T]) -> T:
        found, own = None, None
        try:
            found = compute()
        except PortError as error:
            own = error
        refusals = [each for each in self.exchanged(what, own and own.message) if each is not None]
        if refusals:
            raise PortError(refusals[0]) from own
        return found  # type: ignore[return-value]  # nobody refused, so it was computed

    def lead(self, what: str, compute: Callable[[], T]) -> T | None:
        return self.agreed(what, lambda: _alone(compute) if self.rank == 0 else None)

    def first(self, what: str, compute: Callable[[], T]) -> T:
        return self.exchanged(what, self.lead(what, compute))[0]  # type: ignore[return-value]  # rank 0 has it

    def each(self, what: str, compute: Callable[[S], T], items: Sequence[S]) -> list[T]:
        own = self.agreed(what, lambda: _alone(lambda: [compute(item) for item in items[self.rank :: self.world]]))
        found = [iter(each) for each in self.exchanged(what, own)]
        return [next(found[k % self.world]) for k in range(len(items))]


def _alone(compute: Callable[[], T]) -> T:
    """Return what is computed without the other ranks."""
    with within(ALONE):
        return compute()


def require_same(what: str, mine: object) -> None:
    """Refuse ranks that do not work on the same thing, by what they say of it.

    Raises:
        PortError: they do not.
    """
    if len({repr(each) for each in here().exchanged(what, mine)}) > 1:
        raise PortError(
            f"the processes do not agree on {what}: give all of them the same command, the same versions of all "
            "packages and the same files"
        )


@runtime_checkable
class Divisible(Protocol):
    """Batches that can be divided over ranks, so that no rank prepares those of another."""

    def divided(self, rank: int, world: int) -> Iterable[Batch]:
        """Return the batches with `Elsewhere` in place of those of other ranks: batch k is rank k mod world's."""
        ...


def divided(batches: Iterable[Batch]) -> Iterable[Batch]:
    """Return the batches of this rank, and `Elsewhere` in place of each of the others."""
    ranks = here()
    if ranks.world == 1:
        return batches
    if isinstance(batches, Divisible):
        return batches.divided(ranks.rank, ranks.world)
    return [
        batch if k % ranks.world == ranks.rank else Elsewhere(samples_in(batch.base) or 0)
        for k, batch in enumerate(batches)
    ]


class _Blank(NamedTuple):
    """What a sum is like: enough for a rank that has none of its own to add zeros."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: str
    """Its type; every rank has a device of its own."""


def _blank(value: Any) -> Any:
    return _Blank(tuple(value.shape), value.dtype, value.device.type) if isinstance(value, Tensor) else value


def summed(seen: Statistics) -> Statistics:
    """Add to the statistics of this rank's batches those of all others', in place, and return them.

    They are the same to the bit on every rank, and do not depend on who was ready first: numbers are added in the order
    of the ranks, tensors as gloo's ring goes.
    """
    ranks = here()
    if ranks.world == 1:
        return seen
    sums = {(name, field): (part, field) for name, part in seen.parts() for field in part.SUMS}
    told = ranks.exchanged("sums", {key: _blank(getattr(part, field)) for key, (part, field) in sums.items()})
    for key in sorted(sums):  # the statistics' own order is that of a set, which no two processes share
        part, field = sums[key]
        each = [one[key] for one in told if one[key] is not None]
        if each and isinstance(each[0], _Blank):
            setattr(part, field, _added(getattr(part, field), each))
        elif each:
            setattr(part, field, sum(each))
    return seen


def _added(own: Tensor | None, each: Sequence[_Blank]) -> Tensor:
    """Return the sum of a tensor over the ranks, on the device of those that have it there."""
    total = torch.zeros(each[0].shape, dtype=each[0].dtype) if own is None else own.cpu().contiguous()
    here().add(total)
    return total.to(next((one.device for one in each if one.device != "cpu"), "cpu"))


def joined(mine: Transported) -> Transported:
    """Return the change that all ranks have moved, of the parts that each moved of its own share.

    What a rank did not move of a tensor is zero there, so that parts are added; products are left in factors.
    """
    ranks = here()
    if ranks.world == 1:
        return mine
    own = mine.delta
    told = ranks.exchanged(
        "parts", ({key: _blank(tensor) for key, tensor in own.whole.items()}, own.products, mine.moved, mine.rode)
    )
    delta = Delta(own.shapes)
    for key in dict.fromkeys(key for whole, *_ in told for key in whole):
        blanks = [whole[key]._replace(device="cpu") for whole, *_ in told if key in whole]
        delta.put(key, _added(own.whole.get(key), blanks))
    for _, products, _, _ in told:
        for key, parts in products.items():
            delta.products.setdefault(key, {}).update(parts)
    return Transported(
        delta,
        [each for _, _, moved, _ in told for each in moved],
        rode=[each for *_, rode in told for each in rode],
    )
