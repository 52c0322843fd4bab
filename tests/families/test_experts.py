"""Mixtures of experts: matched by what their routers send them, each with maps of its own."""

import copy
import re
from dataclasses import replace

import pytest
import torch
import transformers
from safetensors.torch import load_file
from support.expert_twins import EXPERTS, GEMMA, MIXTURES, TRACED, Mixture
from support.family_laws import accounted_for
from support.family_twins import CASES, GROUPED, Case, gradient_step, plain, turned, twin
from support.twins import distance
from torch import Tensor, nn

from hf_bico import BiCo, FewShot, GradFix, Naive, Response, Theseus, Weighted, port
from hf_bico.core.chain import fill
from hf_bico.core.collect import Batch, Side
from hf_bico.core.errors import PortError
from hf_bico.core.experts import match_experts
from hf_bico.core.method import Method
from hf_bico.core.moments import Statistics
from hf_bico.core.notes import noted
from hf_bico.core.pairing import ROUTER, pair_sites
from hf_bico.core.taps import taps
from hf_bico.core.types import Signal, Slice, Wanted
from hf_bico.families import family_of
from hf_bico.families.hf import Transformers
from hf_bico.io.checkpoints import Named
from hf_bico.workflows.ported import Ported
from tests.families.test_beside import whole_step

ALL = MIXTURES | TRACED
EXACT = BiCo(rtol=1e-9)
"""Routers are in float32 whatever the model is, so that twins differ by that."""


def carried(
    case: Case, model: nn.Module, other: nn.Module, tuned: dict[str, Tensor], n: int = 64, method: Method = EXACT
) -> Ported:
    batch = case.samples(n)
    return port(tuned=tuned, base=model, target=other, calibration=[Batch(batch, batch)], loss=case.loss, method=method)


@pytest.mark.parametrize(
    ("name", "rotate"), [*((name, False) for name in ALL), *((name, True) for name in ("mixtral", "deepseek_v3"))]
)
def test_a_twin_with_its_experts_in_another_order_gives_the_fine_tune_back(name, rotate):
    case = ALL[name]
    model = plain(case.build()) if rotate else case.build()
    other, tuned = twin(model, rotate=rotate), gradient_step(model, case.loss, case.samples(64))
    with torch.no_grad():
        assert torch.allclose(*(case.logits(each, case.samples(4)) for each in (model, other)), atol=1e-6)
    expected = turned(model, {key: tuned[key] - tensor for key, tensor in model.state_dict().items()}, rotate=rotate)
    delta = carried(case, model, other, tuned).delta
    assert delta.keys() == {s.key for site in family_of(model).sites(model) for s in site.slices}
    assert distance(delta, {key: expected[key] for key in delta}) < 1e-6


@pytest.mark.parametrize("name", MIXTURES)
def test_everything_that_changed_moves_between_permuted_twins(name):
    case = MIXTURES[name]
    model = case.build()
    other, tuned = twin(model), whole_step(case, model)
    ported = carried(case, model, other, tuned)
    assert list(accounted_for(family_of(model), model, case)) == [] == ported.account.left
    fine_tune = copy.deepcopy(model)
    fine_tune.load_state_dict(tuned)
    with torch.no_grad():
        before, wanted, got = (case.logits(each, case.samples(4)) for each in (model, fine_tune, ported.apply_()))
    assert (got - wanted).norm() < 2e-6 * (wanted - before).norm()


@pytest.mark.parametrize("name", ["qwen2_moe", "gpt_oss"])
def test_a_gain_before_experts_folds_into_them_and_their_router(name):
    case = MIXTURES[name]
    model = plain(case.build())
    gains, step = family_of(model).gains(model), whole_step(case, model)
    tuned = model.state_dict() | {gain.key: step[gain.key] for gain in gains}
    ported = carried(case, model, twin(model, rotate=True), tuned)
    fine_tune = copy.deepcopy(model)
    fine_tune.load_state_dict(tuned)
    with torch.no_grad():
        before, wanted, got = (case.logits(each, case.samples(4)) for each in (model, fine_tune, ported.apply_()))
    assert (got - wanted).norm() < 1e-5 * (wanted - before).norm()


