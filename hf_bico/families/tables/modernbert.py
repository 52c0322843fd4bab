"""ModernBERT: fused projections, a gated MLP, rotary positions."""

from hf_bico.families.layout import (
    HEAD,
    HEAD_DENSE,
    MLP,
    TEXT,
    VOCABULARY,
    FamilyLayout,
    Layer,
    Tower,
    roles,
    words_through,
)
from hf_bico.families.riders import Norm

BLOCK = (
    *(Layer(role, "attn.Wqkv", reads="attention", part=(part, 3)) for part, role in enumerate("qkv")),
    Layer("attention output", "attn.Wo"),
    Layer("MLP gate", "mlp.Wi", reads="MLP", gives=MLP, part=(0, 2)),  # the half that the activation sees
    Layer("MLP up", "mlp.Wi", reads="MLP", gives=MLP, part=(1, 2)),
    Layer("MLP down", "mlp.Wo", uses=MLP),
)
NORMS = (Norm("attn_norm", before=("attention",)), Norm("mlp_norm", before=("MLP",)))

MODERNBERT = FamilyLayout(
    name="modernbert",
    model_types=("modernbert",),
    towers=(Tower("layers", BLOCK, TEXT, required=roles(BLOCK), norms=NORMS),),
    outside=words_through("head.dense", "ForMaskedLM"),
    head=(Layer(HEAD_DENSE, "head.dense"), Layer(HEAD, "classifier")),
    final="final_norm",
    head_norms=("head.norm",),
    left={r"^(head\.dense|decoder)\.": VOCABULARY},
)
