"""What moves beside the linear maps of models of no table: norms' gains, biases, positions, as a trace shows them."""

import copy

import pytest
import torch
import torch.nn.functional as F
import transformers
from support.family_twins import END, TEXT, VISION, WORDS, Case, plain, twin

from hf_bico.core.gains import Folded
from hf_bico.families import family_of
from hf_bico.families.traced.reading import read
from tests.families.test_beside import carried, whole_step

SIDES = {
    f"{side}_{what}": size
    for side in ("encoder", "decoder")
    for what, size in (("layers", 2), ("attention_heads", 3), ("ffn_dim", 20))
}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": END}
BART = (
    SIDES | SPECIAL | {"vocab_size": WORDS, "d_model": 24, "max_position_embeddings": 32, "decoder_start_token_id": 1}
)
GROUPED = TEXT | {"num_key_value_heads": 3}
BEIT = VISION | {"layer_scale_init_value": 0.5, "use_relative_position_bias": True}
CASES = {
    "bart": Case("BartForConditionalGeneration", "BartConfig", BART, "seq2seq"),
    "mbart": Case("MBartForConditionalGeneration", "MBartConfig", BART, "seq2seq"),
    "gpt_neox": Case("GPTNeoXForCausalLM", "GPTNeoXConfig", TEXT, "causal"),
    "phi": Case("PhiForSequenceClassification", "PhiConfig", TEXT, "text"),
    "nemotron": Case("NemotronForCausalLM", "NemotronConfig", GROUPED, "causal"),
    "glm4": Case("Glm4ForCausalLM", "Glm4Config", GROUPED | {"head_dim": 8}, "causal"),
    "beit": Case("BeitForImageClassification", "BeitConfig", BEIT, "image"),
}
"""Norms after and before the residual stream, side by side, that multiply by 1 + w, and LayerScales."""
OF_THE_STREAM = ("bart",)
"""Whose norms give to the residual stream, so that no layer can tell of their gains."""


@pytest.mark.parametrize("name", CASES)
def test_everything_that_changed_moves_between_permuted_twins(name):
    case = CASES[name]
    model = case.build()
    other, tuned, batch = twin(model), whole_step(case, model), case.samples()
    ported = carried(case, model, other, tuned, batch)
    assert not ported.account.left
    fine_tune = copy.deepcopy(model)
    fine_tune.load_state_dict(tuned)
    with torch.no_grad():
        before, wanted, got = (case.logits(each, case.samples(4)) for each in (model, fine_tune, ported.apply_()))
    assert (got - wanted).norm() < 1e-9 * (wanted - before).norm()


@pytest.mark.parametrize("name", [name for name in CASES if name not in OF_THE_STREAM])
def test_gains_fold_into_the_layers_that_read_them(name):
    case = CASES[name]
    model = plain(case.build())
    gains = family_of(model).gains(model)
    step, base = whole_step(case, model), model.state_dict()
    tuned = base | {gain.key: step[gain.key] for gain in gains}
    folded = Folded(tuned, base, gains)
    assert len(gains) >= 2
    ported = carried(case, model, twin(model, rotate=True), tuned, case.samples(64))
    assert not ported.account.left
    fine_tune, twice = copy.deepcopy(model), copy.deepcopy(model)
    fine_tune.load_state_dict(tuned)
    twice.load_state_dict({key: folded[key] for key in tuned})
    with torch.no_grad():
        before, wanted, *found = (
            case.logits(each, case.samples(4)) for each in (model, fine_tune, twice, ported.apply_())
        )
    assert all((got - wanted).norm() < 1e-6 * (wanted - before).norm() for got in found)


def test_a_gain_that_the_layers_behind_it_cannot_tell_is_not_folded(monkeypatch):
    """It is squared on the way: multiplied there and divided behind it, the model is another one."""
    norm = transformers.models.nemotron.modeling_nemotron.NemotronLayerNorm1P

    def squared(self, x):
        return F.layer_norm(x, self.normalized_shape, (self.weight + 1).square(), self.bias, self.eps)

    assert any(own.before for own in read(CASES["nemotron"].build(exact=False)).beside.values())
    monkeypatch.setattr(norm, "forward", squared)
    assert not any(own.before for own in read(CASES["nemotron"].build(exact=False)).beside.values())
