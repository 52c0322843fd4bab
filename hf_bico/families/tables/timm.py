"""timm's vision transformers through transformers' wrapper."""

from typing import Any

from torch import nn

from hf_bico.core.types import Tokens
from hf_bico.families.layout import HEAD, MLP, FamilyLayout, Layer, Tower, roles


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


def _tokens(model: Any) -> Tokens:
    return Tokens(model.timm_model.num_prefix_tokens, tuple(model.timm_model.patch_embed.grid_size))


def heads(block: Any) -> int | None:
    """Return a block's number of heads; None where heads cannot be permuted (rotary positions, normed queries)."""
    plain = type(block.attn).__name__ == "Attention" and isinstance(getattr(block.attn, "q_norm", None), nn.Identity)
    return block.attn.num_heads if plain else None


TIMM = FamilyLayout(
    name="timm",
    model_types=("timm_wrapper",),
    towers=(Tower("^timm_model.blocks", BLOCK + GATED, _tokens, heads=heads, required=roles(BLOCK)),),
    head=(Layer(HEAD, "^timm_model.head"),),
    left={
        r"^timm_model\.attn_pool\.": "the attention that pools the patches is the target's own",
        r"^timm_model\.head_dist\.": "the head of distillation is the target's own",
    },
)
