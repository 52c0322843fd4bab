"""T5, the encoder alone or with its decoder, with v1.0's ReLU MLPs or v1.1's gated ones."""

from hf_bico.core.types import Tokens
from hf_bico.families.layout import CROSS, HEAD, HEAD_DENSE, LABELS, MLP, TEXT, FamilyLayout, Layer, Tower, roles
from hf_bico.families.riders import Norm


def _attention(number: int, module: str, cross: str = "") -> tuple[Layer, ...]:
    """Return q, k, v and the attention output; k and v of all blocks' cross-attention read the encoder's output."""
    path, own = f"layer.{number}.{module}", f"{cross}attention"
    theirs, tokens = ("^encoder's text", TEXT) if cross else (own, None)
    return (
        Layer(f"{cross}q", f"{path}.q", reads=own, gives=f"{cross}qk"),
        Layer(f"{cross}k", f"{path}.k", reads=theirs, gives=f"{cross}qk", tokens=tokens),
        Layer(f"{cross}v", f"{path}.v", reads=theirs, gives=f"{cross}v", tokens=tokens),
        Layer(f"{cross}attention output", f"{path}.o", uses=f"{cross}v"),
    )


def _mlp(number: int) -> tuple[Layer, ...]:
    path = f"layer.{number}.DenseReluDense"
    return (
        Layer("MLP gate", f"{path}.wi_0", reads="MLP", gives=MLP),  # the half that the activation sees
        Layer("MLP up", f"{path}.wi_1", reads="MLP", gives=MLP),
        Layer("MLP up", f"{path}.wi", reads="MLP", gives=MLP),
        Layer("MLP down", f"{path}.wo", uses=MLP),
    )


def _tower(name: str, blocks: str, layers: tuple[Layer, ...], tokens: Tokens, *reads: str) -> Tower:
    return Tower(
        blocks,
        layers,
        tokens,
        name,
        "layer.0.SelfAttention.n_heads",
        one_order=True,
        required=roles(layers, but=("MLP gate",)),
        norms=tuple(Norm(f"layer.{i}.layer_norm", before=(name,)) for i, name in enumerate(reads)),
    )


ENCODER = _attention(0, "SelfAttention") + _mlp(1)
DECODER = _attention(0, "SelfAttention") + _attention(1, "EncDecAttention", CROSS) + _mlp(2)

T5 = FamilyLayout(
    name="t5",
    model_types=("t5", "mt5", "umt5"),
    towers=(
        _tower("", "encoder.block", ENCODER, TEXT, "attention", "MLP"),
        _tower("decoder", "decoder.block", DECODER, LABELS, "attention", f"{CROSS}attention", "MLP"),
    ),
    head=(
        Layer(HEAD_DENSE, "classification_head.dense"),
        Layer(HEAD, "classification_head.out_proj"),
        Layer(HEAD, "^classifier"),
    ),
    final="final_layer_norm",
)
