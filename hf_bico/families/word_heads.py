"""Heads that score the words of a vocabulary: what of them moves beside their linear maps."""

import re
from collections.abc import Iterator, Sequence

from torch import nn

from hf_bico.core.riders import Kind, Rider, Rows
from hf_bico.core.types import Site

WORD_DENSE = "dense of the word scores"
"""Role of the layer between the blocks and the rows of the vocabulary, in masked language models."""
NORM = r"(^cls\.predictions\.transform\.(LayerNorm|layer_norm)|^lm_head\.layer_norm|^vocab_layer_norm|^head\.norm)\."
ROWS = r"(^cls\.predictions\.decoder|^lm_head\.decoder|^vocab_projector|^decoder)\.weight$"
BIAS = r"(^cls\.predictions\.decoder|^lm_head\.decoder|^vocab_projector|^decoder)\.bias$"
ALONE = r"^lm_head\.bias$"
"""The bias of a head without a dense layer."""


def word_head(
    key: str, parameter: nn.Parameter, tied: tuple[str, ...], sites: Sequence[Site], last: Site | None
) -> Iterator[Rider]:
    """Yield a tensor of a head that scores words: what lies behind its dense layer moves by that layer's outputs, a
    bias, a number a token, as it is.

    Args:
        sites: the model's, outside the blocks.
        last: the layer where the residual stream ends; None if there is none.
    """
    dense = next((site for site in sites if site.role == WORD_DENSE), None)
    on = dense or last
    scores = any(re.search(BIAS if dense else ALONE, name) for name in (key, *tied))
    if scores and parameter.ndim == 1 and on is not None:
        yield Rider(
            "bias of the word scores", "tokens", key, Kind.NUMBERS, on.name, rows=Rows.TOKENS, tower=on.tower, tied=tied
        )
    if dense is None or parameter.shape[-1] != dense.d_out:
        return
    if re.search(NORM, key):
        bias = key.endswith("bias")
        kind = Kind.VECTORS if bias else Kind.GAIN
        role = f"norm of the word scores{' bias' * bias}"
        yield Rider(role, "norms", key, kind, dense.name, width=dense.d_out, tower=dense.tower)
    elif re.search(ROWS, key):
        yield Rider(
            "language-model head",
            "tokens",
            key,
            Kind.VECTORS,
            dense.name,
            rows=Rows.TOKENS,
            width=dense.d_out,
            tower=dense.tower,
            tied=tied,
        )
