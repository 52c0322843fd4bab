"""Tiny random copies of transformers models: the same architecture, for a few seconds' work on the CPU.

The widths of a config are divided by one number, so that linear maps keep their shapes up to scale; numbers of heads
and of key groups stay. So rows that a tiny fused weight has for the queries are the real one's, each that many times.
"""

import copy
from collections.abc import Iterator
from math import gcd, prod
from typing import Any

import torch
from torch import nn

from hf_bico.core.errors import PortError

STREAMS = ("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embed_dim", "hidden_sizes")
"""Fields of configs with the width of what goes through the blocks, stage by stage where there are several."""
OF_HEADS = (
    "head_dim",
    "global_head_dim",
    "d_kv",
    "qk_nope_head_dim",
    "qk_rope_head_dim",
    "qk_head_dim",
    "v_head_dim",
    "mamba_headdim",
    "attention_head_dim",
)
"""Those with the width of a head."""
INNER = """
intermediate_size encoder_ffn_dim decoder_ffn_dim d_ff n_inner ffn_dim hidden_dim mlp_dim ffn_hidden_size
moe_intermediate_size shared_expert_intermediate_size shared_intermediate_size intermediate_size_mlp
mamba_intermediate_size q_lora_rank kv_lora_rank linear_key_head_dim linear_value_head_dim mamba_d_head lru_width
rotary_dim mamba_d_ssm
embedding_size word_embed_proj_dim pooler_hidden_size projection_dim decoder_hidden_size d_inner attention_head_size
mm_embed_dim attention_hidden_size groups_width
"""
"""Those with other widths."""
OTHERS = {"out_hidden_size", "output_hidden_size", "encoder_hidden_size", "text_hidden_size"}
"""Those with a width of another config's blocks."""
WIDTHS = {*STREAMS, *OF_HEADS, *INNER.split(), *OTHERS}
HEADS = ("num_attention_heads", "n_head", "num_heads", "n_heads", "encoder_attention_heads", "decoder_attention_heads")
STRETCHED = ("linear", "dynamic", "yarn", "longrope", "llama3")
"""Kinds of rotary positions that go with the real widths or lengths."""
LAYERS = (
    *("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers", "depth"),
    *("num_decoder_layers", "num_encoder_layers", "depths", "decoder_num_hidden_layers"),
)
EXPERTS = ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts")
MOST = 80_000_000
"""The most parameters of a model that is copied as it is."""
VOCABULARY = 120
"""The most tokens that a tiny copy knows."""


def tiny(model: Any) -> Iterator[nn.Module]:
    """Yield tiny random copies of a model, the smallest first; a model without a config is not copied.

    Gains, biases and weights are of all sizes, so that nothing is hidden by a zero.

    Raises:
        PortError: none can be built; the first reason is told.
    """
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "to_dict"):
        raise PortError(f"a {type(model).__name__} has no config of transformers, of which a small copy could be built")
    reason = None
    made = False
    for layers, least in ((2, 8), (4, 8), (8, 8), (2, 16), (4, 32)):
        try:
            built = random_model(type(model), shrunk(config, layers, least))
        except Exception as error:  # whatever an architecture says of sizes that it does not take
            reason = reason or error
            continue
        made = True
        yield built
    if sum(p.numel() for p in model.parameters()) <= MOST:
        yield random_model(type(model), _plain(copy.deepcopy(config)))
        made = True
    if not made:
        raise PortError(
            f"no small copy of a {type(model).__name__} can be built: {' '.join(str(reason).split())[:200]}"
        )


