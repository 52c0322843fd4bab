"""Tiny mixtures of experts."""

from typing import Any

from support.family_twins import GROUPED, Case
from torch import nn

EXPERTS = 4


class Mixture(Case):
    """A mixture of experts, which are run one after the other: all at once they know no float64."""

    def skeleton(self, **options: Any) -> nn.Module:
        model = super().skeleton(**options)
        model.config._experts_implementation = "eager"
        return model


CHOSEN = GROUPED | {"num_local_experts": EXPERTS, "num_experts": EXPERTS, "num_experts_per_tok": 2}
NARROW = {"moe_intermediate_size": 12, "decoder_sparse_step": 1}
MIXTURES = {
    "mixtral": Mixture("MixtralForCausalLM", "MixtralConfig", CHOSEN, "causal"),
    "qwen2_moe": Mixture(
        "Qwen2MoeForCausalLM",
        "Qwen2MoeConfig",
        CHOSEN | NARROW | {"shared_expert_intermediate_size": 16, "mlp_only_layers": [1], "num_hidden_layers": 3},
        "causal",
    ),
    "qwen3_moe": Mixture("Qwen3MoeForCausalLM", "Qwen3MoeConfig", CHOSEN | NARROW | {"norm_topk_prob": True}, "causal"),
    "olmoe": Mixture(
        "OlmoeForCausalLM", "OlmoeConfig", CHOSEN | {"num_attention_heads": 3, "num_key_value_heads": 3}, "causal"
    ),
    "granitemoe": Mixture("GraniteMoeForCausalLM", "GraniteMoeConfig", CHOSEN, "causal"),
    "gpt_oss": Mixture("GptOssForCausalLM", "GptOssConfig", CHOSEN, "causal"),
}
