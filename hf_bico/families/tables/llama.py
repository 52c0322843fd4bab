"""Llama and the many with its blocks: grouped queries, rotary positions, RMSNorms, gated MLPs."""

from dataclasses import replace

from hf_bico.families.layout import HEAD, MLP, TEXT, FamilyLayout, Layer, Tower, roles

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
    towers=(Tower("layers", BLOCK, TEXT, required=roles(BLOCK)),),
    head=(Layer(HEAD, "score", tokens=TEXT),),
)  # the head runs on every token; the last one's scores are taken

COHERE = replace(
    LLAMA,
    name="cohere",
    model_types=("cohere", "cohere2"),
    towers=(Tower("layers", PARALLEL, TEXT, required=roles(PARALLEL)),),
)  # attention and MLP read the same rows
