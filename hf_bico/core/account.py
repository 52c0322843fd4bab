"""What becomes of all of a task vector: what moves, and what stays behind and why."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from hf_bico.core.difference import Compared
from hf_bico.core.errors import PortError, listed
from hf_bico.core.gains import Told
from hf_bico.core.riders import Ride, Rode, change_of, parted
from hf_bico.core.transport import part_of
from hf_bico.core.types import Pair, Site, Slice, Tensors

STAYED = "no map knows enough to carry it along, or the method leaves it, or it did harm on held-out samples"


@dataclass(frozen=True)
class Left:
    """A tensor of τ that stays behind."""

    key: str
    reason: str
    norm: float


@dataclass(frozen=True)
class Account:
    """What becomes of all of τ: what the pairs take (once, however many layers of B it goes to) and what stays."""

    moved_norm: float
    """‖τ‖ of what the pairs take, and of what moves along."""
    left: list[Left]
    beside: Mapping[str, float] = field(default_factory=dict)
    """Name of what is to move along → its ‖τ‖ in rows that have a partner."""

    def __repr__(self) -> str:
        return f"Account({self.moved_share:.1%} of ‖τ‖² moves, {len(self.left)} tensors stay)"

    def after(self, rode: Iterable[Rode]) -> "Account":
        """Return the account once it is known what moved along."""
        moved = {each.source for each in rode}
        stayed = [Left(key, STAYED, norm) for key, norm in self.beside.items() if norm and key not in moved]
        rest = self.moved_norm**2 - sum(entry.norm**2 for entry in stayed)
        return Account(max(rest, 0.0) ** 0.5, [*self.left, *stayed])

    @property
    def moved_share(self) -> float:
        """The share of ‖τ‖² that the pairs take."""
        total = self.moved_norm**2 + sum(entry.norm**2 for entry in self.left)
        return self.moved_norm**2 / total if total else 1.0


def account(
    tau: Tensors,
    pairs: Sequence[Pair],
    left_reason: Callable[[str], str | None],
    sites: Iterable[Site],
    rides: Iterable[Ride] = (),
) -> Account:
    """Return how much of τ the pairs take, and which tensors stay behind; unchanged tensors are not listed.

    Args:
        left_reason: tensor name → why a tensor outside every site stays behind; None if unknown.
        sites: all of the source's sites, to account for those that no pair takes.
        rides: what moves along with the pairs.

    Raises:
        PortError: neither a pair nor a reason accounts for some tensors, which are listed.
    """
    moved = {s for pair in pairs for s in pair.moving}
    keys = {s.key for s in moved}
    unused = {s.key: f"no block of the target takes {site.name}" for site in sites for s in site.slices}
    unused |= {
        a.bias.key: "the target's layers of this kind have no bias"
        for a, b in pairs
        if a.bias is not None and b.bias is None
    }
    left, orphans, beside = list[Left](), [], dict[str, float]()
    taken = sum(float(part_of(tau, s).norm()) ** 2 for s in sorted(moved, key=lambda each: each.key))
    for ride in rides:
        key, norm, rest = _parted(tau, ride)
        known = isinstance(tau, Told) and ride.base.key in tau.gains  # it moves, whatever becomes of the ride
        beside |= dict.fromkeys(ride.base.keys, 0.0) | {key: 0.0 if known else norm}
        taken, left = taken + norm**2, [*left, *rest]
    for key in tau:
        if key in keys or key in beside:
            continue
        norm = float(part_of(tau, Slice(key)).norm())
        reason = unused.get(key) or left_reason(key)
        if reason is None:
            orphans.append(key)
        elif norm > 0:
            left.append(Left(key, reason, norm))
    if orphans:
        raise PortError(f"nothing accounts for {listed(orphans)} of the task vector")
    return Account(taken**0.5, [*left, *_left_apart(tau, left_reason, beside)], beside)


def _parted(tau: Tensors, ride: Ride) -> tuple[str, float, list[Left]]:
    """Return a tensor's name, ‖τ‖ of its rows that have a partner, and those that have none."""
    key, change = change_of(tau, ride)
    if change is None:
        return key, 0.0, []
    norm, (share, lost) = float(change.norm()), parted(ride, change)
    why = f"{lost} of its rows ({ride.base.role}) have no partner in the target"
    return key, norm * share**0.5, [Left(key, why, norm * (1 - share) ** 0.5)] if lost else []


def _left_apart(tau: Tensors, left_reason: Callable[[str], str | None], beside: Collection[str]) -> Iterator[Left]:
    """Yield what stays behind because the fine-tune and its base cannot be compared there, and how they differ.

    Args:
        beside: names of tensors whose rows in common move.
    """
    if not isinstance(tau, Compared):
        return
    for key, how in tau.apart.items():
        rows = tau.shared(key)
        if key in beside and rows is not None:
            yield Left(key, f"rows that the two do not share have no τ: {how}", 0.0)
            continue
        norm = 0.0 if rows is None else float(rows.norm())
        yield Left(key, f"{left_reason(key) or 'there is nothing to compare it with'}: {how}", norm)
