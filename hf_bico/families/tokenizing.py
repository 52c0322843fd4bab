"""A model and its tokenizer made to suit each other, as a trainer does: padding, the longest text, the vocabulary."""

from collections.abc import Mapping
from typing import Any

from hf_bico.core.errors import PortError
from hf_bico.core.notes import note
from hf_bico.families.feeding import KNOWN

OFFSET_TYPES = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer", "xmod", "data2vec-text")
"""`model_type`s whose positions begin after the padding token's."""


def suit_tokenizer(tokenizer: Any, model: Any, *, classifies: bool) -> None:
    """Let a tokenizer cut texts at the model's positions, and give a classifier and its tokenizer one padding token.

    Args:
        classifies: whether the model answers from the last token that is no padding.

    Raises:
        PortError: the tokenizer's longest text is no number; a classifier with a decoder reads a text at its end token,
            and the tokenizer adds none.
    """
    longest = tokenizer.model_max_length
    if not isinstance(longest, int | float):
        raise PortError(f"tokenizer_config.json: model_max_length is {longest!r}, where a number belongs")
    most = positions(model.config)
    if most is not None and longest > most:
        tokenizer.model_max_length = most
    rows = rows_of(model)
    setattr(tokenizer, KNOWN, rows)
    if tokenizer.pad_token_id is not None and rows and tokenizer.pad_token_id >= rows:
        note(f"the padding token {tokenizer.pad_token!r} of a tokenizer is none of its model's {rows} tokens: not used")
        tokenizer.pad_token = tokenizer.eos_token
    if not classifies:
        return
    if (
        getattr(model.config, "is_encoder_decoder", False)
        and model.config.eos_token_id not in tokenizer("a")["input_ids"]
    ):
        raise PortError(
            f"a {type(model).__name__} reads a text at its end token, and its tokenizer adds none: save it with one "
            "that does"
        )
    if tokenizer.pad_token_id is None:
        chosen = padding_of(tokenizer, model.config)
        if chosen is not None:
            tokenizer.pad_token = tokenizer.convert_ids_to_tokens(chosen)
            note(f"a tokenizer has no padding token: {tokenizer.pad_token!r} pads short texts, and is not read")
    for config in {id(each): each for each in (model.config, model.config.get_text_config())}.values():
        config.pad_token_id = tokenizer.pad_token_id  # by this the model finds the last token that is not padding


def padding_of(tokenizer: Any, config: Any) -> int | None:
    """Return the id that pads texts where a tokenizer has none: the model's, else what trainers take.

    A classifier without a padding token was trained on rows of their own length, and answers from the last token. So
    the end of sequence, which they take, pads only where texts do not end with it; else another special token does,
    with which no text ends. None: there is no such token.
    """
    said = getattr(config.get_text_config(), "pad_token_id", None)
    if said is not None:
        return int(said)
    last = tokenizer("a")["input_ids"][-1:]
    special = (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id)
    return next((token for token in special if token is not None and [token] != last), None)


def positions(config: Any) -> int | None:
    """Return the most tokens that a model has positions for; None where it sets no limit."""
    text = config.get_text_config()
    most = getattr(text, "max_position_embeddings", None)
    if not isinstance(most, int) or most < 1:
        return None
    return most - (text.pad_token_id or 0) - 1 if text.model_type in OFFSET_TYPES else most


def rows_of(model: Any) -> int:
    """Return how many token embeddings a live model has; 0 if it reads no tokens."""
    try:
        return getattr(model.get_input_embeddings(), "num_embeddings", 0)
    except (AttributeError, NotImplementedError):
        return 0


def fit_vocabulary(model: Any, shapes: Mapping[str, Any], least: int = 0) -> None:
    """Give a live model as many token embeddings as its tensors will have.

    Args:
        shapes: state-dict name → anything with the tensor's shape; those of other names stay.
        least: the fewest that it is given.
    """
    try:
        embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    except (AttributeError, NotImplementedError):  # a model that reads no tokens
        return
    if not hasattr(embeddings, "num_embeddings"):
        return
    ends = [embeddings.weight, getattr(head, "weight", None)]
    keys = [name for name, p in model.named_parameters() if any(p is end for end in ends)]
    rows = max(least, *(shapes[key].shape[0] for key in keys if key in shapes), 0)
    if rows and rows != embeddings.num_embeddings:
        model.resize_token_embeddings(rows, mean_resizing=False)
