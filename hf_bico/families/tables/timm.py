"""timm's vision transformers through transformers' wrapper."""

from typing import Any

from torch import nn

from hf_bico.core.types import Tokens
from hf_bico.families.layout import HEAD, MLP, FamilyLayout, Layer, Tower, roles
from hf_bico.families.riders import Norm


def _plain(block: nn.Module) -> bool:
    return not hasattr(block.mlp, "gate_last")


def _gate_first(block: nn.Module) -> bool:
    return not getattr(block.mlp, "gate_last", True)


def _gate_last(block: nn.Module) -> bool:
    return getattr(block.mlp, "gate_last", False)


HIDDEN = {"q": "qk", "k": "qk", "v": "v"}
BLOCK = (
    *(
        Layer(role, "attn.qkv", reads="attention", gives=HIDDEN[role], part=(part, 3))
        for part, role in enumerate("qkv")
    ),
    Layer("attention output", "attn.proj", uses="v"),
    Layer("MLP up", "mlp.fc1", reads="MLP", gives=MLP, only=_plain),
    Layer("MLP down", "mlp.fc2", uses=MLP),
)
FUSED = (
    ("MLP gate", 0, _gate_first),
    ("MLP up", 1, _gate_first),
    ("MLP up", 0, _gate_last),
    ("MLP gate", 1, _gate_last),
)
GATED = (
    Layer("MLP gate", "mlp.fc1_g", reads="MLP", gives=MLP),
    Layer("MLP up", "mlp.fc1_x", reads="MLP", gives=MLP),
    *(Layer(role, "mlp.fc1", reads="MLP", gives=MLP, part=(part, 2), only=only) for role, part, only in FUSED),
)

NORMS = (
    Norm("norm1", before=("attention",)),
    Norm("norm2", before=("MLP",)),
    *(Norm(path, scales="attention output") for path in ("ls1", "gamma_1")),
    *(Norm(path, scales="MLP down") for path in ("ls2", "gamma_2")),
)


def tokens(model: Any) -> Tokens:
    """Return the token layout of a timm model, wrapped by transformers or by open_clip."""
    trunk = model.timm_model if hasattr(model, "timm_model") else model.visual.trunk
    return Tokens(trunk.num_prefix_tokens, tuple(trunk.patch_embed.grid_size))


POOLING = (
    Layer("pool q", "attn_pool.q"),
    *(
        Layer(f"pool {role}", "attn_pool.kv", reads="pooled patches", part=(part, 2), tokens=tokens)
        for part, role in enumerate("kv")
    ),
    Layer("pool output", "attn_pool.proj"),
    Layer("pool MLP up", "attn_pool.mlp.fc1", gives=MLP),
    Layer("pool MLP down", "attn_pool.mlp.fc2", uses=MLP),
)


def heads(block: Any) -> int | None:
    """Return a block's number of heads; None where heads cannot be permuted (rotary positions, normed queries)."""
    plain = type(block.attn).__name__ == "Attention" and isinstance(getattr(block.attn, "q_norm", None), nn.Identity)
    return block.attn.num_heads if plain else None


TIMM = FamilyLayout(
    name="timm",
    model_types=("timm_wrapper",),
    towers=(Tower("^timm_model.blocks", BLOCK + GATED, tokens, heads=heads, required=roles(BLOCK), norms=NORMS),),
    outside=POOLING,
    head=(Layer(HEAD, "^timm_model.head"),),
    final="timm_model.(norm|fc_norm)",
    left={
        r"^timm_model\.head_dist\.": "the head of distillation is the target's own",
    },
)
