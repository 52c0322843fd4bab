"""MPNet: BERT's block with names of its own, and one relative position bias that all blocks share."""

from hf_bico.families.layout import HEAD, HEAD_DENSE, MLP, TEXT, FamilyLayout, Layer, Tower, roles, words_through
from hf_bico.families.riders import Norm

BLOCK = (
    Layer("q", "attention.attn.q", reads="attention", gives="qk"),
    Layer("k", "attention.attn.k", reads="attention", gives="qk"),
    Layer("v", "attention.attn.v", reads="attention", gives="v"),
    Layer("attention output", "attention.attn.o", uses="v"),
    Layer("MLP up", "intermediate.dense", gives=MLP),
    Layer("MLP down", "output.dense", uses=MLP),
)
NORMS = (Norm("attention.LayerNorm", after="attention output"), Norm("output.LayerNorm", after="MLP down"))

MPNET = FamilyLayout(
    name="mpnet",
    model_types=("mpnet",),
    towers=(
        Tower(
            "encoder.layer",
            BLOCK,
            TEXT,
            heads="attention.attn.num_attention_heads",
            one_order=True,
            required=roles(BLOCK),
            norms=NORMS,
        ),
    ),
    outside=words_through("lm_head.dense"),
    head=(Layer(HEAD_DENSE, "classifier.dense"), Layer(HEAD, "classifier.out_proj"), Layer(HEAD, "^classifier")),
    left={r"pooler\.dense\.": "no classifier reads the pooler"},
)
