"""Layers behind a model's features, which no gradient of scores without labels reaches."""

import copy

import pytest
import torch
from support.family_twins import CASES, gradient_step, twin
from support.word_heads import WORDS_HIDDEN

from hf_bico import BiCo, port
from hf_bico.core.collect import Batch


def scores(model, batch):
    """Of the features alone, the same in every order of them."""
    return torch.stack([model.bert(input_ids=batch[0]).last_hidden_state.pow(k).sum((1, 2)) for k in (2, 3, 4)], dim=-1)


@pytest.mark.parametrize(
    ("case", "layer", "family"),
    [
        (CASES["bert"], "bert.pooler.dense", None),
        (CASES["bert"], "bert.pooler.dense", "generic"),
        (WORDS_HIDDEN["bert"], "cls.predictions.transform.dense", None),
    ],
    ids=["pooler", "traced", "words"],
)
def test_they_move_by_their_outputs(case, layer, family):
    """Between twins the port is the fine-tune, whose top and one layer of the blocks are trained."""
    model, batch = case.build(), case.samples(64)
    step, state = gradient_step(model, case.loss, batch), model.state_dict()
    keys = [f"{layer}.weight", f"{layer}.bias"]
    loss = case.loss(model, batch)
    steps = torch.autograd.grad(loss, [model.get_parameter(key) for key in keys])
    tuned = state | {key: state[key] - 1e-2 * one for key, one in zip(keys, steps, strict=True)}
    first = "bert.encoder.layer.0.output.dense.weight"
    tuned[first] = step[first]
    if "classifier.weight" in tuned:
        tuned["classifier.weight"] = tuned["classifier.weight"] + 0.1
    words = {"calibration": [Batch(batch, batch)], "loss": case.loss, "scores": (scores, scores), "family": family}
    ported = port(tuned=tuned, base=model, target=twin(model), method=BiCo(label_free=4, rtol=1e-9), **words)
    fine_tune = copy.deepcopy(model)
    fine_tune.load_state_dict(tuned)
    with torch.no_grad():
        before, wanted, got = (case.logits(each, case.samples(4)) for each in (model, fine_tune, ported.apply_()))
    assert (got - wanted).norm() < 1e-4 * (wanted - before).norm()
