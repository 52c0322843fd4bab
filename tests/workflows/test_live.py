"""Ports inside a training script: its own batches, the models' own loss, the classifier, what is written."""

import copy

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file
from support.family_twins import CASES, CLASSES, gradient_step, turned, twin
from support.live import ASKED, EXACT, model_of, named_batch, own_loss, random_sites
from support.repos import batch, processor_of, write_family
from support.twins import Samples, distance, random_fine_tune, tiny_clip
from torch import nn
from torch.utils.data import DataLoader

from hf_bico import BiCo, FewShot, PortError, class_loss, port
from hf_bico.families import family_of
from hf_bico.families.live_heads import live_head
from hf_bico.io.hub import Hub
from hf_bico.tasks.batches import BatchFormat, pad_right
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.live import state_of
from hf_bico.workflows.port import run


def alone(whole: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """The samples one by one, without padding."""
    out = []
    for row in range(len(whole["labels"])):
        one = {key: part[row : row + 1] for key, part in whole.items()}
        if "attention_mask" in one:
            length, causal = int(one["attention_mask"].sum()), one["labels"].shape == one["input_ids"].shape
            one = {key: part[:, :length] if key != "labels" or causal else part for key, part in one.items()}
        if one["labels"].ndim == 2:
            one["labels"] = one["labels"][:, : int((one["labels"] != -100).sum())]
        out.append(one)
    return out


def left(whole: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same with its padding on the left, as generating models have it."""
    lengths = whole["attention_mask"].sum(1)

    def moved(part):
        return torch.stack([row.roll(len(row) - int(length)) for row, length in zip(part, lengths, strict=True)])

    causal = whole["labels"].shape == whole["input_ids"].shape
    return {key: moved(part) if key != "labels" or causal else part for key, part in whole.items()}


@pytest.mark.parametrize("name", ASKED)
def test_a_trainers_batches_give_the_fine_tune_back(name):
    """The loss that comes with the model; padding of no weight; the target is the base's twin."""
    model, whole = model_of(name), named_batch(name, 32)
    tuned = gradient_step(model, lambda model, batch: own_loss(name, model, batch), whole)
    ported = port(tuned=tuned, base=model, target=twin(model), calibration=[whole], method=EXACT)
    expected = turned(model, {key: tuned[key] - tensor for key, tensor in model.state_dict().items()})
    assert ported.head == {}
    assert distance(ported.delta, {key: expected[key] for key in ported.delta}) < 1e-4  # some losses are in float32
    assert ported.report["calibration"]["n"] == 32


@pytest.mark.parametrize("name", [name for name in ASKED if CASES[name].kind != "image"])
def test_batches_and_padding_do_not_matter(name):
    model, other, whole = model_of(name), model_of(name, seed=1), named_batch(name)
    tuned = gradient_step(model, lambda model, batch: own_loss(name, model, batch), whole)

    def delta(calibration):
        return port(tuned=tuned, base=model, target=other, calibration=calibration, method=EXACT).delta

    expected = delta(alone(whole))
    halves = [{key: part[rows] for key, part in whole.items()} for rows in (slice(0, 5), slice(5, None))]
    assert distance(delta([whole]), expected) < 1e-5
    assert distance(delta(halves), expected) < 1e-5
    assert distance(delta([left(whole)]), expected) < 1e-5
    as_text = [{key: part for key, part in whole.items() if key != "attention_mask"}]
    assert distance(delta(as_text), expected) > 1e-3  # pads as if they were text


def test_a_causal_models_labels_are_its_ids_unless_given():
    model, other, whole = model_of("llama"), model_of("llama", seed=1), named_batch("llama")
    tuned = random_sites(model)
    bare = {key: part for key, part in whole.items() if key != "labels"}
    job = {"tuned": tuned, "base": model, "target": other, "method": EXACT}
    assert distance(port(**job, calibration=[bare]).delta, port(**job, calibration=[whole]).delta) < 1e-12


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_live_batches_give_what_the_pipeline_gives(name, tmp_path):
    """The classifier included, from bases that have none: a live base and target have one at random."""
    write_family(tmp_path, name)
    kind, cls = CASES[name].kind, getattr(transformers, CASES[name].cls)
    run(
        PortConfig(
            *(str(tmp_path / part) for part in ("ft", "plus", "task")),
            base=str(tmp_path / "base"),
            n=66,
            method="bico",  # auto's halves go by the order of the samples
            output=tmp_path / "out",
            allow_regression=True,  # there is nothing to learn in these labels
        ),
        Hub(),
    )
    tuned, base, target = (cls.from_pretrained(tmp_path / part, num_labels=CLASSES) for part in ("ft", "base", "plus"))
    inputs, labels = batch(kind, processor_of(kind))
    data = [{key: part[row] for key, part in inputs.items()} | {"labels": labels[row]} for row in range(len(labels))]
    ported = port(tuned=tuned, base=base, target=target, calibration=DataLoader(data, batch_size=7), method=BiCo())
    assert bool(ported.head) == (name == "bert")
    written = load_file(tmp_path / "out" / "model.safetensors")
    state = target.state_dict() | ported.tensors()
    before = target.state_dict()
    assert state.keys() >= written.keys()
    ours, theirs = ({key: side[key] - before[key] for key in written} for side in (state, written))
    assert distance(ours, theirs) < 1e-3
    ported.apply_()
    with torch.no_grad():
        theirs = cls.from_pretrained(tmp_path / "out")(**inputs).logits
        assert torch.allclose(target(**inputs).logits, theirs, atol=1e-3)


@pytest.mark.parametrize("name", ["bert", "roberta", "vit"])
def test_the_classifier_comes_along(name):
    """A twin whose own classifier is random gets the fine-tune's function, at any start of the base's."""
    model, whole = model_of(name), named_batch(name, 64)
    tuned = copy.deepcopy(model)
    tuned.load_state_dict(gradient_step(model, lambda model, batch: own_loss(name, model, batch), whole))
    other = twin(model)
    for each, seed in ((model, 7), (other, 8)):
        reset_head(each, seed)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    ported = port(tuned=tuned, base=model, target=other, calibration=[whole], method=EXACT)
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    ported.apply_()
    inputs = {key: part for key, part in whole.items() if key != "labels"}
    with torch.no_grad():
        theirs, ours = tuned(**inputs).logits, other(**inputs).logits
    assert (theirs - ours).norm() < 2e-3 * theirs.norm()  # a head is carried in float32


def reset_head(model: nn.Module, seed: int) -> None:
    torch.manual_seed(seed)
    inside = f"{model.base_model_prefix}."
    keys = [s.key for site in family_of(model).head_sites(model) for s in site.slices if not s.key.startswith(inside)]
    assert keys
    with torch.no_grad():
        for key in keys:
            model.state_dict()[key].normal_()


def test_the_targets_own_classifier_stays_where_that_is_asked_for():
    model, whole = model_of("bert"), named_batch("bert")
    tuned = {key: tensor + 0.01 for key, tensor in model.state_dict().items()}
    ported = port(tuned=tuned, base=model, target=model_of("bert", seed=1), calibration=[whole], head="own")
    assert ported.head == {}
    assert not [key for key in ported.delta if "classifier" in key]
    assert any(entry.key == "classifier.weight" for entry in ported.account.left)
    with pytest.raises(PortError, match="head='theirs' is not one of transport, own"):
        live_head(tuned, model, model, "theirs")


def test_peft_models_port_as_the_merged_model_does():
    base, whole = CASES["llama"].build(exact=False), named_batch("llama")
    base.config.pad_token_id = 0
    model = peft.get_peft_model(
        copy.deepcopy(base), peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "down_proj"])
    )
    torch.manual_seed(0)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_" in key:
                parameter.normal_(std=0.05)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    target = CASES["llama"].build(seed=1, exact=False)
    target.config.pad_token_id = 0
    job = {"base": base, "target": target, "calibration": [whole]}
    ours = port(tuned=model, **job).delta
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    assert distance(ours, port(tuned=copy.deepcopy(model).merge_and_unload(), **job).delta) < 1e-6
    rough = copy.deepcopy(model).bfloat16()
    name = "model.layers.0.self_attn.q_proj"
    layer = rough.get_base_model().get_submodule(name)
    change = state_of(rough)[f"{name}.weight"] - layer.base_layer.weight
    a, b = (factor["default"].weight.double() for factor in (layer.lora_A, layer.lora_B))
    expected = layer.scaling["default"] * b @ a  # and not what merging into bfloat16 leaves of it
    assert (change - expected).norm() < 1e-3 * expected.norm()
    with pytest.raises(PortError, match="PEFT's layers"):
        port(tuned=model, base=model.get_base_model(), target=target, calibration=[whole])


