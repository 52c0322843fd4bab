"""Llama and the many with its blocks: grouped queries, rotary positions, RMSNorms, gated MLPs."""

from dataclasses import replace

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
PARALLEL = tuple(replace(layer, reads="attention") if layer.reads else layer for layer in BLOCK)


def _has(block: nn.Module, *names: str) -> bool:
    return all(getattr(block, name, None) is not None for name in names)


def _plain(block: nn.Module) -> bool:
    """One norm before attention, one before the MLP; Gemma 2 and 3 norm what those give, too, OLMo 2 only that."""
    return _has(block, "input_layernorm", "post_attention_layernorm") and not _has(block, "pre_feedforward_layernorm")


NORMS = (
    Norm("input_layernorm", before=("attention",), only=lambda block: _has(block, "post_attention_layernorm")),
    Norm("post_attention_layernorm", before=("MLP",), only=_plain),
    Norm("post_attention_layernorm", after="attention output", only=lambda block: not _plain(block)),
    Norm("pre_feedforward_layernorm", before=("MLP",)),
    Norm("post_feedforward_layernorm", after="MLP down"),
    *(Norm(f"self_attn.{role}_norm", units=role) for role in "qk"),
)
COHERE_NORMS = (Norm("input_layernorm", before=("attention",)), *NORMS[-2:])

LLAMA = FamilyLayout(
    name="llama",
    model_types=(
        "llama",
        "mistral",
        "ministral3",
        "qwen2",
        "qwen3",
        "gemma",
        "gemma2",
        "gemma3_text",
        "olmo2",
        "olmo3",
        "smollm3",
        "granite",
        "stablelm",
        "exaone4",
        "ernie4_5",
        "hunyuan_v1_dense",
        "seed_oss",
    ),
    towers=(Tower("layers", BLOCK, TEXT, required=roles(BLOCK), norms=NORMS),),
    head=(Layer(HEAD, "score", tokens=TEXT),),
    final="norm",
)  # the head runs on every token; the last one's scores are taken

COHERE = replace(
    LLAMA,
    name="cohere",
    model_types=("cohere", "cohere2"),
    towers=(Tower("layers", PARALLEL, TEXT, required=roles(PARALLEL), norms=COHERE_NORMS),),
)  # attention and MLP read the same rows

SHARED = "shared MLP"
"""Hidden coordinates of the expert that every token passes."""
SPARSE = (
    *BLOCK,
    *(
        Layer(f"{SHARED} {part}", f"mlp.shared_expert.{part}_proj", reads="MLP", gives=SHARED)
        for part in ("gate", "up")
    ),
    Layer(f"{SHARED} down", "mlp.shared_expert.down_proj", uses=SHARED),
    Layer("shared gate", "mlp.shared_expert_gate", reads="MLP", known=True),
    Layer("router", "mlp.gate", reads="MLP", known=True),
    Layer("router", "mlp.router", reads="MLP", known=True),
    Layer("router", "block_sparse_moe.router", reads="MLP", known=True),
)
"""Blocks with experts in the place of the MLP, of some or of all layers; the experts themselves are found beside their
router."""
MIXTURE = replace(
    LLAMA,
    name="mixture",
    model_types=("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "granitemoe", "gpt_oss"),
    towers=(Tower("layers", SPARSE, TEXT, required=roles(BLOCK[:4]), norms=NORMS),),
    left={r"\.sinks$": "attention sinks are scores of heads, not vectors of the space"},
)
