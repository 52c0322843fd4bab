"""Linear maps that are not plain layers of their own: parts of fused weights, shared blocks, pixels, turned weights."""

import copy

import pytest
import torch
from support.family_laws import attention_takes_q_k_v
from support.family_twins import END, GROUPED, TEXT, WORDS, Case, gradient_step, turned, twin
from support.twins import distance
from torch import nn

from hf_bico import BiCo, port
from hf_bico.core.collect import Batch, Side, collect
from hf_bico.core.errors import PortError
from hf_bico.core.low_rank import Delta, LowRank
from hf_bico.core.moments import Statistics
from hf_bico.core.pairing import pair_sites
from hf_bico.core.taps import taps
from hf_bico.core.types import Signal, Site, Slice, Tokens, Wanted
from hf_bico.families import family_of

HEADS = {"vocab_size": WORDS, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "eos_token_id": END}
FUSED = {
    "gpt_neox": Case("GPTNeoXForCausalLM", "GPTNeoXConfig", HEADS | {"intermediate_size": 20}, "causal"),
    "bloom": Case("BloomForCausalLM", "BloomConfig", HEADS | {"n_head": 3, "n_layer": 2}, "causal"),
    "falcon": Case("FalconForCausalLM", "FalconConfig", HEADS, "causal"),
    "falcon-grouped": Case(
        "FalconForCausalLM",
        "FalconConfig",
        HEADS | {"num_attention_heads": 6, "num_kv_heads": 2, "new_decoder_architecture": True},
        "causal",
    ),
    "gpt_bigcode": Case(
        "GPTBigCodeForCausalLM",
        "GPTBigCodeConfig",
        {"vocab_size": WORDS, "n_embd": 24, "n_layer": 2, "n_head": 3, "n_inner": 20, "eos_token_id": END},
        "causal",
    ),
    "phi3": Case("Phi3ForCausalLM", "Phi3Config", GROUPED, "causal"),
}
"""q, k and v lie head by head, group by group, or in unequal parts."""


@pytest.mark.parametrize("name", FUSED)
def test_parts_of_a_fused_weight_are_what_attention_takes(name):
    case = FUSED[name]
    model = case.build(exact=False).double()
    family = family_of(model)
    sites = family.sites(model)
    if name == "bloom":  # which has its attention in steps
        own = {site.role: (*site.weight.rows, site.weight.every) for site in sites if site.weight.rows}
        assert own == {"q": (0, 8, 24), "k": (8, 16, 24), "v": (16, 24, 24)}
    else:
        assert list(attention_takes_q_k_v(family, model, case)) == []
    state = model.state_dict()
    assert all(site.weight.of(state[site.weight.key]).shape == (site.d_out, site.d_in) for site in sites)
    covered = {site.weight.key: torch.zeros_like(model.state_dict()[site.weight.key]) for site in sites}
    for site in sites:
        for key, whole in covered.items():
            if key == site.weight.key:
                site.weight.put(whole, site.weight.of(whole) + 1)
    assert all(bool((whole == 1).all()) for whole in covered.values())
    assert {site.role for site in sites} >= {"q", "k", "v", "attention output", "MLP up", "MLP down"}


def test_rows_that_come_again_are_read_and_written_in_their_places():
    where, part = Slice("w", (1, 3), every=4), torch.arange(12.0).reshape(4, 3) + 1
    whole = torch.zeros(8, 3)
    where.put(whole, part)
    assert torch.equal(where.of(whole), part)
    assert torch.equal(whole.any(1).nonzero().flatten(), torch.tensor([1, 2, 5, 6]))
    assert torch.equal(where.outputs(whole.T), part.T)
    assert torch.equal(Slice("b", (1, 3), every=4).of(whole[:, 0]), part[:, 0])
    product = LowRank(whole[:, :2], torch.rand(2, 5))
    assert torch.equal(where.of(product).dense(), part[:, :2] @ product.a)
    delta = Delta({"w": torch.zeros(8, 5)})
    delta.write(where, where.of(product))
    assert torch.equal(delta["w"], product.dense()) and torch.equal(delta.factors("w").dense(), product.dense())


def rows_of(model: nn.Module, site: Site, run, signals=(Signal.INPUT, Signal.OUTPUT_GRADIENT)):
    seen = {}
    with taps(model, [site], signals, seen.__setitem__, 2):
        run().square().sum().backward()
    return {(stream.signal, stream.run): rows for stream, rows in seen.items()}


def site_of(layer: nn.Module) -> Site:
    d_out, d_in = layer.weight.shape[:2]
    return Site("s", "s", 0, Slice("0.weight"), None, d_out, d_in, "s", Tokens(0, (1,), "rows"))