def test_the_naive_copy_and_outputs_follow_the_match_too():
    """Experts alone in another order: the naive copy to matched experts is the fine-tune, as it is by THESEUS."""
    case = MIXTURES["gpt_oss"]
    model = case.build()
    state, order = model.state_dict(), torch.tensor([2, 0, 3, 1])
    mixed = {key: tensor[order] if "router" in key or "experts" in key else tensor for key, tensor in state.items()}
    other = copy.deepcopy(model)
    other.load_state_dict(mixed)
    tuned = gradient_step(model, case.loss, case.samples(64))
    expected = {key: (tuned[key] - state[key]) for key in state}
    expected = {key: x[order] if "router" in key or "experts" in key else x for key, x in expected.items()}
    for method in (Naive(), Theseus(rtol=1e-9)):
        delta = carried(case, model, other, tuned, method=method).delta
        experts = [key for key in delta if "router" in key or (isinstance(method, Naive) and "experts" in key)]
        assert distance({key: delta[key] for key in experts}, {key: expected[key] for key in experts}) < 1e-9


@pytest.mark.parametrize(("name", "chosen"), [("mixtral", 2), ("gpt_oss", 2), ("switch", 1)])
def test_an_expert_sees_the_rows_that_its_router_sends_it_where_they_are(name, chosen):
    case = ALL[name]
    model, rows = case.build(), {}
    sites = [
        site for site in family_of(model).sites(model) if site.depth == 1 and (site.known or site.expert is not None)
    ]
    sites = [site for site in sites if site.tower == sites[0].tower]
    wanted = {Signal.INPUT, Signal.OUTPUT, Signal.OUTPUT_GRADIENT}
    with taps(model, sites, wanted, lambda stream, x: rows.update({stream._replace(run=0): x}), 8):
        case.loss(model, case.samples(8)).backward()
    router, *experts = sites
    picked = rows[router.stream(Signal.OUTPUT)].topk(chosen).indices
    for site in (site for site in experts if not site.gives):
        sent, weight = (picked == site.expert).any(-1), site.weight.of(model.state_dict()[site.weight.key])
        right = rows[router.stream(Signal.INPUT)] @ weight.T * sent[..., None]
        assert sent.any() and torch.allclose(rows[site.stream(Signal.OUTPUT)], right)
        assert not rows[site.stream(Signal.OUTPUT_GRADIENT)][~sent].any()
    for site in (site for site in experts if site.gives):
        assert torch.equal(rows[site.stream(Signal.INPUT)].any(-1), (picked == site.expert).any(-1))


@pytest.mark.parametrize("name", ALL)
def test_the_gradient_at_what_experts_read_is_of_all_that_read_it(name):
    """Not of the router alone, which may read a view, or another dtype."""
    case = ALL[name]
    model = case.build().requires_grad_(False)
    sites = [site for site in family_of(model).sites(model) if site.role == ROUTER or site.expert is not None]
    wanted, rows = {}, {}

    def watch(place):
        def hook(module, args):
            x = args[0] * 1 if args[0].requires_grad else args[0].detach().requires_grad_()
            x.register_hook(lambda gradient: wanted.update({place: gradient.flatten(0, 1)}))
            return x, *args[1:]

        return hook

    for place in {site.weight.key.partition(".experts.")[0] for site in sites if site.expert is not None}:
        model.get_submodule(place).register_forward_pre_hook(watch(place))
    with taps(model, sites, {Signal.INPUT_GRADIENT}, lambda stream, x: rows.update({stream.name: x.flatten(0, 1)}), 8):
        case.loss(model, case.samples(8)).backward()
    assert wanted
    for place, right in wanted.items():
        router = next(site for site in sites if site.role == ROUTER and site.weight.key.startswith(f"{place}."))
        assert (rows[router.space] - right).norm() < 1e-6 * right.norm()


def test_experts_that_read_other_rows_than_their_router_are_refused():
    case = Mixture("Gemma4ForCausalLM", "Gemma4TextConfig", GEMMA, "causal")
    model = case.build(exact=False)
    tuned = {key: tensor + 0.01 for key, tensor in model.state_dict().items()}
    with pytest.raises(PortError, match=r"expert \d MLP gate reads other rows than its router"):
        carried(case, model, case.build(seed=1, exact=False), tuned, n=4)


