"""The vocabularies of live models, and tokens that a port between them adds."""

import copy
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from hf_bico.core.errors import PortError, setting
from hf_bico.core.riders import Vocabularies
from hf_bico.core.types import Tensors
from hf_bico.families.beside import Insides, vocabularies_of
from hf_bico.families.new_tokens import NewTokens, new_tokens, require_moving


@dataclass(frozen=True)
class Added:
    """Tokens that a port adds to its target."""

    new: NewTokens
    side: Insides
    """The target, and the rows that it needs for them."""
    tokenizer: Any
    """A copy of the target's tokenizer with them."""


@dataclass(frozen=True)
class LiveWords:
    """What tokenizers say of live models."""

    sides: tuple[Insides, Insides]
    """The base and the target, with the rows that added tokens need."""
    vocabularies: Vocabularies | None = None
    """None: rows of embeddings meet by their numbers."""
    added: Added | None = None
    """What is added to the target's vocabulary, if anything."""


def live_words(
    tuned: Tensors, sides: tuple[Insides, Insides], tokenizers: Any, groups: Collection[str], *, adding: bool
) -> LiveWords:
    """Return which rows of the embeddings of live models meet.

    Args:
        tuned: the fine-tune's tensors.
        sides: the base and the target.
        tokenizers: those of the fine-tune, the base and the target; None if they were not given.
        groups: kinds of tensors that move.
        adding: whether the fine-tune's new tokens are added to the target's vocabulary.

    Raises:
        PortError: as for `new_tokens`; tokens are to be added, and there is no tokenizer, or no embeddings move.
    """
    if tokenizers is None and not adding:
        return LiveWords(sides)
    if tokenizers is None or len(tokenizers) != 3:
        raise PortError(
            "tokenizers= takes three: the fine-tune's, the base's and the target's"
            + (f"; {setting('add_tokens')} needs them" if adding else "")
        )
    if not adding:
        return LiveWords(sides, vocabularies_of(*tokenizers[1:]))
    require_moving(groups)
    rows = max((len(tuned[key]) for key in sides[0].token_keys if key in tuned), default=0)
    new = new_tokens(tokenizers, *sides, rows, "the fine-tune")
    tokenizer = new.join(copy.deepcopy(tokenizers[2]))
    base, target = (side._replace(room=room) for side, room in zip(sides, new.rooms, strict=True))
    return LiveWords((base, target), new.vocabularies(tokenizers[0], tokenizer), Added(new, target, tokenizer))
