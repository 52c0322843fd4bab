"""The interface of every method, and what a method is given."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import islice
from typing import Any, ClassVar

from hf_bico.core.collect import Batch, Side
from hf_bico.core.errors import PortError, listed
from hf_bico.core.low_rank import Delta
from hf_bico.core.moments import Statistics
from hf_bico.core.pairing import Matching
from hf_bico.core.ranks import here, joined
from hf_bico.core.riders import Ride
from hf_bico.core.transport import Transported, transport
from hf_bico.core.types import GRADIENTS, LABEL_FREE, OF_LOSS, ROWS, Map, Pair, Signal, Tensors, Wanted

FORWARD, BACKWARD, UPDATE = 2.0, 2.0, 2.0
"""FLOPs per parameter and token: of a forward pass, of the activations' gradients, of the weights' gradients."""

EXACTNESS = ("whole", "auto", "merged")
"""How much of what is inside MLPs is used, from all on."""
Track = Callable[[Iterable[Any], str, int], Iterable[Any]]
"""(items, description, how many) → the same items, with progress shown as they pass."""


Once = Callable[[str, Callable[[], Any]], Any]
"""(name, compute) → a JSON value: computed, or remembered under its name."""


def anew(name: str, compute: Callable[[], Any]) -> Any:
    """Return the value computed; nothing is remembered."""
    return compute()


def untracked(items: Iterable[Any], what: str, total: int) -> Iterable[Any]:
    """Return the items as they are, showing no progress."""
    return items


@dataclass(frozen=True)
class Fold:
    """Some of the samples, which a port is made from, and the others, on which it is tried."""

    batches: Callable[[], Iterable[Batch]]
    """() → those that it is made from; may be called any number of times."""
    held_out: Callable[[], float]
    """() → the loss of the target as it stands, summed over the others."""


@dataclass(frozen=True)
class Job:
    """Everything that a method is given, apart from the statistics of the samples."""

    tau: Tensors
    """The fine-tune's task vector, θ_A,ft − θ_A by the base's tensor names."""
    pairs: Sequence[Pair]
    base: Side
    """What the fine-tune came from."""
    target: Side
    """The new base."""
    weights: Tensors
    """The target's tensors."""
    batches: Callable[[], Iterable[Batch]]
    """() → the calibration samples; may be called any number of times."""
    folds: Sequence[Fold] = ()
    """The samples in parts that are held out in turn, for methods that choose; empty where they cannot be parted."""
    once: Once = anew
    """Remembers losses on held-out samples across interruptions."""
    unlabelled: Callable[[], Iterable[Batch]] | None = None
    """() → more samples, of the same kind and without labels; may be called any number of times."""
    rides: Sequence[Ride] = ()
    """What moves along with the pairs."""


@dataclass(frozen=True)
class Passes:
    """How often a method runs the models over all samples, and what one pass costs."""

    flops: float
    """FLOPs of one pass, for one sample."""
    before: int = 1
    """Passes before τ is moved, to collect statistics."""
    moving: int = 0
    """Passes while τ is moved."""
    solved: int = 1
    """How often the maps are solved for."""


