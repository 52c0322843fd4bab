"""Every family's table: all of a model is accounted for, and every layer is what its table says it is."""

import re
from collections import defaultdict
from dataclasses import replace

import pytest
import torch
import transformers
from support.expert_twins import MIXTURES
from support.family_laws import (
    LAWS,
    accounted_for,
)
from support.family_twins import CASES, CLASSES, GPT2, GROUPED, T5, TEXT, VISION, all_sites
from torch import nn

from hf_bico.core.errors import PortError
from hf_bico.families import family_of
from hf_bico.families.layout import HEAD
from hf_bico.families.tables import TABLES

BARE = {  # other classes of the same kinds: bases before a fine-tune, and towers alone
    "ViTModel": VISION,
    "DeiTForImageClassificationWithTeacher": VISION,
    "Dinov2Model": VISION | {"mlp_ratio": 2},
    "CLIPVisionModel": VISION,
    "CLIPTextModel": TEXT,
    "SiglipVisionModel": VISION,
    "SiglipTextModel": TEXT,
    "BertModel": TEXT,
    "BertForMaskedLM": TEXT,
    "BertForPreTraining": TEXT,
    "RobertaForMaskedLM": TEXT,
    "RobertaModel": TEXT,
    "RobertaForTokenClassification": TEXT,
    "XLMRobertaModel": TEXT,
    "MPNetModel": TEXT,
    "MPNetForMaskedLM": TEXT,
    "MPNetForTokenClassification": TEXT,
    "DistilBertForMaskedLM": {"dim": 24, "n_heads": 3, "n_layers": 2, "hidden_dim": 20, "vocab_size": 40},
    "ModernBertForMaskedLM": TEXT,
    "T5Model": T5,
    "T5EncoderModel": T5,
    "UMT5EncoderModel": T5,
    "MT5EncoderModel": T5,
    "GPT2Model": GPT2,
    "LlamaModel": GROUPED,
    "CohereModel": GROUPED,
    "NomicBertModel": TEXT,
    "Qwen3ForTokenClassification": GROUPED,
    "BertForTokenClassification": TEXT,
}
ROTARY = (
    "modernbert",
    "llama",
    "llama-classifier",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3",
    "timm-rotary",
)


def bare(name: str) -> nn.Module:
    own = re.split(r"For|Model|EncoderModel", name)[0].removesuffix("Encoder")
    vision = {"CLIPVision": "CLIPVision", "SiglipVision": "SiglipVision"}.get(own, own)
    return getattr(transformers, name)(getattr(transformers, f"{vision}Config")(**BARE[name])).eval()


@pytest.mark.parametrize(
    ("law", "name"),
    [(law, name) for law, names in LAWS.items() for name in names],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_laws(law, name):
    model = CASES[name].build()
    assert list(law(family_of(model), model, CASES[name])) == []


@pytest.mark.parametrize("name", BARE)
def test_other_classes_of_a_kind_are_accounted_for(name):
    model = bare(name)
    assert list(accounted_for(family_of(model), model, CASES["vit"])) == []
    heads = family_of(model).head_sites(model)
    assert [site.role for site in heads] == ([HEAD] if name.endswith("ForTokenClassification") else [])
    assert all(site.tokens.sequence == "text" for site in heads)


def test_every_table_has_a_model_here_and_one_model_has_one_table():
    models = [case.build() for case in (CASES | MIXTURES).values()] + [bare(name) for name in BARE]
    assert {family_of(model).name for model in models} == {table.name for table in TABLES}
    assert all(sum(table.knows(model) for table in TABLES) == 1 for model in models)


@pytest.mark.parametrize("name", CASES)
def test_no_weights_are_needed(name):
    with torch.device("meta"):
        skeleton = CASES[name].skeleton()
    assert all_sites(skeleton) == all_sites(CASES[name].build())


@pytest.mark.parametrize("name", CASES)
def test_heads_are_permuted_where_that_is_a_symmetry(name):
    sites = all_sites(CASES[name].build())
    given = {site.hidden_out: site.d_out for site in sites if site.hidden_out}
    assert all(site.d_in == given[site.hidden_in] for site in sites if site.hidden_in)
    assert any(hidden.group is None for hidden in given)
    groups = defaultdict(set)
    for hidden in given:
        groups[hidden.group].add(hidden.heads)
    attention = {group: heads for group, heads in groups.items() if group is not None}
    assert not attention if name in ROTARY else all(heads in ({3}, {4}) for heads in attention.values())
    if name in ("t5", "t5-gated"):  # the encoder's and the decoder's, and every block's to the encoder
        assert attention.keys() == {
            "attention",
            "decoder attention",
            "decoder block 0 cross attention",
            "decoder block 1 cross attention",
        }
    elif name == "mpnet":  # all blocks share one bias of positions
        assert attention.keys() == {"attention"}
    elif name not in ROTARY:
        assert len(attention) >= 2


HEADS = {
    "vit": ["head"],
    "bert": ["head dense", "head"],
    "roberta": ["head dense", "head"],
    "clip": [],
    "distilbert": ["head dense", "head"],
    "modernbert": ["head dense", "head"],
    "mpnet": ["head dense", "head"],
    "timm": ["head"],
    "t5-classifier": ["head dense", "head"],
    "t5": [],
    "llama": [],
    "llama-classifier": ["head"],
    "gpt2-classifier": ["head"],
    "dinov2": ["head"],
}


@pytest.mark.parametrize("name", HEADS)
def test_heads(name):
    model = CASES[name].build()
    sites = family_of(model).head_sites(model)
    assert [site.role for site in sites] == HEADS[name]
    assert not sites or sites[-1].d_out == CLASSES


def test_blocks_of_another_shape_are_refused():
    model = CASES["llama"].build()
    model.model.layers[1].mlp = nn.ModuleDict({"experts": nn.Linear(24, 20)})
    with pytest.raises(PortError, match="block 1 of LlamaForCausalLM has no MLP down, MLP gate, MLP up"):
        family_of(model).sites(model)


def test_strangers_are_refused():
    resnet = CASES["timm"].options | {"architecture": "resnet10t", "model_args": {}}
    with pytest.raises(PortError, match="no blocks like those of timm"):
        model = replace(CASES["timm"], options=resnet).build(exact=False)
        family_of(model).sites(model)


@pytest.mark.parametrize("name", ["gpt2", "beit"])
def test_what_no_table_accounts_for_has_no_reason(name):
    """So a port is refused: cross-attention in GPT-2, BEiT's biases apart from their weights."""
    beit = CASES["timm"].options | {"architecture": "beit_base_patch16_224"}
    model = {
        "gpt2": lambda: CASES["gpt2"].build(add_cross_attention=True),
        "beit": lambda: replace(CASES["timm"], options=beit).build(),
    }[name]()
    keys = {s.key for site in all_sites(model) for s in site.slices}
    assert [key for key in model.state_dict() if key not in keys and family_of(model).left_reason(key) is None]