def test_weight_gradients_of_experts_are_autograds():
    case = MIXTURES["qwen2_moe"]
    model, other = case.build(), case.build(seed=1)
    batch = case.samples(16)
    pairs = match_experts(Side(model, case.loss), Side(other, case.loss), _pairs(model, other), lambda: [_both(batch)])
    wanted = Statistics(pairs, Wanted(frozenset({Signal.WEIGHT_GRADIENT})))
    seen = fill(wanted, Side(model, case.loss), Side(other, case.loss), pairs, [_both(batch)])
    parameters = {key: p.requires_grad_() for key, p in other.named_parameters()}
    found = torch.autograd.grad(case.loss(other, batch), list(parameters.values()), materialize_grads=True)
    gradients = dict(zip(parameters, found, strict=True))
    for _, site in pairs:
        mine, right = seen.gradients[site.name].weight, site.weight.of(gradients[site.weight.key])
        assert (torch.zeros(()) if mine is None else mine - right).norm() < 1e-6 * (1 + right.norm())


def _pairs(model: nn.Module, other: nn.Module):
    return pair_sites(*(family_of(each).sites(each) for each in (model, other)))


def _both(batch) -> Batch:
    return Batch(batch, batch)


def test_experts_run_all_at_once_are_watched_one_by_one():
    case = MIXTURES["mixtral"]
    one, other = (case.build(seed=seed, exact=False) for seed in (0, 1))
    batch, tuned = case.samples(8), gradient_step(one, case.loss, case.samples(8), step=0.1)
    deltas = []
    for kind in ("eager", "grouped_mm", "batched_mm"):
        for model in (one, other):
            model.config._experts_implementation = kind
        batches = [_both(tuple(x[part] for x in batch)) for part in (slice(0, 3), slice(3, 8))]
        ported = port(tuned=tuned, base=one, target=other, calibration=batches, loss=case.loss, method=BiCo(rtol=1e-3))
        deltas.append(dict(ported.delta))
        assert {one.config._experts_implementation, other.config._experts_implementation} == {kind}
    assert max(distance(each, deltas[0]) for each in deltas) < 1e-4


def test_an_expert_that_no_sample_reaches_is_named_and_its_change_stays():
    case = MIXTURES["qwen3_moe"]
    many = {"num_experts": 16, "num_local_experts": 16}
    model = case.build(**many)
    tuned = {key: tensor + 0.01 for key, tensor in model.state_dict().items()}
    with noted() as lines:
        ported = carried(case, model, twin(model), tuned, n=1)
    assert len(lines) == 1 and "the samples reach too few experts: block 0 expert" in lines[0]
    named = [moved for moved in ported.moved if f"{moved.target} " in lines[0].replace(",", " ,")]
    assert not any(moved.kept for moved in named)
    assert any(moved.kept == 0 for moved in ported.moved) and any(moved.kept > 0.1 for moved in ported.moved)


@pytest.mark.parametrize("n", [1, 2])
def test_a_method_about_the_mean_serves_experts_that_few_or_no_rows_reach(n):
    """Also of one row, which is its own mean."""
    case = MIXTURES["qwen3_moe"]
    model = case.build(num_experts=16, num_local_experts=16)
    tuned = {key: tensor + 0.01 for key, tensor in model.state_dict().items()}
    ported = carried(case, model, twin(model), tuned, n=n, method=Weighted())
    assert any(moved.kept == 0 for moved in ported.moved) and any(moved.kept > 0.1 for moved in ported.moved)


def test_other_numbers_of_experts_and_dense_blocks_are_refused_by_name():
    case = MIXTURES["mixtral"]
    few, more, dense = case.build(), case.build(num_experts=6), CASES["llama"].build()
    for base, target, said in (
        (few, more, "block 0 of the target has 6 experts, its partner 4 experts"),
        (dense, few, "block 0 of the target has 4 experts, its partner one MLP"),
        (few, dense, "block 1 of the target has one MLP, its partner 4 experts"),
    ):
        with pytest.raises(PortError, match=f"matched one to one.*{said}"):
            carried(case, base, target, base.state_dict())


