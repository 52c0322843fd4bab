"""What of two models moves beside their linear maps."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from torch import nn

from hf_bico.core.errors import PortError, listed, setting
from hf_bico.core.gains import Gain, folding
from hf_bico.core.riders import Ride, Rows, Vocabularies, pair_riders
from hf_bico.core.room import Room
from hf_bico.core.types import Pair
from hf_bico.families.protocol import Family
from hf_bico.families.riders import GROUPS, LINEAR, NORMS

MOVING = (LINEAR, *GROUPS)
"""Kinds of tensors that can move; the linear maps always do."""


class Insides(NamedTuple):
    """A model, and the family that describes it."""

    family: Family
    model: nn.Module
    room: Room | None = None
    """The rows that its embeddings will have, where tokens are added to its vocabulary."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of its tensors, by name."""
        found = {name: tuple(p.shape) for name, p in self.model.named_parameters(remove_duplicate=False)}
        if self.room is not None:
            found |= {key: (self.room.count, *found[key][1:]) for key in self.token_keys & found.keys()}
        return found

    @property
    def token_keys(self) -> set[str]:
        """The names of its tensors that have a row for every token."""
        return {key for rider in self.family.riders(self.model) if rider.rows is Rows.TOKENS for key in rider.keys}


class Beside(NamedTuple):
    """What moves beside the linear maps, and the gains whose change they tell."""

    rides: tuple[Ride, ...] = ()
    gains: tuple[Gain, ...] = ()


def beside(
    base: Insides,
    target: Insides,
    pairs: Sequence[Pair],
    groups: Collection[str],
    vocabularies: Vocabularies | None = None,
) -> Beside:
    """Return what moves along with the pairs of two models, of some kinds of tensors.

    Args:
        groups: of `MOVING`.
        vocabularies: as for `pair_riders`.
    """
    own, theirs = ([each for each in side.family.riders(side.model) if each.group in groups] for side in (base, target))
    rides = pair_riders(own, theirs, pairs, (base.shapes, target.shapes), vocabularies)
    moving = {part for pair in pairs for part in pair.moving}
    return Beside(rides, folding(base.family.gains(base.model), moving) if NORMS in groups else ())


SPECIAL = {"cls_token": "cls", "bos_token": "cls", "sep_token": "sep", "eos_token": "sep"} | {
    f"{name}_token": name for name in ("pad", "unk", "mask")
}
"""Attribute of a tokenizer → what its token is for: BERT's [CLS] meets RoBERTa's <s>."""


def vocabularies_of(base: Any, target: Any, named: Collection[str] = ()) -> Vocabularies | None:
    """Return the rows of both models' tokens, special ones by what they are for; None where a tokenizer has no
    vocabulary.

    Args:
        named: special tokens that go by their names all the same.
    """
    if not all(hasattr(each, "get_vocab") for each in (base, target)):
        return None
    return _vocabulary(base, named), _vocabulary(target, named)


def _vocabulary(tokenizer: Any, named: Collection[str]) -> dict[str, int]:
    found: dict[str, int] = tokenizer.get_vocab()
    for attribute, purpose in SPECIAL.items():
        token = getattr(tokenizer, attribute, None)
        if token in found and token not in named and f"\0{purpose}" not in found:
            found[f"\0{purpose}"] = found.pop(token)
    return found


def groups_of(only: str | Collection[str] | None) -> frozenset[str]:
    """Return the kinds of tensors that are to move: those of a list, as text too; all unless given.

    Raises:
        PortError: a name that is none of `MOVING`.
    """
    if only is None:
        return frozenset(MOVING)
    names = [name.strip() for name in only.split(",")] if isinstance(only, str) else list(only)
    odd = sorted({*names} - {*MOVING})
    if odd:
        raise PortError(f"{setting('only')} {listed(odd)}: what can move is {', '.join(MOVING)}")
    return frozenset(names)
