"""Convolutional networks: permuted twins give a fine-tune of everything back."""

import copy

import pytest
import torch
from support.conv_twins import NETS, SIZE, loss, net, pictures, twin

from hf_bico import Batch, BiCo, port
from hf_bico.families import family_of
from hf_bico.families.traced import Traced

EXACT = BiCo(rtol=1e-11)


@pytest.mark.parametrize("name", NETS)
def test_a_fine_tune_comes_back_between_permuted_twins(name):
    model, batch = net(name), pictures(64)
    other, family = twin(name, model), family_of(model)
    top, tuned = family.on_top(model), model.state_dict()
    own = {key: p for key, p in model.named_parameters() if key not in top}
    for (key, p), step in zip(own.items(), torch.autograd.grad(loss(model, batch), list(own.values())), strict=True):
        tuned[key] = p.detach() - 1e-3 * step
    ported = port(
        tuned=tuned, base=model, target=other, calibration=[Batch(batch, batch)], loss=loss, method=EXACT, head="own"
    )
    assert not ported.account.left
    fine_tune = copy.deepcopy(model)
    fine_tune.load_state_dict(tuned)
    images = pictures(4)[0]
    with torch.no_grad():
        same, before, wanted, got = (
            each(pixel_values=images).logits for each in (copy.deepcopy(other), model, fine_tune, ported.apply_())
        )
    assert torch.allclose(same, before)
    assert (got - wanted).norm() < 1e-6 * (wanted - before).norm()


def test_what_a_batch_norm_counts_stays_and_is_told():
    model = net("resnet-basic")
    tuned = {key: tensor + 0.1 if tensor.is_floating_point() else tensor for key, tensor in model.state_dict().items()}
    batch = pictures(8)
    ported = port(tuned=tuned, base=model, target=net("resnet-basic", 1), calibration=[batch], loss=loss, method=EXACT)
    told = {left.key.rpartition(".")[2]: left.reason for left in ported.account.left}
    assert told["running_mean"] == told["running_var"] == "a batch norm's running statistics are the target's own"


def test_between_widths_and_sizes_every_convolution_has_a_map():
    model = net("resnet")
    other = net("resnet", 1, embedding_size=12, hidden_sizes=[24, 40])
    tuned = {key: tensor + 0.01 * tensor.abs() for key, tensor in model.state_dict().items()}
    both = [Batch(pictures(8, SIZE), pictures(8, 48))]
    ported = port(tuned=tuned, base=model, target=other, calibration=both, loss=loss, method=BiCo())
    assert len(ported.moved) == sum("convolution" in key for key in model.state_dict()) - 1  # the stem rides


def test_roles_are_confirmed_through_batch_norms_and_depthwise_convolutions():
    roles = {name: Traced().reading(net(name)) for name in ("resnet-basic", "mobilenet", "convnext")}
    assert all(reading.kept and not reading.refuted for reading in roles.values())
