"""Weights that are no numbers a task vector can be taken of: quantised, saved empty, or with an adapter not merged."""

import re
from collections.abc import Mapping
from typing import Any

from hf_bico.core.errors import PortError, listed, setting
from hf_bico.io.reference import Pinned

SIGNS = {
    r"\.(qweight|qzeros|g_idx)$": "GPTQ or AWQ",
    r"\.(absmax|quant_map|nested_absmax|quant_state\..+)$": "bitsandbytes, 4 bits",
    r"\.(SCB|weight_format)$": "bitsandbytes, 8 bits",
    r"\.weight_(scale_inv|scale)$": "FP8",
    r"\.weight_(packed|zero_point)$": "compressed-tensors",
    r"_(blocks|scales)$": "MXFP4",
    r"\.W_q$": "HQQ",
    r"\.weight\._(data|scale)$": "quanto",
    r"\.(codes|codebooks)$": "AQLM",
}
"""Pattern of a tensor's name that only a quantised model has → what kind it is."""
NARROW = re.compile(r"F8_\w+|F4|I8|U8|I16|I32|U32|float8_\w+|u?int(8|16|32)")
"""Dtypes in which a weight is quantised."""
FLOAT = re.compile(r"F8_\w+|float8_\w+")
"""Those of them that are floats."""
WEIGHT = re.compile(r"(weight|weight_packed|weight\._data|_blocks|\.W_q|\.codes|\.indices)$")
PARTS = re.compile(r"\.(lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector)\.")


MEND = "name the model that it was made from"
"""What to do about quantised weights."""
MENDS = (
    "name what it was made from as SOURCE, or a copy that was dequantised (`model.dequantize()` in transformers)",
    f"{MEND} with {setting('base')}",
    f"{MEND} with {setting('target')}",
)
"""The same of the source, the base and the target."""
ADAPTER_MENDS = (f"name the full model that it was made from with {setting('base')}", *MENDS[1:])
"""The same where the source is an adapter, which is opened by its base."""


def require_float(pinned: Pinned, config: Mapping[str, Any], stored: Mapping, mend: str) -> None:
    """Refuse quantised weights, named as what they are. A config may call weights quantised that are not.

    Args:
        config: config.json.
        stored: name → anything with the tensor's `shape` and `dtype`.
        mend: what to name in its place.

    Raises:
        PortError: they are quantised.
    """
    found = [kind for sign, kind in SIGNS.items() if any(re.search(sign, key) for key in stored)]
    narrow = [key for key in stored if WEIGHT.search(key) and NARROW.fullmatch(str(stored[key].dtype))]
    said = _kind(config)
    if not found and not said:  # 8-bit floats without a scale are numbers as they are, and widened when they are read
        narrow = [key for key in narrow if not FLOAT.fullmatch(str(stored[key].dtype))]
    if not narrow:
        return
    kind = said or (found[0] if found else f"{stored[narrow[0]].dtype} weights")
    raise PortError(f"{pinned} is quantised ({kind}), and no task vector can be taken of that: {mend}")


def _kind(config: Mapping[str, Any]) -> str:
    """Return how a config says that its weights are quantised; "" if it does not."""
    said = config.get("quantization_config") or config.get("quantization") or {}
    if not isinstance(said, Mapping) or not said:
        return ""
    method = str(said.get("quant_method") or ("MLX" if "quantization" in config else "of its own kind"))
    bits = said.get("bits") or (4 if said.get("load_in_4bit") else 8 if said.get("load_in_8bit") else None)
    name = {"bitsandbytes": method}.get(method, method.upper())
    return f"{name}, {bits} bits" if bits else name


def require_filled(pinned: Pinned, stored: Mapping) -> None:
    """Refuse tensors that a sharded trainer saved without what they hold.

    Args:
        stored: name → anything with the tensor's `shape`.

    Raises:
        PortError: tensors have no elements; all of them listed.
    """
    empty = [key for key in stored if 0 in tuple(stored[key].shape)]
    if empty:
        raise PortError(
            f"{len(empty)} of {len(stored)} tensors of {pinned} are empty ({listed(empty, 3)}): it was saved by a "
            "sharded trainer (DeepSpeed ZeRO-3, FSDP) that kept their contents elsewhere; gather the weights when "
            "saving (stage3_gather_16bit_weights_on_model_save, or zero_to_fp32.py on its checkpoint)"
        )


def require_merged(pinned: Pinned, stored: Mapping) -> None:
    """Refuse a whole model that was saved with an adapter beside its weights.

    Raises:
        PortError: it was.
    """
    parts = [key for key in stored if PARTS.search(key)]
    if parts:
        raise PortError(
            f"{pinned} holds an adapter that is not merged ({listed(parts, 2)}): save the adapter alone "
            "(PeftModel.save_pretrained) or what merge_and_unload() returns"
        )
