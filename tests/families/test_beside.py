"""What moves beside the linear maps, between models of every family whose right answer is known."""

import copy

import pytest
import torch
from support.family_twins import CASES, GROUPED, Case, gradient_step, plain, twin
from support.word_heads import WORDS_HIDDEN
from torch import Tensor, nn

from hf_bico import BiCo, port
from hf_bico.core.account import STAYED
from hf_bico.core.collect import Batch
from hf_bico.core.difference import Difference
from hf_bico.core.gains import Folded, Gain, into_head
from hf_bico.core.method import Method
from hf_bico.core.methods import Naive
from hf_bico.core.pairing import pair_sites
from hf_bico.core.riders import parted
from hf_bico.core.types import Slice
from hf_bico.families import family_of
from hf_bico.families.beside import Insides, beside, vocabularies_of
from hf_bico.workflows.ported import Ported

EXACT = BiCo(rtol=1e-11)
"""For float64 models: only what float64 itself loses is cut."""
FINAL = ("vit", "deit", "dinov2", "timm", "gpt2-classifier", "llama-classifier", "modernbert", "t5-classifier")
"""Classifiers whose head is all that reads the norm behind the blocks."""
POST_NORM = ("bert", "roberta", "distilbert", "mpnet")
"""Their norms give to the residual stream too, so that no layer can tell of their gains."""


def whole_step(case: Case, model: nn.Module) -> dict[str, Tensor]:
    """The tensors after a step of gradient descent on everything but heads, logit scales and what is not run."""
    state, parameters = model.state_dict(), dict(model.named_parameters(remove_duplicate=False))
    top = family_of(model).on_top(model)
    loss = case.loss(model, case.samples())
    for key, parameter in parameters.items():
        (gradient,) = torch.autograd.grad(loss, parameter, retain_graph=True, allow_unused=True)
        stays = key in top or key.startswith(("text_model", "text_projection", "logit"))
        if gradient is not None and (case.kind != "contrastive" or not stays) and key not in top:
            state[key] = parameter.detach() - 1e-3 * gradient
    return state


def carried(
    case: Case, model: nn.Module, other: nn.Module, tuned: dict[str, Tensor], batch: tuple, method: Method = EXACT
) -> Ported:
    """The port of a fine-tune whose head stays; heads have laws of their own."""
    return port(
        tuned=tuned,
        base=model,
        target=other,
        calibration=[Batch(batch, batch)],
        loss=case.loss,
        method=method,
        head="own",
    )


@pytest.mark.parametrize(
    "case", [*CASES.values(), *WORDS_HIDDEN.values()], ids=[*CASES, *(f"{n} words" for n in WORDS_HIDDEN)]
)
def test_everything_that_changed_moves_between_permuted_twins(case):
    model = case.build()
    other, tuned, batch = twin(model), whole_step(case, model), case.samples()
    ported = carried(case, model, other, tuned, batch)
    assert not ported.account.left
    fine_tune = copy.deepcopy(model)
    fine_tune.load_state_dict(tuned)
    with torch.no_grad():
        before, wanted, got = (case.logits(each, case.samples(4)) for each in (model, fine_tune, ported.apply_()))
    assert (got - wanted).norm() < 1e-9 * (wanted - before).norm()


@pytest.mark.parametrize("name", [name for name in CASES if name not in POST_NORM])
def test_a_gain_folds_into_the_layers_beside_it(name):
    """The same function, with the base's gains; so it moves between rotated twins, where no gain could as it is."""
    case = CASES[name]
    model = plain(case.build())
    gains = [
        gain for gain in family_of(model).gains(model) if case.kind != "contrastive" or "text_model" not in gain.key
    ]
    step, base = whole_step(case, model), model.state_dict()
    tuned = base | {gain.key: step[gain.key] for gain in gains}
    folded = Folded(tuned, base, gains)
    assert gains and all(torch.allclose(folded[gain.key], base[gain.key]) for gain in gains)
    other, batch = twin(model, rotate=True), case.samples(64)  # more than an MLP has units
    ported = carried(case, model, other, tuned, batch)
    assert not ported.account.left
    fine_tune, twice = copy.deepcopy(model), copy.deepcopy(model)
    fine_tune.load_state_dict(tuned)
    twice.load_state_dict({key: folded[key] for key in tuned})
    with torch.no_grad():
        before, wanted, *found = (
            case.logits(each, case.samples(4)) for each in (model, fine_tune, twice, ported.apply_())
        )
    assert all((got - wanted).norm() < 1e-6 * (wanted - before).norm() for got in found)


