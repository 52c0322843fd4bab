"""transformers' T5 encoders (T5EncoderModel; v1.0's ReLU and v1.1's gated MLPs), for ports between live models."""

import re

from torch import nn

from hf_bico.core.errors import PortError
from hf_bico.core.types import Hidden, Site, Slice, Tokens

LEFT = {
    r"(shared|encoder\.embed_tokens)\.weight$": "the token embeddings are the target's own",
    r"encoder\.block\.\d+\.layer\.0\.SelfAttention\.relative_attention_bias\.weight$":
        "relative position biases are scores of heads, not vectors of the space",
    r"encoder\.(block\.\d+\.layer\.\d\.layer_norm|final_layer_norm)\.weight$":
        "an RMSNorm's gain is diagonal, not a vector of the space",
}

TOKENS = Tokens(prefix=0, grid=(1,))
"""Of every model alike: both read the same tokens, so that no rows are ever resized."""


class T5Encoder:
    """The blocks' linear layers move; every other tensor stays, for the reasons in `LEFT`.

    Both models must read the same token ids. A batch must have no padding: rows of padded places would be summed into
    the moments like any other. Crop the samples to one length, or give every length its own batch.
    """

    name = "t5_encoder"
    library = "transformers"

    def knows(self, model: nn.Module) -> bool:
        blocks = getattr(getattr(model, "encoder", None), "block", None)
        return bool(blocks) and not hasattr(model, "decoder") and hasattr(blocks[0].layer[0], "SelfAttention")

    def sites(self, model: nn.Module) -> tuple[Site, ...]:
        """
        Raises:
            PortError: a block's MLP is not T5's (a mixture of experts, for one).
        """
        return tuple(site for depth, block in enumerate(model.encoder.block) for site in _block_sites(depth, block))

    def left_reason(self, key: str) -> str | None:
        return next((reason for pattern, reason in LEFT.items() if re.match(pattern, key)), None)


def _block_sites(depth: int, block: nn.Module) -> list[Site]:
    """q, k, v and the attention output, then the MLP's layers; none has a bias."""
    name, attention = f"block {depth}", block.layer[0].SelfAttention
    mlp = getattr(block.layer[1], "DenseReluDense", None)
    if mlp is None:
        raise PortError(f"{name}: its MLP is a {type(block.layer[1]).__name__}, not T5's; not supported")
    heads, group = attention.n_heads, f"{name} attention"
    scores, values = Hidden(f"{name} qk", heads, group), Hidden(f"{name} v", heads, group)
    units, space = Hidden(f"{name} MLP"), f"{name} MLP"

    def site(role: str, path: str, space: str, out: Hidden | None, into: Hidden | None) -> Site:
        layer = block.get_submodule(path)
        weight = Slice(f"encoder.block.{depth}.{path}.weight")
        return Site(f"{name} {role}", role, depth, weight, None, layer.out_features, layer.in_features, space, TOKENS,
                    out, into)

    up = {"MLP gate": "wi_0", "MLP up": "wi_1"} if hasattr(mlp, "wi_0") else {"MLP up": "wi"}
    return [*(site(role, f"layer.0.SelfAttention.{role}", group, values if role == "v" else scores, None)
              for role in "qkv"),
            site("attention output", "layer.0.SelfAttention.o", f"{name} attention output", None, values),
            *(site(role, f"layer.1.DenseReluDense.{path}", space, units, None) for role, path in up.items()),
            site("MLP down", "layer.1.DenseReluDense.wo", f"{name} MLP down", None, units)]
