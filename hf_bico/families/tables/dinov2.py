"""DINOv2, also with registers or SwiGLU."""

from hf_bico.families.layout import HEAD, MLP, FamilyLayout, Layer, Tower, image_tokens, roles
from hf_bico.families.riders import Norm
from hf_bico.families.tables.vit import ATTENTION, HEADS, PLAIN

GATED = (
    Layer("MLP gate", "mlp.gate_proj", reads="MLP", gives=MLP),
    Layer("MLP up", "mlp.up_proj", reads="MLP", gives=MLP),
    Layer("MLP down", "mlp.down_proj", uses=MLP),
)

NORMS = (
    Norm("norm1", before=("attention",)),
    Norm("norm2", before=("MLP up", "MLP")),
    Norm("layer_scale1", scales="attention output"),
    Norm("layer_scale2", scales="MLP down"),
)

DINOV2 = FamilyLayout(
    name="dinov2",
    model_types=("dinov2", "dinov2_with_registers"),
    towers=(
        Tower(
            "encoder.layer",
            ATTENTION + PLAIN + GATED,
            image_tokens("num_register_tokens"),
            heads=HEADS,
            required=roles(ATTENTION + PLAIN),
            norms=NORMS,
        ),
    ),
    head=(Layer(HEAD, "classifier"),),
    final="layernorm",
)