@pytest.mark.parametrize("method", [Response(), GradFix(), FewShot(steps=1)], ids=lambda method: method.name)
def test_methods_serve_experts_or_say_why_not(method):
    case = MIXTURES["mixtral"]
    model, other = case.build(), case.build(seed=1)
    tuned = gradient_step(model, case.loss, case.samples(8), step=0.1)
    if method.name == "response":
        with pytest.raises(PortError, match="response follows every row through every layer, and experts see some"):
            carried(case, model, other, tuned, 8, method)
    else:
        assert any(tensor.any() for tensor in carried(case, model, other, tuned, 8, method).delta.values())


def test_mixtures_of_one_table_pair_and_experts_stored_otherwise_are_refused():
    mixtral, qwen = MIXTURES["mixtral"].build(), MIXTURES["qwen3_moe"].build()
    assert sum(pair.target.role == ROUTER for pair in _pairs(mixtral, qwen)) == 2
    shape = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8}
    config = transformers.NllbMoeConfig(
        **shape,
        vocab_size=40,
        num_experts=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_sparse_step=2,
        decoder_sparse_step=2,
    )
    with pytest.raises(PortError, match=r"\(nllb-moe\) is of no known family.*experts \(.*stored in a way that is not"):
        family_of(transformers.NllbMoeForConditionalGeneration(config))


@pytest.mark.parametrize("name", ALL)
def test_what_is_stored_apart_is_read_as_the_live_model_has_it(name, tmp_path):
    model = ALL[name].build(exact=False)
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    read = Named(stored, Transformers().names(model, stored))
    state = {key: tensor for key, tensor in model.state_dict().items() if key in read}
    assert {key for key, _ in model.named_parameters()} <= read.keys() and read.used == stored.keys()
    assert all(torch.equal(read[key], tensor) for key, tensor in state.items())


def test_an_expert_that_is_not_all_there_is_refused_by_name(tmp_path):
    model = ALL["mixtral"].build(exact=False)
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    gone = next(key for key in stored if re.search(r"experts\.1\.w3", key))
    with pytest.raises(PortError, match=r"the weights lack parts of .*gate_up_proj: those of the experts 1;"):
        Transformers().names(model, [key for key in stored if key != gone])


def test_a_slice_of_a_stack_is_read_and_written_where_it_lies():
    stack = torch.arange(2 * 4 * 3.0).reshape(2, 4, 3)
    between = Slice("x", (1, 2), transposed=True, every=None, at=1)
    assert torch.equal(between.of(stack), stack[1].T[1:2])
    ordered = Slice("x", order=(1, 0))
    assert torch.equal(ordered.of(stack[:, 0]), stack[[1, 0], 0])
    assert torch.equal(ordered.outputs(stack[0, :, :2]), stack[0][:, [1, 0]])
    for where, tensor in ((between, stack), (replace(between, rows=None), stack), (ordered, stack[:, 0].clone())):
        made = torch.zeros_like(tensor)
        where.put(made, where.of(tensor))
        assert torch.equal(where.of(made), where.of(tensor)) and (made == 0).sum() >= (tensor == 0).sum()


def test_a_match_is_found_by_what_routers_send_and_not_by_their_numbers():
    case = MIXTURES["mixtral"]
    model = case.build()
    other = twin(model)
    sides = [Side(each, case.loss) for each in (model, other)]
    pairs = match_experts(*sides, _pairs(model, other), lambda: [_both(case.samples(32))])
    stack, theirs = (each.state_dict()["model.layers.1.mlp.experts.down_proj"] for each in (model, other))
    norms = stack.flatten(1).norm(dim=1), theirs.flatten(1).norm(dim=1)  # which neither turn nor permutation changes
    matched = [(a.weight.at, b.weight.at) for a, b in pairs if b.depth == 1 and b.role.endswith("MLP down")]
    assert len(matched) == EXPERTS and any(a != b for a, b in matched)
    assert all(torch.isclose(norms[0][a], norms[1][b]) for a, b in matched)
    assert GROUPED["num_hidden_layers"] == len([pair for pair in pairs if pair.target.weight.order])
