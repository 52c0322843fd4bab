"""What of a source is neither a weight nor a sample, and so does not come along: settings, chat template, tokens."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_bico.core.errors import listed
from hf_bico.core.notes import note
from hf_bico.families import PurposeKind
from hf_bico.families.settings import differing
from hf_bico.io.hub import Hub
from hf_bico.io.models import RepoModel
from hf_bico.io.reference import Pinned

TEMPLATE, TOKENIZER = "chat_template.jinja", "tokenizer_config.json"
WORDS = "tokenizer.json"


def note_aside(models: Sequence[RepoModel], kind: PurposeKind, hub: Hub) -> None:
    """Say what of a fine-tune does not come along beside its weights.

    Args:
        models: the fine-tune, its base, and the target.
        kind: what they are for.
    """
    tuned, base, target = models
    changed = differing(tuned.settings, base.settings)
    if changed:
        how = [f"{key} {_short(mine)}, not {_short(theirs)}" for key, (mine, theirs) in changed.items()]
        note(
            f"the config of {tuned.pinned} differs from its base's in {listed(how)}: that does not come along, the new "
            "base keeps its own"
        )
    if kind in (PurposeKind.CAUSAL_LM, PurposeKind.IMAGE_TEXT):
        mine, theirs = (chat_template(each.pinned, hub) for each in (tuned, target))
        if mine and mine != theirs:
            note(
                f"the chat template of {tuned.pinned} does not come along: {target.pinned} "
                f"{'has another' if theirs else 'has none'}, and is asked and written with that"
            )
    more = added_tokens(tuned.pinned, base.pinned, hub)
    if more:
        note(f"the tokenizer of {tuned.pinned} has {len(more)} tokens that its base's lacks: {listed(more, 8)}")


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
        said = json.loads(file.read_text(encoding="utf-8"))
        vocabulary = said["model"]["vocab"]
        if isinstance(vocabulary, list):
            vocabulary = {word: number for number, (word, _) in enumerate(vocabulary)}
        return {**vocabulary, **{each["content"]: each["id"] for each in said.get("added_tokens") or ()}}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
