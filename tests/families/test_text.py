"""T5 encoders: every tensor is accounted for, and ports whose right answer is known come out right."""

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from support.twins import distance

from hf_bico import Batch, BiCo, port
from hf_bico.core.errors import PortError
from hf_bico.core.pairing import pair_sites
from hf_bico.families import family_of
from hf_bico.families.tables.t5 import T5

transformers = pytest.importorskip("transformers")

FAMILY = T5
EXACT = BiCo(rtol=1e-11)
"""For float64 models: only what float64 itself loses is cut."""
WORDS, CLASSES, LENGTH = 80, 24, 9
ACTIVATIONS = ("relu", "gated-gelu")


def tiny_t5(act: str = "relu", *, width: int = 24, heads: int = 3, layers: int = 2, seed: int = 0):
    """A random float64 encoder whose inner width (heads of 4) is not its own."""
    torch.manual_seed(seed)
    config = transformers.T5Config(
        vocab_size=WORDS,
        d_model=width,
        d_kv=4,
        num_heads=heads,
        d_ff=20,
        num_layers=layers,
        feed_forward_proj=act,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=16,
        dropout_rate=0.0,
    )
    model = transformers.T5EncoderModel(config)
    for module in list(model.modules()):
        for name in ("layer_norm", "final_layer_norm"):
            if hasattr(module, name):  # transformers' own takes its mean square in float32
                setattr(module, name, torch.nn.RMSNorm(width, eps=1e-6))
    return model.double().eval()


