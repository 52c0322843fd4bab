"""What of a source is neither a weight nor a sample: settings, chat template, tokens. It does not come along, but for
tokens that are to be added.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_bico.core.errors import PortError, listed, setting
from hf_bico.core.notes import note
from hf_bico.families import PurposeKind, Transformers
from hf_bico.families.hf import tokenizer_in
from hf_bico.families.new_tokens import NewTokens, new_tokens
from hf_bico.families.settings import differing
from hf_bico.families.tokenizing import rows_of
from hf_bico.io.hub import Hub
from hf_bico.io.models import PortModels, RepoModel
from hf_bico.io.outside import read_json, read_object
from hf_bico.io.reference import Pinned

TEMPLATE, TOKENIZER = "chat_template.jinja", "tokenizer_config.json"
WORDS = "tokenizer.json"


def note_aside(models: Sequence[RepoModel], kind: PurposeKind, hub: Hub, *, adding: bool = False) -> None:
    """Say what of a fine-tune does not come along beside its weights.

    Args:
        models: the fine-tune, its base, and the target.
        kind: what they are for.
        adding: whether its new tokens are added to the target, with a chat template that uses them.
    """
    tuned, base, target = models
    changed = differing(tuned.settings, base.settings)
    if changed:
        how = [f"{key} {_short(mine)}, not {_short(theirs)}" for key, (mine, theirs) in changed.items()]
        note(
            f"the config of {tuned.pinned} differs from its base's in {listed(how)}: that does not come along, the new "
            "base keeps its own"
        )
    more = added_tokens(tuned.pinned, base.pinned, hub)
    if kind in (PurposeKind.CAUSAL_LM, PurposeKind.IMAGE_TEXT):
        mine, theirs = (chat_template(each.pinned, hub) for each in (tuned, target))
        comes = adding and isinstance(mine, str) and any(token in mine for token in more)
        if mine and mine != theirs and not comes:
            note(
                f"the chat template of {tuned.pinned} does not come along: {target.pinned} "
                f"{'has another' if theirs else 'has none'}, and is asked and written with that"
            )
    if more and not adding:
        note(
            f"the tokenizer of {tuned.pinned} has {len(more)} tokens that its base's lacks: {listed(more, 8)}; a port "
            f"with {setting('add_tokens')} adds them to the new base's"
        )


def new_tokens_of(models: PortModels, hub: Hub) -> NewTokens:
    """Return the tokens that a fine-tune added, to be added to the target's tokenizer too.

    Raises:
        PortError: it added none; its source is an adapter, or its models are not of transformers.
    """
    if not isinstance(models.library, Transformers) or models.tuned.adapter is not None:
        raise PortError(
            f"{setting('add_tokens')} takes a whole fine-tune of transformers; of an adapter, save the merged model "
            "with its tokenizer and port that"
        )
    names = [(Transformers.config_file, *models.library.extra(each.pinned.files)) for each in models.each]
    tokenizers = tuple(
        tokenizer_in(hub.fetch(each.pinned, some)) for each, some in zip(models.each, names, strict=True)
    )
    return new_tokens(tokenizers, *models.insides, rows_of(models.tuned.skeleton), str(models.tuned.pinned))


def no_place(form: str) -> str:
    """Return why a form cannot hold tokens that are added, and what can."""
    return f"{setting('add_tokens')}: a {form} has no place for more embeddings; write {setting('form')} model"


def write_tokens(stage: Path, tokenizer: Any, new: NewTokens) -> None:
    """Write a tokenizer that has joined new tokens; texts that are generated end at a new end."""
    for name in ("special_tokens_map.json", "added_tokens.json"):  # the tokenizer's own files say all of it
        (stage / name).unlink(missing_ok=True)
    tokenizer.save_pretrained(stage)
    place = stage / "generation_config.json"
    if new.end is not None and place.exists():
        said = read_object(place)
        before = said.get("eos_token_id")
        others = [] if before is None else before if isinstance(before, list) else [before]
        said["eos_token_id"] = [tokenizer.eos_token_id, *others]
        place.write_text(json.dumps(said, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _short(value: Any, most: int = 40) -> str:
    text = repr(value)
    return text if len(text) <= most else text[:most] + "…"


def chat_template(pinned: Pinned, hub: Hub) -> Any:
    """Return the chat template of a repo's tokenizer; None where it has none."""
    if TEMPLATE in pinned.files:
        return (hub.fetch(pinned, (TEMPLATE,)) / TEMPLATE).read_text(encoding="utf-8", errors="replace").strip()
    said = hub.json(pinned, TOKENIZER).get("chat_template")
    return said.strip() if isinstance(said, str) else said


def added_tokens(tuned: Pinned, base: Pinned, hub: Hub) -> list[str]:
    """Return the tokens of a fine-tune's tokenizer that its base's lacks, in order; empty where either does not say."""
    words = [_words(hub.fetch(each, (WORDS,)) / WORDS) if WORDS in each.files else {} for each in (tuned, base)]
    if not all(words):
        return []
    return sorted(words[0].keys() - words[1].keys(), key=words[0].__getitem__)


def _words(file: Path) -> dict[str, int]:
    """Return the tokens in a tokenizer.json; empty where it cannot be read."""
    try:
        said = read_json(file)
        vocabulary = said["model"]["vocab"]
        if isinstance(vocabulary, list):
            vocabulary = {word: number for number, (word, _) in enumerate(vocabulary)}
        return {**vocabulary, **{each["content"]: each["id"] for each in said.get("added_tokens") or ()}}
    except (ValueError, KeyError, TypeError):
        return {}