@dataclass(frozen=True)
class Method:
    """A way to carry a task vector over: a frozen dataclass whose fields are its options."""

    name: ClassVar[str]
    citation: ClassVar[str]
    summary: ClassVar[str]
    """What it does, as the model card puts it."""

    @property
    def wanted(self) -> Wanted:
        """What must be collected for every pair."""
        raise NotImplementedError

    @property
    def collected(self) -> Wanted:
        """What of it is collected of all samples before `carry`: all, unless a method collects it itself."""
        return self.wanted

    @property
    def needs_loss(self) -> bool:
        """Whether it takes gradients of the task's loss."""
        return bool(self.wanted.signals & OF_LOSS)

    @property
    def takes_unlabelled(self) -> bool:
        """Whether it has a use for samples without labels."""
        return bool(self.wanted.signals & LABEL_FREE)

    @property
    def takes_along(self) -> bool:
        """Whether its maps carry tensors outside the linear maps too."""
        return True

    @property
    def why_not_storable(self) -> str | None:
        """Why its maps cannot be stored for later fine-tunes; None where it does no more than s L τ Rᵀ, as planned."""
        return "it does not move τ by two factors a layer"

    @property
    def by_layer(self) -> bool:
        """Whether every map is made from its own layer's statistics alone, so that layers can be ported in groups."""
        return False

    @property
    def matching(self) -> Matching | None:
        """The layer matching that its maps were made for; None where any will do."""
        return None

    @property
    def options(self) -> dict[str, Any]:
        """Its options as plain JSON data."""
        return asdict(self)

    @property
    def held(self) -> int:
        """How many sets of statistics it holds at once."""
        return 1

    @property
    def parts(self) -> tuple["Method", ...]:
        """The methods that it combines the changes of; none for most."""
        return ()

    def combined(self, deltas: Sequence[Delta]) -> Delta:
        """Return the change that it makes of those of its `parts`."""
        raise NotImplementedError

    @property
    def changed(self) -> dict[str, Any]:
        """Those of its options that are not the defaults."""
        usual = {field.name: field.default for field in fields(self)}
        return {name: value for name, value in self.options.items() if value != usual[name]}

    def record(self) -> dict[str, Any]:
        """Return what a report says of the method, as plain JSON data."""
        return {
            "name": self.name,
            "citation": self.citation,
            "summary": self.summary,
            "options": self.options,
            "signals": sorted(signal.value for signal in self.wanted.signals),
        }

    def passes(self, a: float, b: float) -> Passes:
        """Return how often the method runs the models, and the FLOPs of one pass.

        Args:
            a, b: parameters times tokens per sample, of A and of B.
        """
        wanted = self.wanted
        plain = wanted.signals - {Signal.LABEL_FREE_GRADIENT, Signal.WEIGHT}
        flops = bool(plain) * FORWARD + bool(plain & GRADIENTS) * BACKWARD + wanted.draws * (FORWARD + BACKWARD)
        return Passes(flops * (b if plain == {Signal.WEIGHT_GRADIENT} else a + b))

    def check(self, pairs: Sequence[Pair]) -> None:
        """Refuse pairs that the method cannot serve, saying why.

        Raises:
            PortError: there are such pairs.
        """

    def plan(self, pairs: Sequence[Pair], seen: Statistics) -> Iterator[tuple[Pair, Map]]:
        """Yield a map for every pair, in order. A plan never sees τ, so it serves every fine-tune and every α."""
        raise NotImplementedError

    def share(self, pairs: Sequence[Pair], seen: Statistics, which: slice) -> Iterator[tuple[Pair, Map]]:
        """Yield those maps of `plan` that are this rank's, of neighbouring pairs; a method whose maps take long to
        solve for does without the others.
        """
        return islice(self.plan(pairs, seen), which.start, which.stop)

    def carry(self, job: Job, seen: Statistics, track: Track = untracked) -> Transported:
        """Return τ in the target's coordinates, moved through the maps of `plan` unless the method has another way.

        Args:
            seen: the statistics that are `wanted`.
        """
        return self.carry_group(job, seen, slice(0, len(job.pairs)), track)

    def carry_group(self, job: Job, seen: Statistics, group: slice, track: Track = untracked) -> Transported:
        """Return τ of some neighbouring pairs in the target's coordinates, by the maps of `plan`.

        Args:
            seen: the statistics that are `wanted`, of these pairs at least.
        """
        own = here().share([cost(pair) for pair in job.pairs[group]])
        which = slice(group.start + own.start, group.start + own.stop)
        maps = track(self.share(job.pairs, seen, which), f"Moving τ ({self.name})", len(job.pairs[which]))
        rides = job.rides if self.takes_along else ()
        return joined(here().agreed("τ", lambda: transport(job.tau, maps, job.weights, rides)))


def cost(pair: Pair) -> float:
    """Return how much work a pair's two maps are, in some unit: a singular value decomposition's of each."""
    (a_out, a_in), (b_out, b_in) = ((site.d_out, site.d_in) for site in pair)
    return sum(float(max(a, b)) * min(a, b) ** 2 for a, b in ((a_out, b_out), (a_in, b_in)))


def union(methods: Iterable[Method]) -> Wanted:
    """Return what must be collected to serve all of the methods at once: the most exact that any of them wants."""
    each = [method.wanted for method in methods]
    signals = frozenset[Signal]().union(*(wanted.signals for wanted in each))
    return Wanted(
        signals,
        max((wanted.draws for wanted in each), default=0),
        max((wanted.views for wanted in each), default=0),
        min((wanted.mlp for wanted in each if wanted.signals & ROWS), key=EXACTNESS.index, default="whole"),
    )


def require_same_shapes(name: str, pairs: Sequence[Pair]) -> None:
    """Refuse pairs of unequal shapes, and convolutions, for a method that works weight by weight.

    Raises:
        PortError: there are such pairs.
    """
    if wide := [b.name for pair in pairs for b in pair[1:] if any(site.window for site in pair)]:
        raise PortError(f"{name} does not serve convolutions of more than one tap: {listed(wide)}; bico does")
    unequal = [
        f"{b.name} is {b.d_out} × {b.d_in}, its partner {a.d_out} × {a.d_in}"
        for a, b in pairs
        if (a.d_out, a.d_in) != (b.d_out, b.d_in)
    ]
    if unequal:
        raise PortError(f"{name} needs layers of equal shapes: {listed(unequal)}")


def require_one_mlp(name: str, pairs: Sequence[Pair]) -> None:
    """Refuse experts for a method whose passes go side by side through both models, as no two send them the same rows.

    Raises:
        PortError: there are some.
    """
    if any(pair.target.expert is not None for pair in pairs):
        raise PortError(f"{name} follows every row through every layer, and experts see some rows each: choose another")
