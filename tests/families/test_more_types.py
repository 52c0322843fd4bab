"""Model types whose blocks are those of another's table: the table's laws hold of each."""

import pytest
import torch
from support.family_laws import accounted_for, alike_inputs_share_a_space, rows_lie_as_said
from support.family_twins import GROUPED, TEXT, VISION, Case, twin

from hf_bico.families import family_of
from hf_bico.families.layout import roles

WHOLE_HEADS = GROUPED | {"num_attention_heads": 3, "num_key_value_heads": 3}
"""StableLM's heads are the stream's width in parts, whatever `head_dim` says."""
CAUSAL = {
    "Olmo2": GROUPED,
    "Olmo3": GROUPED,
    "SmolLM3": GROUPED,
    "Granite": GROUPED,
    "StableLm": WHOLE_HEADS,
    "Exaone4": GROUPED,
    "Ernie4_5": GROUPED,
    "HunYuanDenseV1": GROUPED,
    "SeedOss": GROUPED,
    "Ministral3": GROUPED,
    "Cohere": GROUPED,
    "Cohere2": GROUPED,
}
BOTH = {"vision_config": VISION, "text_config": TEXT, "projection_dim": 10}
MORE = {
    **{name: Case(f"{name}ForCausalLM", f"{name}Config", options, "causal") for name, options in CAUSAL.items()},
    "NomicBert": Case("NomicBertForSequenceClassification", "NomicBertConfig", TEXT, "text"),
    "Ernie": Case("ErnieForSequenceClassification", "ErnieConfig", TEXT | {"use_task_id": True}, "text"),
    "MetaClip2": Case("MetaClip2Model", "MetaClip2Config", BOTH, "contrastive"),
    "MetaClip2Vision": Case("MetaClip2VisionModel", "MetaClip2VisionConfig", VISION, "image"),
    "MetaClip2Text": Case("MetaClip2TextModel", "MetaClip2TextConfig", TEXT, "text"),
    "ViTMSN": Case("ViTMSNForImageClassification", "ViTMSNConfig", VISION, "image"),
}
ALONE = ("MetaClip2Vision", "MetaClip2Text")
"""Towers without scores: only their tables are checked."""


@pytest.mark.parametrize("name", MORE)
def test_a_type_that_is_only_named_obeys_the_laws(name):
    case = MORE[name]
    model = case.build()
    family = family_of(model)
    assert list(accounted_for(family, model, case)) == []
    assert {(site.role, site.depth) for site in family.sites(model)} >= {
        (role, depth) for role in roles(family.towers[0].layers) for depth in (0, 1)
    }
    if name in ALONE:
        return
    assert list(rows_lie_as_said(family, model, case)) == []
    assert list(alike_inputs_share_a_space(family, model, case)) == []
    with torch.no_grad():
        before, after = (case.logits(each, case.samples(4)) for each in (model, twin(model)))
    assert (after - before).norm() < 1e-6 * before.norm()  # Cohere's norms are in float32
