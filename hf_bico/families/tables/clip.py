"""CLIP and SigLIP as transformers has them: both towers, or one of them alone."""

from torch import nn

from hf_bico.families.layout import HEAD, MLP, TEXT, FamilyLayout, Layer, Tower, image_tokens, roles
from hf_bico.families.riders import Norm

BLOCK = (
    Layer("q", "self_attn.q_proj", reads="attention", gives="qk"),
    Layer("k", "self_attn.k_proj", reads="attention", gives="qk"),
    Layer("v", "self_attn.v_proj", reads="attention", gives="v"),
    Layer("attention output", "self_attn.out_proj", uses="v"),
    Layer("MLP up", "mlp.fc1", gives=MLP),
    Layer("MLP down", "mlp.fc2", uses=MLP),
)
NORMS = (Norm("layer_norm1", before=("attention",)), Norm("layer_norm2", before=("MLP up",)))
BOTH, ALONE, TEXT_TOWER = "vision_model.encoder.layers", "encoder.layers", "text_model.encoder.layers"
PROJECTIONS = (Layer("proj", "^visual_projection"), Layer("text proj", "^text_projection", tower="text"))
LEFT = {
    r"^(text_model\.|text_projection\.)": "the text tower is the target's own unless it is asked for",
    r"^(vision_model\.)?head\.": "a classifier takes the mean of the patches",
}


def _tower(blocks: str, prefix: int | None, optional: bool = False) -> Tower:
    """Return the tower of images with `prefix` special tokens, or of texts for None."""
    tokens, name = (TEXT, "text") if prefix is None else (image_tokens(prefix, "vision_config"), "")
    return Tower(
        blocks, BLOCK, tokens, name, "self_attn.num_heads", required=roles(BLOCK), optional=optional, norms=NORMS
    )


def _pools(model: nn.Module) -> bool:
    """A classifier takes the mean of the patches."""
    return not hasattr(model, "classifier")


POOLING = (
    *(
        Layer(
            f"pool {role}",
            "head.attention",
            reads="pool q" if role == "q" else "pooled patches",
            part=(part, 3),
            tokens=None if role == "q" else image_tokens(0, "vision_config"),
            weight="in_proj_weight",
            bias="in_proj_bias",
            runs=_pools,
        )
        for part, role in enumerate("qkv")
    ),
    Layer("pool output", "head.attention.out_proj", runs=_pools),
    Layer("pool MLP up", "head.mlp.fc1", gives=MLP, runs=_pools),
    Layer("pool MLP down", "head.mlp.fc2", uses=MLP, runs=_pools),
)
CLASSIFIER = (Layer(HEAD, "classifier"),)

CLIP = FamilyLayout(
    "clip",
    ("clip", "metaclip_2"),
    (_tower(BOTH, 1), _tower(TEXT_TOWER, None, optional=True)),
    PROJECTIONS,
    CLASSIFIER,
    left=LEFT,
)
SIGLIP = FamilyLayout(
    "siglip",
    ("siglip",),
    (_tower(BOTH, 0), _tower(TEXT_TOWER, None, optional=True)),
    (*POOLING, Layer("text proj", "^text_model.head", tower="text")),
    CLASSIFIER,
    left=LEFT,
)
CLIP_VISION = FamilyLayout(
    "clip_vision", ("clip_vision_model", "metaclip_2_vision_model"), (_tower(ALONE, 1),), PROJECTIONS[:1]
)
SIGLIP_VISION = FamilyLayout("siglip_vision", ("siglip_vision_model",), (_tower(ALONE, 0),), POOLING, left=LEFT)
CLIP_TEXT = FamilyLayout(
    "clip_text", ("clip_text_model", "metaclip_2_text_model"), (_tower(ALONE, None),), PROJECTIONS[1:]
)
SIGLIP_TEXT = FamilyLayout(
    "siglip_text", ("siglip_text_model",), (_tower(ALONE, None),), (Layer("text proj", "^head", tower="text"),)
)
