"""GPT-2: every layer is a Conv1D, its weight stored (d_in, d_out); q, k and v are fused."""

from hf_bico.families.layout import HEAD, MLP, TEXT, FamilyLayout, Layer, Tower, roles
from hf_bico.families.riders import Norm

HIDDEN = {"q": "qk", "k": "qk", "v": "v"}
BLOCK = (
    *(
        Layer(role, "attn.c_attn", reads="attention", gives=HIDDEN[role], part=(part, 3))
        for part, role in enumerate("qkv")
    ),
    Layer("attention output", "attn.c_proj", uses="v"),
    Layer("MLP up", "mlp.c_fc", gives=MLP),
    Layer("MLP down", "mlp.c_proj", uses=MLP),
)
NORMS = (Norm("ln_1", before=("attention",)), Norm("ln_2", before=("MLP up",)))

GPT2 = FamilyLayout(
    name="gpt2",
    model_types=("gpt2",),
    towers=(Tower("h", BLOCK, TEXT, heads="attn.num_heads", required=roles(BLOCK), norms=NORMS),),
    head=(Layer(HEAD, "score", tokens=TEXT), Layer(HEAD, "classifier", tokens=TEXT)),
    final="ln_f",
)