@pytest.mark.parametrize("fails", [False, True])
def test_models_come_out_as_they_went_in(fails):
    model, other, whole = model_of("bert"), model_of("bert", seed=1).bfloat16(), named_batch("bert")
    tuned = {key: tensor + 0.01 for key, tensor in model.state_dict().items()}
    model.train()
    model.bert.embeddings.eval()
    model.bert.embeddings.requires_grad_(False)
    own_loss("bert", model, whole).backward()
    gradients = {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}
    kept = [
        (
            each,
            {key: t.clone() for key, t in each.state_dict().items()},
            [m.training for m in each.modules()],
            [p.requires_grad for p in each.parameters()],
        )
        for each in (model, other)
    ]
    bad = whole | {"labels": whole["labels"] + CLASSES}
    with torch.no_grad():  # as in a callback's evaluation
        if fails:
            with pytest.raises(PortError, match="has 11 classes"):
                port(tuned=tuned, base=model, target=other, calibration=[whole, bad])
        else:
            port(tuned=tuned, base=model, target=other, calibration=[whole])
    for each, state, training, required in kept:
        assert all(torch.equal(state[key], tensor) for key, tensor in each.state_dict().items())
        assert training == [m.training for m in each.modules()]
        assert required == [p.requires_grad for p in each.parameters()]
    assert all(torch.equal(gradients[key], p.grad) for key, p in model.named_parameters() if p.grad is not None)


