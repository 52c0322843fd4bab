"""Llama, Mistral, Qwen2, Qwen3 and Gemma: grouped queries, rotary positions, RMSNorms, gated MLPs."""

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

LLAMA = FamilyLayout(
    name="llama",
    model_types=("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"),
    towers=(Tower("layers", BLOCK, TEXT, required=roles(BLOCK)),),
    head=(Layer(HEAD, "score", tokens=TEXT),),
)  # the head runs on every token; the last one's scores are taken
