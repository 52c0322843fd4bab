"""Tiny mixtures of experts."""

from typing import Any

import torch
from support.family_twins import GROUPED, T5, Case
from torch import nn

EXPERTS = 4


class Mixture(Case):
    """A mixture of experts, which are run one after the other: all at once they know no float64."""

    def skeleton(self, **options: Any) -> nn.Module:
        model = super().skeleton(**options)
        model.config._experts_implementation = "eager"
        for router in (module for module in model.modules() if hasattr(module, "expert_capacity")):
            router.dtype = torch.float64
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
LATENT = {
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "q_lora_rank": 12,
    "kv_lora_rank": 10,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 6,
    "head_dim": 4,
    "num_key_value_heads": 4,
}
MAMBA = {
    "num_hidden_layers": 4,
    "attn_layer_period": 2,
    "attn_layer_offset": 1,
    "expert_layer_period": 2,
    "expert_layer_offset": 1,
    "mamba_dt_rank": 3,
    "mamba_d_state": 4,
}
GEMMA = CHOSEN | {
    "enable_moe_block": True,
    "top_k_experts": 2,
    "moe_intermediate_size": 12,
    "hidden_size_per_layer_input": 0,
    "num_kv_shared_layers": 0,
    "global_head_dim": 8,
    "layer_types": ["sliding_attention", "full_attention"],
}
SWITCH = {
    "num_experts": EXPERTS,
    "num_sparse_encoder_layers": 1,
    "num_sparse_decoder_layers": 1,
    "expert_capacity": 64,
}
TRACED = {
    "deepseek_v3": Mixture("DeepseekV3ForCausalLM", "DeepseekV3Config", CHOSEN | NARROW | LATENT, "causal"),
    "jamba": Mixture("JambaForCausalLM", "JambaConfig", CHOSEN | MAMBA, "causal"),
    "switch": Mixture("SwitchTransformersForConditionalGeneration", "SwitchTransformersConfig", T5 | SWITCH, "seq2seq"),
}
"""Those of no table."""
