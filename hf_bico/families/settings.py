"""What of a model's function its config alone says: activations, positions, norms, attention, pooling."""

import re
from collections.abc import Mapping
from typing import Any

WORK = re.compile(
    r"(act|activation|act_fn|activation_function|quick_gelu|feed_forward_proj|rope\w*|\w*rotary\w*|"
    r"position_embedding_type|\w*eps(ilon)?|\w*sliding_window|\w*layer_types|\w*scal(e|ing)\w*|\w*multiplier|"
    r"\w*softcap\w*|\w*_act(ivation)?|\w*pool\w*|\w*temperature|max_position_embeddings|\w*head_dim|qk_norm|"
    r"\w*logit_\w+|use_mrope|attention_bias|add_cross_attention|is_decoder|\w*residual\w*)$"
)
"""Names of settings on which a model's function depends beside its weights; those of training and saving are none."""


def differing(tuned: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return {setting: (the fine-tune's, the base's)} where two configs say that the same weights work differently.

    Args:
        tuned, base: config.json with all defaults, nested ones too.
    """
    mine, theirs = _flat(tuned), _flat(base)
    return {
        key: (mine.get(key), theirs.get(key))
        for key in sorted(mine.keys() | theirs.keys())
        if mine.get(key) != theirs.get(key) and any(WORK.fullmatch(part) for part in key.split("."))
    }


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their names, joined by dots; None and what is not said are alike."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        elif value is not None:
            found[f"{prefix}{key}"] = value
    return found
