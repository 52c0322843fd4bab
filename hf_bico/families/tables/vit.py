"""ViT and DeiT as transformers implements them, and models with their blocks."""

from hf_bico.families.layout import HEAD, MLP, FamilyLayout, Layer, Tower, image_tokens, roles
from hf_bico.families.riders import Norm

ATTENTION = (
    Layer("q", "attention.q_proj", reads="attention", gives="qk"),
    Layer("k", "attention.k_proj", reads="attention", gives="qk"),
    Layer("v", "attention.v_proj", reads="attention", gives="v"),
    Layer("attention output", "attention.o_proj", uses="v"),
)
PLAIN = (Layer("MLP up", "mlp.fc1", gives=MLP), Layer("MLP down", "mlp.fc2", uses=MLP))
BLOCK = ATTENTION + PLAIN
HEADS = "attention.num_attention_heads"
NORMS = (Norm("layernorm_before", before=("attention",)), Norm("layernorm_after", before=("MLP up",)))

VIT = FamilyLayout(
    name="vit",
    model_types=("vit", "vit_msn"),
    towers=(
        Tower(
            "layers", ATTENTION + PLAIN, image_tokens(1), heads=HEADS, required=roles(ATTENTION + PLAIN), norms=NORMS
        ),
    ),
    head=(Layer(HEAD, "classifier"),),
    final="layernorm",
    left={
        r"pooler\.dense\.": "no classifier reads the pooler",
        r"^decoder\.": "what paints masked patches is the target's own",
    },
)

DEIT = FamilyLayout(
    name="deit",
    model_types=("deit",),
    towers=(
        Tower(
            "layers", ATTENTION + PLAIN, image_tokens(2), heads=HEADS, required=roles(ATTENTION + PLAIN), norms=NORMS
        ),
    ),
    head=VIT.head,
    final=VIT.final,
    left={r"^(cls|distillation)_classifier\.": "the two heads of distillation are the target's own", **VIT.left},
)
