"""Ports through the Hub of models that no table names."""

import pytest
import transformers
from huggingface_hub import ModelCard
from support.family_twins import CASES, TEXT, Case
from support.repos import write_family
from support.twins import distance

from hf_bico.core.errors import PortError
from hf_bico.io.hub import Hub
from hf_bico.workflows.config import PortConfig
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


def test_experts_are_refused_in_one_line(tmp_path):
    shape = {"hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.MixtralConfig(
        **shape, num_key_value_heads=1, num_local_experts=2, vocab_size=40, architectures=["MixtralForCausalLM"]
    )
    for name in ("ft", "base", "plus"):
        transformers.MixtralForCausalLM(config).save_pretrained(tmp_path / name)
    with pytest.raises(PortError, match=r"\(mixtral\) is of no known family.*its experts"):
        run(PortConfig(*(str(tmp_path / each) for each in ("ft", "plus", "base")), base=str(tmp_path / "base")), Hub())