def shrunk(config: Any, layers: int, least: int) -> Any:
    """Return a copy of a config with `layers` blocks a stack, and heads that are `least` wide or wider."""
    small = _plain(copy.deepcopy(config))
    parts = list(parts_of(small))
    factors = [_factor(part, least) for part in parts]
    narrow = [{w: w // f for w in _streams(part)} for part, f in zip(parts, factors, strict=True)]
    ids: dict[int, int] = {}
    for number, (part, factor) in enumerate(zip(parts, factors, strict=True)):
        others = {wide: thin for n, each in enumerate(narrow) if n != number for wide, thin in each.items()}
        _narrow(part, factor, others)
        _shorten(part, layers)
        _fewer(part, ids)
    return small


def parts_of(config: Any) -> Iterator[Any]:
    """Yield a config and those within it."""
    yield config
    for value in list(vars(config).values()):
        if hasattr(value, "to_dict") and hasattr(value, "model_type"):
            yield from parts_of(value)


def _plain(config: Any) -> Any:
    """Return a config without quantisation, scaled positions or kernels that need a device."""
    for part in parts_of(config):
        for name in ("quantization_config", "_attn_implementation_internal", "_experts_implementation_internal"):
            if getattr(part, name, None) is not None:
                setattr(part, name, None)
        part.dtype = None
        if getattr(part, "pad_token_id", 0) is None:  # a classifier looks for the last token that is none
            part.pad_token_id = 0
        if getattr(part, "languages", None) and getattr(part, "default_language", "") is None:  # X-MOD's adapters
            part.default_language = next(iter(part.languages))
        rope = getattr(part, "rope_parameters", None)
        if isinstance(rope, dict):
            for each in (rope, *(value for value in rope.values() if isinstance(value, dict))):
                if each.get("rope_type") in STRETCHED:
                    each["rope_type"] = "default"
    return config


def _streams(part: Any) -> list[int]:
    """Return the widths that a config has for what goes through its blocks."""
    return [w for name in STREAMS for w in numbers(getattr(part, name, None))[:1]]


def _factor(part: Any, least: int) -> int:
    """Return the largest number that all widths can be divided by with heads that are `least` wide; 1 of a config
    without blocks.
    """
    common = gcd(*(w for name in STREAMS + OF_HEADS for w in numbers(getattr(part, name, None))))
    heads = next((n for name in HEADS for n in numbers(getattr(part, name, None))), 0)
    own = [one(getattr(part, name, None)) for name in OF_HEADS]
    own = [each for each in own if each]
    own = own or [w // heads if heads else w // 2 for w in _streams(part) if not heads or w % heads == 0]
    if not own:
        return 1
    fits = [n for n in range(1, common + 1) if common % n == 0 and all(w % n == 0 and w // n >= least for w in own)]
    even = [n for n in fits if all(w // n % 4 == 0 for w in own)]  # rotary positions halve heads, images' twice
    return max(even or fits, default=1)


def numbers(value: Any) -> list[int]:
    values = value if isinstance(value, list | tuple) else [value]
    return [each for each in values if isinstance(each, int) and not isinstance(each, bool) and each > 0]


def one(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _narrow(part: Any, factor: int, others: dict[int, int]) -> None:
    """Divide a config's widths by `factor`; those of the other configs' streams become what these are narrowed to."""
    for name in WIDTHS & vars(part).keys():  # a name that stands for another would be divided twice
        value = getattr(part, name)
        if isinstance(value, list | tuple) and numbers(value) == list(value):
            setattr(part, name, [max(1, each // factor) for each in value])
        elif one(value):
            own = max(1, one(value) // factor)
            setattr(part, name, others.get(one(value), own) if name in OTHERS else own)
    rope = getattr(part, "rope_parameters", None)
    if isinstance(rope, dict) and any(word in part.model_type for word in ("vl", "omni", "glm4v")):
        heads = next((n for name in HEADS for n in numbers(getattr(part, name, None))), 1)
        half = (one(getattr(part, "head_dim", None)) or one(getattr(part, "hidden_size", None)) // heads) // 2
        third = half * 3 // 8  # rows and columns of images; the rest is for time
        rope["mrope_section"] = [half - 2 * third, third, third]


def _shorten(part: Any, layers: int) -> None:
    """Leave `layers` blocks in every stack; lists with an entry a block are cut to as many."""
    for name in (each for each in LAYERS if each in vars(part)):
        value = getattr(part, name)
        if isinstance(value, list | tuple):
            most = [2] * len(value) if name != "depth" else [max(2, stage + 1) for stage in range(len(value))]  # CvT
            setattr(part, name, [min(each, least) for each, least in zip(value, most, strict=True)])
        elif one(value) > layers:
            for other, entries in list(vars(part).items()):
                if isinstance(entries, list | tuple) and len(entries) == value and value > 1:
                    setattr(part, other, list(entries[:layers]))
                elif name != "depths" and "indices" in other and numbers(entries):
                    setattr(part, other, [each for each in entries if each < layers] or [layers - 1])
            setattr(part, name, layers)
    if one(getattr(part, "first_k_dense_replace", None)) > 1:
        part.first_k_dense_replace = 1


def _fewer(part: Any, ids: dict[int, int]) -> None:
    """Leave few words, pixels, positions and experts; the ids of special tokens get other numbers."""
    if one(getattr(part, "vocab_size", None)) > VOCABULARY:
        part.vocab_size = VOCABULARY
        for name, value in list(vars(part).items()):
            if name.endswith(("token_id", "token_index")) and one(value) >= VOCABULARY - 40:
                setattr(part, name, ids.setdefault(value, VOCABULARY - 1 - len(ids)))
            elif name.endswith("token_id") and isinstance(value, list):
                setattr(part, name, [ids.setdefault(each, VOCABULARY - 1 - len(ids)) for each in value])
    for name in (each for each in vars(part) if each.endswith("_vocab_size")):
        if one(getattr(part, name)) > VOCABULARY:
            setattr(part, name, VOCABULARY)
    groups = one(getattr(part, "n_group", None)) or 1
    for name in EXPERTS:
        if one(getattr(part, name, None)) > max(8, 2 * groups):
            setattr(part, name, max(8, 2 * groups))
    for name in ("num_experts_per_tok", "moe_topk"):
        if one(getattr(part, name, None)) > 4:
            setattr(part, name, 4)
    for name, most in (("max_source_positions", 50), ("mm_tokens_per_image", 4)):
        if one(getattr(part, name, None)) > most:
            setattr(part, name, most)
    patch, size = one(getattr(part, "patch_size", None)), getattr(part, "image_size", None)
    if patch and size is not None and not hasattr(part, "depths"):
        part.image_size = 4 * patch if isinstance(size, int) else [4 * patch, 4 * patch]
    elif not patch and one(size) > 64:
        part.image_size = 64


def random_model(cls: type[nn.Module], config: Any, seed: int = 0) -> nn.Module:
    """Return a model of a config with random weights, in evaluation mode on the CPU; no random state is left changed.

    Raises:
        PortError: it is too large.
    """
    with torch.device("meta"):
        size = sum(p.numel() for p in cls(copy.deepcopy(config)).parameters())
    if size > MOST:
        raise PortError(f"it has {size:,} parameters")
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(seed)
        model = cls(config).float().eval()
        with torch.no_grad():
            for name, p in model.named_parameters():
                if p.ndim > 1:
                    p.normal_(std=1.0 if "embed" in name else (p.numel() / prod(p.shape[:1])) ** -0.5)
                elif p.ndim == 1:
                    p.normal_(std=0.1) if name.endswith("bias") else p.uniform_(0.5, 1.5)
    return model
