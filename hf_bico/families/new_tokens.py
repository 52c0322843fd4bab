"""Tokens that a fine-tune added to its base's tokenizer, offered to another model and its tokenizer."""

import copy
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hf_bico.core.errors import PortError, listed, setting
from hf_bico.core.notes import note
from hf_bico.core.riders import Vocabularies
from hf_bico.core.room import Room
from hf_bico.core.types import Tensors
from hf_bico.families.beside import Insides, vocabularies_of
from hf_bico.families.feeding import KNOWN
from hf_bico.families.riders import TOKENS
from hf_bico.families.tokenizing import rows_of


def require_moving(groups: Collection[str]) -> None:
    """Refuse to add tokens where no embeddings move.

    Raises:
        PortError: they do not.
    """
    if TOKENS not in groups:
        raise PortError(f"{setting('add_tokens')} moves rows of embeddings: let {setting('only')} name {TOKENS} too")


@dataclass(frozen=True)
class NewTokens:
    """What a fine-tune's tokenizer has beyond its base's, and where the two bases have rows for it."""

    tokens: tuple[Any, ...]
    """The tokens (`tokenizers.AddedToken`) that the target's tokenizer lacks."""
    known: frozenset[str]
    """Those that it has by itself: its rows of them stay."""
    template: str | None
    """The fine-tune's chat template, if any of the new tokens is in it."""
    end: str | None
    """The fine-tune's end of sequence, if it is one of the new tokens."""
    rooms: tuple[Room, Room]
    """Rows of the base and of the target."""

    def join(self, tokenizer: Any) -> Any:
        """Return the target's tokenizer with the tokens; it is changed in place."""
        _join(tokenizer, self.tokens)
        if self.template is not None:
            tokenizer.chat_template = self.template
        if self.end is not None:
            tokenizer.eos_token = self.end
        return tokenizer

    def vocabularies(self, tuned: Any, target: Any) -> Vocabularies | None:
        """Return the rows of the tokens of the base, as the fine-tune's tokenizer numbers them, and of the target,
        whose tokenizer has joined them. New tokens are never taken for others, whatever they are for.
        """
        new = frozenset(token.content for token in self.tokens)
        found = vocabularies_of(tuned, target, new | self.known)
        return found and ({token: row for token, row in found[0].items() if token not in self.known}, found[1])


def new_tokens(tokenizers: tuple[Any, Any, Any], base: Insides, target: Insides, rows: int, whose: str) -> NewTokens:
    """Return the tokens that a fine-tune added, and say which they are.

    Args:
        tokenizers: those of the fine-tune, the base and the target.
        base, target: the two bases; skeletons are enough.
        rows: how many token embeddings the fine-tune has.
        whose: what the fine-tune is called.

    Raises:
        PortError: it added none, or a model's embeddings cannot be given more rows.
    """
    if not all(hasattr(each, "get_vocab") for each in tokenizers):
        raise PortError(f"{setting('add_tokens')} needs three models with a tokenizer of transformers each")
    tuned, own, theirs = tokenizers
    before, there = own.get_vocab(), theirs.get_vocab()
    added = {
        number: token
        for number, token in sorted(tuned.added_tokens_decoder.items())
        if token.content not in before and number < rows
    }
    if not added:
        raise PortError(
            f"the tokenizer of {whose} has no added token, with a row in its model, that its base's lacks: leave out "
            f"{setting('add_tokens')}"
        )
    for side in (base, target):
        _require_rows(side)
    wanted = tuple(token for token in added.values() if token.content not in there)
    joined = _join(copy.deepcopy(theirs), wanted)
    ids = [joined.convert_tokens_to_ids(token.content) for token in wanted]
    sizes = max(rows_of(target.model), *(each + 1 for each in ids), 0)
    rooms = (
        Room(rows, tuple(added), _within(before, rows_of(base.model))),
        Room(sizes, tuple(ids), _within(there, rows_of(target.model))),
    )
    names = [token.content for token in added.values()]
    template = tuned.chat_template if isinstance(tuned.chat_template, str) else None
    template = template if template and any(name in template for name in names) else None
    known = frozenset(names) & there.keys()
    _say(wanted, known, template, whose)
    return NewTokens(wanted, known, template, tuned.eos_token if tuned.eos_token in names else None, rooms)


def _join(tokenizer: Any, tokens: tuple[Any, ...]) -> Any:
    for special in (True, False):
        tokenizer.add_tokens([token for token in tokens if token.special is special], special_tokens=special)
    return tokenizer


def _within(vocabulary: dict[str, int], rows: int) -> tuple[int, ...]:
    return tuple(sorted(row for row in vocabulary.values() if row < rows))


def _say(wanted: tuple[Any, ...], known: frozenset[str], template: str | None, whose: str) -> None:
    if wanted:
        names = listed([token.content for token in wanted], 8)
        with_template = ", and its chat template comes along" if template else ""
        note(f"tokens of {whose} are added to the new base's tokenizer: {names}{with_template}")
    if known:
        note(f"the new base's tokenizer has {listed(sorted(known), 8)} already, and keeps its rows of them")


def _require_rows(side: Insides) -> None:
    """Refuse a model whose embeddings of tokens are not vectors of its stream, so that rows cannot be moved there."""
    model: Any = side.model
    ends = [model.get_input_embeddings(), model.get_output_embeddings()] if rows_of(model) else []
    keys = side.token_keys
    named = {id(p): name for name, p in model.named_parameters()}
    odd = [named.get(id(end.weight), "") for end in ends if end is not None]
    if not odd or not keys.issuperset(odd):
        raise PortError(
            f"{setting('add_tokens')}: the token embeddings of a {type(model).__name__} are no vectors of the stream "
            "of its blocks, so that no row of them can be moved"
        )


def roomy(side: Insides, state: Tensors) -> dict[str, Tensor]:
    """Return a model's tensors that have a row for every token, with rows for added ones; none without a room."""
    return {} if side.room is None else {key: side.room.made(state[key]) for key in side.token_keys & state.keys()}


def make_room(side: Insides, tokenizer: Any = None) -> None:
    """Give a live model rows for added tokens, and let its tokenizer know of them; nothing without a room."""
    _resize(side, roomy(side, dict(side.model.named_parameters())))
    if tokenizer is not None and side.room is not None:
        setattr(tokenizer, KNOWN, side.room.count)


@contextmanager
def with_room(side: Insides) -> Iterator[None]:
    """Give a live model rows for added tokens while the block runs; nothing without a room."""
    before = {key: p.data for key, p in side.model.named_parameters() if side.room and key in side.token_keys}
    try:
        make_room(side)
        yield
    finally:
        _resize(side, before)


def _resize(side: Insides, rows: Tensors) -> None:
    """Put other rows in the place of a model's; its parameters stay the same objects, which an optimizer may hold."""
    model: Any = side.model
    counts = {}
    for key, tensor in rows.items():
        parameter = model.get_parameter(key)
        parameter.data = tensor.detach()
        counts[id(parameter)] = len(tensor)
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            for size in ("num_embeddings", "out_features"):
                if id(parameter) in counts and hasattr(module, size):
                    setattr(module, size, counts[id(parameter)])
    if counts:
        model.config.get_text_config().vocab_size = model.vocab_size = max(counts.values())
