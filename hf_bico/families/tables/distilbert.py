"""DistilBERT."""

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
    Layer("q", "attention.q_lin", reads="attention", gives="qk"),
    Layer("k", "attention.k_lin", reads="attention", gives="qk"),
    Layer("v", "attention.v_lin", reads="attention", gives="v"),
    Layer("attention output", "attention.out_lin", uses="v"),
    Layer("MLP up", "ffn.lin1", gives=MLP),
    Layer("MLP down", "ffn.lin2", uses=MLP),
)
NORMS = (Norm("sa_layer_norm", after="attention output"), Norm("output_layer_norm", after="MLP down"))

DISTILBERT = FamilyLayout(
    name="distilbert",
    model_types=("distilbert",),
    towers=(Tower("transformer.layer", BLOCK, TEXT, heads="attention.n_heads", required=roles(BLOCK), norms=NORMS),),
    outside=words_through("vocab_transform"),
    head=(Layer(HEAD_DENSE, "pre_classifier"), Layer(HEAD, "classifier")),
    left={r"^vocab_(transform|projector)\.": VOCABULARY},
)