def test_pixels_and_turned_weights_show_the_rows_that_a_linear_layer_shows():
    layer, x = nn.Linear(3, 4, bias=False), torch.rand(2, 3, 5, 6)
    rows = x.movedim(1, -1).flatten(1, 2)
    plain = nn.Sequential(layer)
    expected = rows_of(plain, site_of(layer), lambda: plain(rows))
    turned_round = rows_of(plain, site_of(layer), lambda: rows @ layer.weight.T)
    conv = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False))
    conv[0].weight.data.copy_(layer.weight[..., None, None])
    pixels = rows_of(conv, site_of(conv[0]), lambda: conv(x))
    assert all(torch.allclose(each[key], expected[key]) for each in (turned_round, pixels) for key in expected)
    stepped = nn.Sequential(nn.Conv2d(3, 4, 1, stride=2, bias=False))
    assert torch.equal(
        rows_of(stepped, site_of(stepped[0]), lambda: stepped(x))[Signal.INPUT, 0],
        x[:, :, ::2, ::2].movedim(1, -1).flatten(1, 2),
    )


ALBERT = Case("AlbertForSequenceClassification", "AlbertConfig", TEXT | {"embedding_size": 20}, "text")


def test_a_block_that_runs_twice_adds_up_its_runs():
    """The moments are those of the same blocks with weights of their own, run by run."""
    a, b = (ALBERT.build(seed=seed, exact=False).double() for seed in (0, 1))
    pairs = pair_sites(*(family_of(model).sites(model) for model in (a, b)))
    wanted = Wanted(frozenset({Signal.INPUT, Signal.OUTPUT_GRADIENT}))
    batch = ALBERT.samples(4)
    seen = collect(Side(a, ALBERT.loss), Side(b, ALBERT.loss), pairs, [Batch(batch, batch)], Statistics(pairs, wanted))
    pair = next(pair for pair in pairs if pair.target.role == "MLP up")
    runs = []
    for model in (a, b):
        rows = []
        layer = model.get_submodule(pair.target.weight.key.removesuffix(".weight"))
        with torch.no_grad():
            hook = layer.register_forward_pre_hook(lambda module, args, rows=rows: rows.append(args[0].flatten(0, 1)))
            ALBERT.logits(model, batch)
            hook.remove()
        runs.append(rows)
    assert len(runs[0]) == 2
    expected = sum(there.T @ here for here, there in zip(*runs, strict=True))
    assert torch.allclose(seen[pair, Signal.INPUT].cross, expected)
    assert seen[pair, Signal.INPUT].rows == 2 * runs[0][0].shape[0]
    longer = ALBERT.build(exact=False, num_hidden_layers=3).double()
    with pytest.raises(PortError, match="runs more than once in a pass, and more often"):
        port(tuned=b, base=a, target=longer, calibration=[batch], loss=ALBERT.loss, method=BiCo(), trust_base=True)


EXACT = BiCo(rtol=1e-11)
TRACED = {
    "electra": Case("ElectraForSequenceClassification", "ElectraConfig", TEXT | {"embedding_size": 24}, "text"),
    "bart": Case(
        "BartForConditionalGeneration",
        "BartConfig",
        {
            "vocab_size": WORDS,
            "d_model": 24,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 3,
            "decoder_attention_heads": 3,
            "encoder_ffn_dim": 20,
            "decoder_ffn_dim": 20,
            "max_position_embeddings": 30,
            "dropout": 0.0,
        },
        "seq2seq",
    ),
}


@pytest.mark.parametrize("name", TRACED)
def test_a_twin_of_no_table_gives_the_fine_tune_back(name):
    case = TRACED[name]
    model = case.build()
    family = family_of(model)
    other, batch = twin(model, family=family), case.samples()
    with torch.no_grad():
        assert torch.allclose(case.logits(model, case.samples(4)), case.logits(other, case.samples(4)))
    tuned = gradient_step(model, case.loss, batch)
    delta = port(
        tuned=tuned,
        base=model,
        target=other,
        calibration=[Batch(batch, batch)],
        loss=case.loss,
        method=EXACT,
    ).delta
    expected = turned(model, {key: tuned[key] - tensor for key, tensor in model.state_dict().items()}, family=family)
    assert distance(delta, {key: expected[key] for key in delta}) < 1e-9


def test_rows_of_a_text_that_a_layer_does_not_read_are_refused():
    model = FUSED["phi3"].build(exact=False)
    batch = {"input_ids": FUSED["phi3"].samples(2)[0]}
    odd = Batch(batch, batch, {"text": torch.ones(2, 4, 4)})
    with pytest.raises(PortError, match="these layers do not read that text"):
        port(tuned=copy.deepcopy(model).apply(_nudge), base=model, target=model, calibration=[odd], method=BiCo())


def _nudge(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters(recurse=False):
            parameter.add_(0.01)
