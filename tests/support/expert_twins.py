"""Tiny mixtures of experts, and the same functions with their experts in another order."""

import copy
from typing import Any

import torch
from support.family_twins import GROUPED, Case, turned
from torch import Tensor, nn

from hf_bico.core.pairing import ROUTER
from hf_bico.families import family_of

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
    "olmoe": Mixture("OlmoeForCausalLM", "OlmoeConfig", CHOSEN | {"num_attention_heads": 3, "num_key_value_heads": 3}, "causal"),
    "granitemoe": Mixture("GraniteMoeForCausalLM", "GraniteMoeConfig", CHOSEN, "causal"),
    "gpt_oss": Mixture("GptOssForCausalLM", "GptOssConfig", CHOSEN, "causal"),
}


def shuffled(model: nn.Module, state: dict[str, Tensor], *, rotate: bool = False, seed: int = 2) -> dict[str, Tensor]:
    """A model's tensors, or a change of them, in other coordinates, with every layer's experts in another order."""
    state = turned(model, state, rotate=rotate, seed=seed)
    sites = family_of(model).sites(model)
    for router in (site for site in sites if site.role == ROUTER):
        experts = [site for site in sites if site.expert is not None and site.depth == router.depth]
        order = torch.randperm(router.d_out)
        for key in {s.key for site in (router, *experts) for s in site.slices}:
            state[key] = state[key][order]
    return state


def shuffled_twin(model: nn.Module, *, rotate: bool = False) -> nn.Module:
    """The same function; see `shuffled`."""
    other = copy.deepcopy(model)
    other.load_state_dict(shuffled(model, model.state_dict(), rotate=rotate))
    return other