def tokens(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random ids (n, LENGTH) and labels (n,)."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randint(WORDS, (n, LENGTH), generator=generator), torch.randint(CLASSES, (n,), generator=generator))


def loss_under(head: torch.Tensor):
    def loss(model, batch):
        return F.cross_entropy(model(input_ids=batch[0]).last_hidden_state.mean(1) @ head.T, batch[1], reduction="sum")

    return loss


def head_of(width: int) -> torch.Tensor:
    return torch.randn(CLASSES, width, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def calibration(n: int, size: int) -> list:
    parts = list(zip(*(tensor.split(size) for tensor in tokens(n)), strict=True))
    return [Batch(part, part) for part in parts]


def outputs(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=tokens(16, seed=5)[0]).last_hidden_state


def moving(model) -> list[str]:
    return [site.weight.key for site in FAMILY.sites(model)]


def gradient_step(model, loss, batch, step: float = 1e-3) -> dict[str, torch.Tensor]:
    """The tensors after one step of gradient descent on the sites: a τ inside the samples' span."""
    parameters = {key: p for key, p in model.named_parameters() if key in moving(model)}
    gradients = dict(zip(parameters, torch.autograd.grad(loss(model, batch), list(parameters.values())), strict=True))
    return {
        key: tensor.detach() - step * gradients[key] if key in gradients else tensor.clone()
        for key, tensor in model.state_dict().items()
    }


def random_fine_tune(model, scale: float = 0.05) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        key: tensor + scale * torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        if key in moving(model)
        else tensor.clone()
        for key, tensor in model.state_dict().items()
    }


def twin(model, act: str):
    """The same function with residual coordinates, heads and MLP units in another order, and the order of the first.

    An RMSNorm commutes with a permutation if its gain, random here, is permuted too.
    """
    torch.manual_seed(2)
    width, heads, units = model.config.d_model, model.config.num_heads, model.config.d_ff
    order, state = torch.randperm(width), {key: tensor.clone() for key, tensor in model.state_dict().items()}
    swapped = torch.randperm(heads)  # of every block alike: all of them share the first one's position biases
    rows = torch.arange(heads * 4).unflatten(0, (heads, 4))[swapped].flatten()
    for key, tensor in state.items():
        block = int(key.split(".")[2]) if ".block." in key else 0
        ff = torch.randperm(units, generator=torch.Generator().manual_seed(block))
        if key.endswith("relative_attention_bias.weight"):
            state[key] = tensor[:, swapped]
        elif key.endswith(("q.weight", "k.weight", "v.weight")):
            state[key] = tensor[rows][:, order]
        elif key.endswith("o.weight") and "SelfAttention" in key:
            state[key] = tensor[order][:, rows]
        elif ".wi" in key:
            state[key] = tensor[ff][:, order]
        elif key.endswith("wo.weight"):
            state[key] = tensor[order][:, ff]
        else:  # the token table and the gains
            state[key] = tensor[..., order]
    other = tiny_t5(act)
    other.load_state_dict(state)
    return other, order


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_every_tensor_is_a_site_or_has_a_reason(act):
    model = tiny_t5(act)
    sites = FAMILY.sites(model)
    keys = Counter(site.weight.key for site in sites)
    linear = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert keys == Counter(linear)
    assert all((FAMILY.left_reason(key) is None) == (key in keys) for key in model.state_dict())
    assert len({site.name for site in sites}) == len(sites) == 2 * (6 if act == "relu" else 7)
    for site in sites:
        assert model.state_dict()[site.weight.key].shape == (site.d_out, site.d_in)
        assert site.bias is None


def test_layers_that_read_one_input_share_its_map():
    spaces = Counter(site.space for site in FAMILY.sites(tiny_t5("gated-gelu")))
    assert sorted(spaces.values()) == [1, 1, 1, 1, 2, 2, 3, 3]


def test_knows_encoders_with_and_without_a_decoder():
    config = tiny_t5().config.to_dict() | {"is_encoder_decoder": True, "num_decoder_layers": 1}
    whole = transformers.T5ForConditionalGeneration(transformers.T5Config(**config))
    assert family_of(tiny_t5()) is family_of(whole) is T5
    assert {site.tower for site in T5.sites(whole)} == {"", "decoder"}
    with pytest.raises(PortError, match="no known family"):
        family_of(torch.nn.Linear(2, 2))


def test_gated_and_plain_blocks_do_not_pair():
    with pytest.raises(PortError, match="MLP gate"):
        pair_sites(FAMILY.sites(tiny_t5("gated-gelu")), FAMILY.sites(tiny_t5("relu")))


def test_a_block_of_another_kind_is_refused():
    model = tiny_t5()
    del model.encoder.block[1].layer[1].DenseReluDense
    with pytest.raises(PortError, match="block 1 of T5EncoderModel has no MLP down, MLP up"):
        FAMILY.sites(model)


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_source_is_target(act):
    """Onto its own base, the step that the samples ask for comes back as it is."""
    model, loss = tiny_t5(act), loss_under(head_of(24))
    tuned = gradient_step(model, loss, tokens(120))
    ported = port(tuned=tuned, base=model, target=model, calibration=calibration(120, 40), loss=loss, method=EXACT)
    assert distance(ported.delta, {key: tuned[key] - model.state_dict()[key] for key in moving(model)}) < 1e-6


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_twin_gives_the_fine_tune_back(act):
    """In other coordinates of the same function, any fine-tune gives the outputs it gave in its own."""
    model = tiny_t5(act)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layer_norm" in name:
                parameter.uniform_(0.5, 1.5)
    (other, order), head, tuned = twin(model, act), head_of(24), random_fine_tune(model)
    before = outputs(model)
    assert torch.allclose(outputs(other), before[..., order])
    ported = port(
        tuned=tuned,
        base=model,
        target=other,
        calibration=calibration(150, 50),
        loss=(loss_under(head), loss_under(head[:, order])),
        method=EXACT,
    )
    model.load_state_dict(tuned)
    expected = outputs(model)
    assert (expected - before).norm() > 0.05 * before.norm()
    got = outputs(ported.apply_())
    assert (got - expected[..., order]).norm() < 1e-5 * (expected - before).norm()


def test_ports_to_another_width_and_depth():
    """Narrow to wide and back, with fewer samples than directions; what is left is named."""
    for small, large in (
        (tiny_t5(), tiny_t5(width=32, heads=5, layers=3, seed=4)),
        (tiny_t5(width=32, heads=5, layers=3, seed=4), tiny_t5()),
    ):
        tuned = {key: tensor + 0.01 for key, tensor in small.state_dict().items()}
        losses = tuple(loss_under(head_of(model.config.d_model)) for model in (small, large))
        ported = port(tuned=tuned, base=small, target=large, calibration=calibration(8, 4), loss=losses, method=BiCo())
        assert {*moving(large)} <= ported.delta.keys()
        assert all(change.norm() > 0 for change in ported.delta.values())


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_coordinates_that_may_be_permuted_have_a_giver_and_a_reader(act):
    sites = FAMILY.sites(tiny_t5(act))
    given = {site.hidden_out: site.d_out for site in sites if site.hidden_out}
    assert {site.hidden_in for site in sites if site.hidden_in} <= given.keys()
    assert all(width == given[site.hidden_in] for site in sites if site.hidden_in for width in [site.d_in])
    assert {(h.heads, h.group is None) for h in given} == {(3, False), (1, True)}
    gives = 4 if act == "relu" else 5  # q, k, v and MLP up, with its gate
    assert sum(site.hidden_out is not None for site in sites) == 2 * gives