@pytest.mark.parametrize("name", FINAL)
def test_a_head_that_is_carried_tells_of_the_norm_before_it(name):
    """Between rotated twins, where no gain moves as it is; class tokens are alike, and determine less of a head."""
    case, generator = CASES[name], torch.Generator().manual_seed(6)
    model = plain(case.build())
    gain, state = family_of(model).final_gain(model), model.state_dict()
    top = {s.key for site in family_of(model).head_sites(model) for s in site.slices}
    for key in filter(None, (gain.key, gain.bias, *top)):
        noise = torch.randn(state[key].shape, generator=generator, dtype=torch.float64)
        state = state | {key: state[key] + (1.0 if key in top else 0.2) * noise}
    under = copy.deepcopy(model)  # the base under the head that it is asked with: the step lies in what the maps see
    under.load_state_dict(state | into_head(state, model.state_dict(), gain))
    moved = {s.key for site in family_of(model).sites(model) for s in site.slices}
    batch = case.samples(96)
    step = gradient_step(under, case.loss, batch)
    tuned = {key: step[key] if key in moved else tensor for key, tensor in state.items()}
    words = {"calibration": [Batch(batch, batch)], "loss": case.loss, "method": EXACT}
    ported = port(tuned=tuned, base=model, target=twin(model, rotate=True), **words)
    assert gain.key not in {entry.key for entry in ported.account.left}
    fine_tune = copy.deepcopy(model)
    fine_tune.load_state_dict(tuned)
    with torch.no_grad():
        before, wanted, got = (case.logits(each, case.samples(4)) for each in (model, fine_tune, ported.apply_()))
    assert (got - wanted).norm() < (5e-3 if case.kind == "image" else 1e-5) * (wanted - before).norm()


@pytest.mark.parametrize("name", ["vit", "timm-pool", "bert", "gpt2", "gemma2", "t5"])
def test_the_naive_copy_to_the_base_itself_is_the_fine_tune(name):
    case = CASES[name]
    model, tuned, batch = case.build(), whole_step(case, case.build()), case.samples(4)
    top = family_of(model).on_top(model)
    ported = carried(case, model, copy.deepcopy(model), tuned, batch, Naive())
    state = ported.apply_().state_dict()
    assert all(torch.allclose(state[key], tuned[key]) for key in tuned if key not in top)


def test_a_bias_of_word_scores_moves_as_it_is():
    """Phi's, which its head has without a layer before it."""
    case = Case("PhiForCausalLM", "PhiConfig", GROUPED, "causal")
    model, tuned, batch = case.build(), whole_step(case, case.build()), case.samples(4)
    ported = carried(case, model, copy.deepcopy(model), tuned, batch, Naive())
    assert torch.allclose(ported.apply_().lm_head.bias, tuned["lm_head.bias"])
    assert not torch.equal(tuned["lm_head.bias"], model.lm_head.bias)


def test_between_unrelated_models_nothing_moves_along():
    """The maps explain too little of the samples; what stays says so."""
    case = CASES["llama"]
    model, tuned, batch = case.build(), whole_step(case, case.build()), case.samples()
    ported = carried(case, model, case.build(seed=1), tuned, batch, BiCo())
    stayed = {entry.key for entry in ported.account.left if entry.reason == STAYED}
    assert {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"} <= stayed
    assert not ported.record.beside and ported.account.moved_share < 1


def test_tokens_meet_by_name():
    """Rows of embeddings go to the rows of the same tokens; those that the target lacks are told as left."""
    case = CASES["bert"]
    model = case.build()
    tokenizers = [Words("[CLS] a b c d", cls_token="[CLS]"), Words("d <s> c a e", cls_token="<s>")]
    ends = [Insides(family_of(model), each) for each in (model, case.build(seed=1))]
    pairs = pair_sites(*(side.family.sites(side.model) for side in ends))
    ride = next(
        ride
        for ride in beside(*ends, pairs, {"tokens"}, vocabularies_of(*tokenizers)).rides
        if ride.base.role == "token embeddings"
    )
    here = torch.arange(5.0)[:, None] + 1  # of [CLS] a b c d
    rows = ride.meet(torch.cat([here, torch.zeros(len(model.get_input_embeddings().weight) - 5, 1)]))
    assert rows[:5, 0].tolist() == [5, 1, 4, 2, 0] and not rows[5:].any()
    assert parted(ride, torch.ones_like(model.get_input_embeddings().weight))[1] == len(rows) - 4


class Words:
    """As much of a tokenizer as a vocabulary is."""

    def __init__(self, words: str, **special: str) -> None:
        self.words = words.split()
        for name, word in special.items():
            setattr(self, name, word)

    def get_vocab(self) -> dict[str, int]:
        return {word: row for row, word in enumerate(self.words)}


def test_a_small_change_of_a_gain_is_no_rounding():
    """In bfloat16, where a gain's step is as small as half a step of a weight."""
    base = {"norm.weight": torch.full((4,), 1.0), "layer.weight": torch.randn(3, 4)}
    base = {key: tensor.bfloat16() for key, tensor in base.items()}
    tuned = base | {"norm.weight": torch.full((4,), 1 - 2.0**-8).bfloat16()}
    gain = Gain("norm.weight", "in", (Slice("layer.weight"),))
    tau = Difference(Folded(tuned, base, [gain]), base, stored=False)
    assert torch.allclose(tau["layer.weight"], -(2.0**-8) * base["layer.weight"].float())
