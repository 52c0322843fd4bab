"""Llama, Mistral, Qwen2, Qwen3 and Gemma: grouped queries, rotary positions, RMSNorms, gated MLPs."""

from torch import nn

from hf_bico.families.layout import HEAD, MLP, TEXT, FamilyLayout, Layer, Tower, roles
from hf_bico.families.riders import Norm

BLOCK = (
    Layer("q", "self_attn.q_proj", reads="attention"),
    Layer("k", "self_attn.k_proj", reads="attention"),
    Layer("v", "self_attn.v_proj", reads="attention"),
    Layer("attention output", "self_attn.o_proj"),
    Layer("MLP gate", "mlp.gate_proj", reads="MLP", gives=MLP),
    Layer("MLP up", "mlp.up_proj", reads="MLP", gives=MLP),
    Layer("MLP down", "mlp.down_proj", uses=MLP),
)


def _sandwiched(block: nn.Module) -> bool:
    """Gemma 2 and 3 norm what attention and MLP give, too."""
    return hasattr(block, "pre_feedforward_layernorm")


def _plain(block: nn.Module) -> bool:
    return hasattr(block, "input_layernorm") and not _sandwiched(block)


NORMS = (
    Norm("input_layernorm", before=("attention",), only=lambda block: hasattr(block, "post_attention_layernorm")),
    Norm("post_attention_layernorm", before=("MLP",), only=_plain),
    Norm("post_attention_layernorm", after="attention output", only=_sandwiched),
    Norm("pre_feedforward_layernorm", before=("MLP",)),
    Norm("post_feedforward_layernorm", after="MLP down", only=_sandwiched),
    *(Norm(f"self_attn.{role}_norm", units=role) for role in "qk"),
)

LLAMA = FamilyLayout(
    name="llama",
    model_types=("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"),
    towers=(Tower("layers", BLOCK, TEXT, required=roles(BLOCK), norms=NORMS),),
    head=(Layer(HEAD, "score", tokens=TEXT),),
)  # the head runs on every token; the last one's scores are taken
