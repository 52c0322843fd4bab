"""Ports through the Hub of models that no table names."""

from dataclasses import replace

import peft
import pytest
import torch
import transformers
from huggingface_hub import ModelCard
from safetensors import safe_open
from support.expert_twins import MIXTURES
from support.family_twins import CASES, TEXT, Case, turned
from support.repos import write_family
from support.twins import distance

from hf_bico.core.errors import PortError
from hf_bico.io.hub import Hub
from hf_bico.workflows.bases import make_bases_plan
from hf_bico.workflows.config import AlignConfig, PortConfig
from hf_bico.workflows.dry_run import dry_run
from hf_bico.workflows.port import run
from tests.workflows.test_repos import published

ALBERT = Case("AlbertForSequenceClassification", "AlbertConfig", TEXT | {"embedding_size": 24}, "text")


def test_a_twin_of_no_table_gives_the_fine_tune_back_and_says_how(tmp_path, hub, monkeypatch):
    """ALBERT: its blocks share their weights; its classifier reads the pooler that its base has."""
    monkeypatch.setitem(CASES, "albert", ALBERT)
    expected = write_family(tmp_path, "albert")
    repo = published(tmp_path, "albert")
    config = PortConfig(
        f"{repo}-ft",
        f"{repo}-plus",
        f"{repo}-task",
        n=66,
        push_to=f"{repo}-port",
        method="bico",
        method_options=("rtol=1e-6",),
        allow_regression=True,
    )
    assert len(dry_run(config, Hub())[0].models.pairs) >= 6
    outcome = run(config, Hub())
    told = "AlbertForSequenceClassification has no table: the roles of 6 of its 6 linear maps"
    assert outcome.report["roles"][0].startswith(told)
    assert told in str(ModelCard.load(f"{repo}-port"))
    cls = transformers.AlbertForSequenceClassification
    ported, before = (cls.from_pretrained(each).state_dict() for each in (f"{repo}-port", tmp_path / "plus"))
    delta = {key: tensor - before[key] for key, tensor in ported.items() if expected[key].any()}
    moved = {key: tensor for key, tensor in delta.items() if "albert_layers" in key}
    assert len(moved) == 12
    assert distance(moved, {key: expected[key] for key in moved}) < 0.05


def test_a_twin_whose_experts_are_stored_apart_gives_the_fine_tune_back(tmp_path, hub, monkeypatch):
    """The files have every expert's layers by themselves, the live model has them in stacks."""
    name = "mixtral"
    monkeypatch.setitem(CASES, name, MIXTURES[name])
    expected = write_family(tmp_path, name)
    with safe_open(tmp_path / "base" / "model.safetensors", "pt") as file:
        assert len([key for key in file.keys() if ".experts.3." in key]) == 6  # noqa: SIM118
    repo = published(tmp_path, name)
    config = PortConfig(
        f"{repo}-ft",
        f"{repo}-plus",
        f"{repo}-task",
        n=66,
        push_to=f"{repo}-port",
        method="bico",
        method_options=("rtol=1e-6",),
    )
    align = AlignConfig(f"{repo}-base", f"{repo}-plus", dataset=f"{repo}-task", output=tmp_path / "maps")
    for form in ("delta", "lora"):
        with pytest.raises(PortError, match=f"a {form} of transformers holds linear layers alone.*experts are one"):
            dry_run(replace(config, form=form), Hub())
    with pytest.raises(PortError, match="the maps of experts cannot be kept"):
        make_bases_plan(align, Hub())
    assert run(config, Hub()).report["task_vector"]["moved_share"] > 0.999
    cls = getattr(transformers, MIXTURES[name].cls)
    ported, before = (cls.from_pretrained(each).state_dict() for each in (f"{repo}-port", tmp_path / "plus"))
    delta = {key: tensor.double() - before[key].double() for key, tensor in ported.items() if expected[key].any()}
    assert len(delta) == 14
    assert distance(delta, {key: expected[key] for key in delta}) < 1e-4


def test_a_lora_on_experts_is_ported(tmp_path, hub):
    """PEFT names a stack's factors after the module that holds it, and keeps those of all experts in one matrix."""
    name = "qwen3_moe"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CASES, name, MIXTURES[name])
        write_family(tmp_path, name)
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    adapted = peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules="all-linear"))
    torch.manual_seed(0)
    with torch.no_grad():
        for key, factor in adapted.named_parameters():
            factor.normal_(std=0.02) if "lora_B" in key else None
    adapted.save_pretrained(tmp_path / "adapter")
    places = (str(tmp_path / each) for each in ("adapter", "plus", "task"))
    run(
        PortConfig(
            *places,
            base=str(tmp_path / "base"),
            n=66,
            method="bico",
            method_options=("rtol=1e-7",),
            output=tmp_path / "out",
            allow_regression=True,
        ),
        Hub(),
    )
    opened = (transformers.AutoModelForCausalLM.from_pretrained(tmp_path / each) for each in ("base", "plus", "out"))
    before, plus, ported = (model.double() for model in opened)
    tuned = adapted.merge_and_unload().double().state_dict()
    expected = turned(before, {key: tuned[key] - tensor for key, tensor in before.state_dict().items()})
    delta = {key: tensor - plus.state_dict()[key] for key, tensor in ported.state_dict().items()}
    assert len([key for key in delta if "experts" in key and delta[key].any()]) == 4
    assert distance(delta, expected) < 1e-3