def test_images_are_given_in_each_models_dtype():
    clip, rough, samples = tiny_clip(), tiny_clip(seed=1).bfloat16(), Samples.make(8)
    heads = samples.head, samples.head.bfloat16()
    job = {"tuned": random_fine_tune(clip), "base": clip, "loss": tuple(map(class_loss, heads))}
    pair = samples.images, samples.labels
    ported = port(**job, target=rough, calibration=[pair]).delta
    assert all(tensor.isfinite().all() for tensor in ported.values())
    named = {"pixel_values": samples.images, "labels": samples.labels.double()}
    ours, theirs = (BatchFormat.of(model, moves_padding=False).put(named) for model in (rough, clip))
    assert ours["pixel_values"].dtype == torch.bfloat16
    assert theirs["pixel_values"].dtype == ours["labels"].dtype == torch.float64  # labels are as they were given


def test_a_decoders_own_text_is_not_moved_with_its_encoders():
    """Also where both happen to be of one length."""
    viewer = BatchFormat.of(model_of("t5"), moves_padding=True)
    batch = {
        "input_ids": torch.tensor([[0, 5, 2]]),
        "attention_mask": torch.tensor([[0, 1, 1]]),
        "labels": torch.tensor([[7, 2, -100]]),
        "decoder_attention_mask": torch.tensor([[1, 1, 0]]),
    }
    moved = pad_right(batch, viewer)
    assert moved["input_ids"].tolist() == [[5, 2, 0]]
    assert moved["attention_mask"].tolist() == [[1, 1, 0]]
    assert all(torch.equal(moved[key], batch[key]) for key in ("labels", "decoder_attention_mask"))
    assert pad_right(batch, viewer._replace(moves_padding=False)) is batch


def test_texts_without_views_are_learnt_from_as_they_are():
    """What is trained sees other views of the samples where they have some; a script's own texts have none."""
    model, whole = model_of("bert"), named_batch("bert", 16)
    tuned, target = random_sites(model), model_of("bert", seed=1)
    plain, seen = (
        port(
            tuned=tuned,
            base=model,
            target=target,
            calibration=[whole],
            method=FewShot(steps=2, rate=1e-4, views=views),
        )
        for views in (False, True)
    )
    assert distance(plain.delta, seen.delta) == 0
    with pytest.raises(PortError, match="no other views"):
        port(tuned=tuned, base=model, target=target, calibration=[whole], method=BiCo(views=1))
