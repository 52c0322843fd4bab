"""BERT and RoBERTa, and models with their blocks or their heads."""

from dataclasses import replace

from hf_bico.families.layout import HEAD, HEAD_DENSE, MLP, TEXT, FamilyLayout, Layer, Tower, roles, words_through
from hf_bico.families.riders import Norm
from hf_bico.families.tables.llama import LLAMA

BLOCK = (
    Layer("q", "attention.self.query", reads="attention", gives="qk"),
    Layer("k", "attention.self.key", reads="attention", gives="qk"),
    Layer("v", "attention.self.value", reads="attention", gives="v"),
    Layer("attention output", "attention.output.dense", uses="v"),
    Layer("MLP up", "intermediate.dense", gives=MLP),
    Layer("MLP down", "output.dense", uses=MLP),
)
NORMS = (
    Norm("attention.output.LayerNorm", after="attention output"),
    Norm("output.LayerNorm", after="MLP down"),
)
COUNTER = {r"position_ids$": "a counter, not a weight"}

BERT = FamilyLayout(
    name="bert",
    model_types=("bert", "ernie"),
    towers=(
        Tower(
            "encoder.layer",
            BLOCK,
            TEXT,
            heads="attention.self.num_attention_heads",
            required=roles(BLOCK),
            norms=NORMS,
        ),
    ),
    outside=words_through("cls.predictions.transform.dense"),
    head=(Layer(HEAD_DENSE, "pooler.dense"), Layer(HEAD, "classifier")),
    left={
        r"(^|\.)cls\.": "the masked-language head belongs to the target's vocabulary",
        r"task_type_embeddings\.weight$": "the kinds of task are the target's own",
        **COUNTER,
    },
)

ROBERTA = FamilyLayout(
    name="roberta",
    model_types=("roberta", "xlm-roberta", "camembert"),
    towers=BERT.towers,
    outside=words_through("lm_head.dense"),
    head=(Layer(HEAD_DENSE, "classifier.dense"), Layer(HEAD, "classifier.out_proj"), Layer(HEAD, "^classifier")),
    left={r"pooler\.dense\.": "no classifier reads the pooler", **COUNTER},
)

NOMIC = replace(
    BERT,
    name="nomic",
    model_types=("nomic_bert",),
    towers=tuple(
        replace(
            tower,
            norms=(
                Norm("post_attention_layernorm", after="attention output"),
                Norm("post_mlp_layernorm", after="MLP down"),
            ),
        )
        for tower in LLAMA.towers
    ),
)  # Llama's blocks, read both ways, their norms behind what is added
