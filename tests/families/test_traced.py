"""Roles read off a traced forward pass: they are the tables' for every model that has a table, and hold for others."""

from collections import Counter

import pytest
import torch
import transformers
from support.family_twins import CASES, TEXT, WORDS, gradient_step
from torch import nn

from hf_bico import Naive, port
from hf_bico.core.errors import PortError
from hf_bico.core.pairing import pair_sites
from hf_bico.families import family_of, told_of
from hf_bico.families.traced import Traced, family
from hf_bico.families.traced.reading import read

TRACED = Traced()
SAID = ("role", "depth", "weight", "bias", "d_out", "d_in")
"""What a site says that a trace finds too; heads that permute, layouts and names of towers are for tables to say."""


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(family, "_known", {})


def by_place(sites):
    return {(site.weight.key, site.weight.rows): site for site in sites if site.depth is not None}


@pytest.mark.parametrize("name", CASES)
def test_the_trace_gives_what_the_table_says(name):
    model = CASES[name].build(exact=False)
    said, seen = by_place(family_of(model).sites(model, every=True)), by_place(TRACED.sites(model))
    assert said.keys() == seen.keys()
    for at, site in said.items():
        assert [getattr(seen[at], what) for what in SAID] == [getattr(site, what) for what in SAID]
        mlp = [bool(h and h.group is None) for h in (site.hidden_out, site.hidden_in)]
        assert mlp == [bool(h) for h in (seen[at].hidden_out, seen[at].hidden_in)]
        assert "timm" in name or name == "t5-classifier" or seen[at].tokens == site.tokens
        together = {other for other in said if said[other].space == site.space}
        assert together == {other for other in seen if seen[other].space == seen[at].space}
    heads = [[(s.role, s.weight) for s in f.head_sites(model)] for f in (family_of(model), TRACED)]
    assert heads[0] == heads[1]


def of(cls: str, **options) -> nn.Module:
    config = getattr(transformers, cls.split("For")[0].removesuffix("Model") + "Config")(**options)
    torch.manual_seed(0)
    return getattr(transformers, cls)(config).eval()


def test_no_weights_are_needed_and_no_random_state_is_left_changed():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    with torch.device("meta"):
        skeleton = transformers.OPTForCausalLM(transformers.OPTConfig())  # 768 wide, 12 blocks
    sites = TRACED.sites(skeleton)
    assert torch.equal(torch.rand(1), expected)
    assert Counter(site.role for site in sites) == dict.fromkeys(
        ("q", "k", "v", "attention output", "MLP up", "MLP down"), 12
    )
    assert {(s.d_out, s.d_in) for s in sites if s.role == "MLP up"} == {(3072, 768)}
    with torch.device("meta"):
        fused = TRACED.sites(transformers.GPTNeoXModel(transformers.GPTNeoXConfig()))  # heads of 96
    assert {(s.weight.rows, s.weight.every) for s in fused if s.role == "k"} == {((96, 192), 288)}


def test_a_refuted_mlp_has_no_role(monkeypatch):
    """A convolution between the two maps mixes positions, not units; a shuffle of units does."""
    model = CASES["bert"].build(exact=False)
    real = transformers.models.bert.modeling_bert.BertIntermediate.forward
    monkeypatch.setattr(
        transformers.models.bert.modeling_bert.BertIntermediate, "forward", lambda self, x: real(self, x).cumsum(-1)
    )
    reading = read(model)
    assert reading.refuted == ("bert.encoder.layer.#.output.dense.weight",)
    assert "MLP up" not in reading.roles and "q" in reading.roles


def test_a_model_without_a_config_pairs_by_names_where_that_is_asked_for():
    model = nn.ModuleDict({"blocks": nn.ModuleList(nn.ModuleDict({"a": nn.Linear(4, 4)}) for _ in range(2))})
    with pytest.raises(PortError, match=r"no known family: no table names it, and a ModuleDict has no config.*generic"):
        family_of(model)
    sites = family_of(model, "generic").sites(model)
    assert [(site.role, site.depth) for site in sites] == [("a", 0), ("a", 1)]
    assert told_of((family_of(model, "generic"), model)) == (
        "ModuleDict: no tiny copy of it runs, so its 2 linear maps pair by their names",
    )
    with pytest.raises(PortError, match="nothing pairs"):
        family_of(nn.Linear(2, 2), "generic").sites(nn.Linear(2, 2))


def test_a_deeper_target_pairs_by_the_papers_rule():
    generic = family_of(CASES["llama"].build(), "generic")
    pairs = pair_sites(*(generic.sites(CASES["llama"].build(num_hidden_layers=n)) for n in (2, 3)))
    assert Counter(pair.target.depth for pair in pairs) == {0: 7, 1: 7, 2: 7}
    assert all(a.role == b.role for a, b in pairs)


@pytest.mark.parametrize("name", ["t5", "bert"])
def test_masked_texts_meet_in_encoder_and_decoder(name):
    """Under generic the decoder's rows were once paired by the encoder's mask, which ended in a traceback."""
    case = CASES[name]
    model, other = case.build(), case.build(seed=1)
    ids, labels = case.samples(8)
    mask = torch.ones_like(ids)
    mask[4:, 4:] = 0
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels % WORDS}
    tuned = gradient_step(model, case.loss, case.samples(8))
    both = [
        port(tuned=tuned, base=model, target=other, calibration=[batch], method=Naive(), family=named).delta
        for named in (None, "generic")
    ]
    assert all(torch.equal(both[0][key], both[1][key]) for key in both[1])


def test_few_letters_are_a_vocabulary_too():
    """A copy's texts are of seven different tokens; a vocabulary of letters may have fewer."""
    wave = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}
    model = of("Wav2Vec2ForCTC", **wave, vocab_size=6, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=1)
    assert [(s.role, s.weight.key) for s in TRACED.head_sites(model)] == [("head", "lm_head.weight")]
    roles = Counter(site.role for site in TRACED.sites(model))
    known = ("q", "k", "v", "attention output", "MLP up", "MLP down", "feature projection")
    assert roles == dict.fromkeys(known, 1)
    assert "lm_head.weight" not in {rider.key for rider in TRACED.riders(model)}


def test_a_type_of_no_table_is_ported_and_that_is_told():
    model, other = (of("ElectraForSequenceClassification", **TEXT, embedding_size=24) for _ in range(2))
    tuned = {key: tensor + 0.01 * tensor.abs() for key, tensor in model.state_dict().items()}
    batch = {"input_ids": torch.randint(3, WORDS, (4, 6)), "labels": torch.tensor([0, 1, 0, 1])}
    ported = port(tuned=tuned, base=model, target=other, calibration=[batch], method=Naive())
    assert len(ported.moved) == 12
    assert "has no table: the roles of 12 of its 12 linear maps" in ported.report["roles"][0]
