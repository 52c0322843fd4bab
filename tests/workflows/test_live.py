"""Ports inside a training script: its own batches, the models' own loss, the classifier, what is written."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import peft
import pytest
import torch
import transformers
from huggingface_hub import HfApi, ModelCard
from safetensors.torch import load_file
from support.family_twins import CASES, CLASSES, END, gradient_step, turned, twin
from support.repos import NAMES, batch, case_of, loss, processor_of, tokenizer_of, write_family
from support.twins import Samples, distance, random_fine_tune, tiny_clip
from torch import nn
from torch.utils.data import DataLoader

import hf_bico
from hf_bico import Batch, BiCo, FewShot, Naive, PortError, class_loss, port
from hf_bico.core.pairing import by_path
from hf_bico.families import family_of
from hf_bico.families.live_heads import live_head
from hf_bico.io.hub import Hub
from hf_bico.tasks.batches import BatchFormat, pad_right
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.live import job_of, state_of
from hf_bico.workflows.port import run

EXACT = BiCo(rtol=1e-11)
ASKED = (
    "vit",
    "bert",
    "roberta",
    "distilbert",
    "modernbert",
    "gpt2",
    "llama",
    "llama-classifier",
    "qwen2",
    "t5",
    "t5-classifier",
    "timm",
)
"""Shapes of every kind of loss that comes with a model."""


def named_batch(name: str, n: int = 16, *, seed: int = 0) -> dict[str, torch.Tensor]:
    """A dict as a Trainer's DataLoader gives it, of samples of several lengths, padded on the right."""
    case = CASES[name]
    inputs, labels = case.samples(n, seed=seed)
    if case.kind == "image":
        return {"pixel_values": inputs, "labels": labels}
    mask = torch.ones_like(inputs)
    for row in range(1, n, 2):
        short = 3 + row % 3
        inputs[row, short - 1 :], mask[row, short:] = 0, 0
        inputs[row, short - 1] = END
    if case.kind == "causal":
        labels = inputs.masked_fill(mask == 0, -100)
    if case.kind == "seq2seq":
        labels = labels.clone()
        labels[::3, 2:] = -100
    return {"input_ids": inputs, "attention_mask": mask, "labels": labels}


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


def model_of(name: str, **options) -> nn.Module:
    model = CASES[name].build(**options)
    model.config.pad_token_id = 0
    return model


def own_loss(name: str, model: nn.Module, whole: dict[str, torch.Tensor]) -> torch.Tensor:
    """transformers' own loss, as a sum."""
    labels = whole["labels"]
    count = (labels != -100).sum() if labels.ndim == 2 else len(labels)
    if CASES[name].kind == "causal":
        count = (labels[:, 1:] != -100).sum()
    return model(**whole).loss.double() * count


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


def random_sites(model: nn.Module, scale: float = 0.02) -> dict[str, torch.Tensor]:
    keys = {s.key for site in family_of(model).sites(model) for s in site.slices}
    generator = torch.Generator().manual_seed(3)
    return {
        key: tensor + scale * torch.randn(tensor.shape, generator=generator).to(tensor)
        if key in keys
        else tensor.clone()
        for key, tensor in model.state_dict().items()
    }


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
            output=tmp_path / "out",
        ),
        Hub(),
    )
    tuned, base, target = (cls.from_pretrained(tmp_path / part, num_labels=CLASSES) for part in ("ft", "base", "plus"))
    inputs, labels = batch(kind, processor_of(kind))
    data = [{key: part[row] for key, part in inputs.items()} | {"labels": labels[row]} for row in range(len(labels))]
    ported = port(tuned=tuned, base=base, target=target, calibration=DataLoader(data, batch_size=7))
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


class Counted(torch.utils.data.IterableDataset):
    """Batches that can be iterated again, and how often they were."""

    def __init__(self, *passes):
        self.passes, self.count = passes, 0

    def __iter__(self):
        self.count += 1
        return iter(self.passes[min(self.count, len(self.passes)) - 1])


def test_iterables_are_iterated_again_and_iterators_listed():
    clip, samples = tiny_clip(), Samples.make(12)
    first, second = samples.batches(6)
    tuned, job = (
        random_fine_tune(clip),
        {"base": clip, "target": tiny_clip(seed=1), "loss": samples.loss, "method": FewShot(steps=3)},
    )
    again = Counted([first, second])
    delta = port(tuned=tuned, **job, calibration=again).delta
    assert again.count == 3
    assert distance(port(tuned=tuned, **job, calibration=iter([first, second])).delta, delta) == 0
    for other in ([second, first], [first]):
        with pytest.raises(PortError, match="not the same when they are iterated again"):
            port(tuned=tuned, **job, calibration=Counted([first, second], other))


def test_a_pair_is_one_batch_for_both_unless_it_says_so():
    clip, other, samples = tiny_clip(), tiny_clip(seed=1), Samples.make(8)
    job = {"tuned": random_fine_tune(clip), "base": clip, "target": other, "loss": class_loss(samples.head)}
    pair = samples.images, samples.labels
    ours = port(**job, calibration=[pair])
    assert distance(ours.delta, port(**job, calibration=[Batch(pair, pair)]).delta) == 0
    assert ours.report["calibration"]["n"] == 8
    with pytest.raises(PortError, match=r"say hf_bico\.Batch"):
        port(**job, calibration=[(pair, pair)])


def test_mistakes_are_one_line():
    clip, samples = tiny_clip(), Samples.make(4)
    bert, whole = model_of("bert"), named_batch("bert")
    tuned = {key: tensor + 0.01 for key, tensor in bert.state_dict().items()}
    job = {"tuned": tuned, "base": bert, "target": model_of("bert", seed=1)}

    def refused(words: str, **changes):
        with pytest.raises(PortError, match=words) as refusal:
            port(**job | {"calibration": [whole]} | changes)
        assert "\n" not in str(refusal.value)

    bare = {key: part for key, part in whole.items() if key != "labels"}
    refused("no labels, which a BertForSequenceClassification's loss is taken of", calibration=[bare])
    refused("takes batches by name", calibration=[whole["input_ids"]])
    refused("one class a sample", calibration=[whole | {"labels": whole["labels"].double()}])
    refused("no calibration samples", calibration=[])
    longer = {key: torch.cat([part, part[:, -1:]], 1) if part.ndim == 2 else part for key, part in whole.items()}
    refused(r"not the same tokens: say which rows meet, hf_bico\.Batch", calibration=[Batch(whole, longer)])
    few = CASES["bert"].skeleton()
    few.classifier, few.num_labels = nn.Linear(24, 3), 3
    refused(
        "has 11 classes and the target's 3: open the BertForSequenceClassification with num_labels=11",
        target=few.double(),
    )
    refused(
        r"loss=class_loss\(head\)",
        tuned=random_fine_tune(clip),
        base=clip,
        target=tiny_clip(seed=1),
        calibration=[(samples.images, samples.labels)],
    )
    both = CASES["clip"].build()
    refused(
        r"a CLIPModel compares .* loss=class_loss\(head\)",
        tuned=random_sites(both),
        base=both,
        target=CASES["clip"].build(seed=1),
    )
    body = transformers.BertModel(bert.config).double()
    refused("a BertModel comes with no loss", tuned=random_sites(body), base=body, target=copy.deepcopy(body))


def test_blocks_are_matched_as_they_are_told_to():
    model, whole = model_of("bert"), named_batch("bert")
    ported = port(
        tuned=random_sites(model),
        base=model,
        target=model_of("bert", seed=1),
        calibration=[whole],
        matching=by_path({"": (1, None)}),
    )
    assert [(row["target"], row["source"]) for row in ported.report["layers"]] == [(0, 1)]
    assert {entry.reason for entry in ported.account.left} == {
        f"no block of the target takes block 0 {role}"
        for role in ("q", "k", "v", "attention output", "MLP up", "MLP down")
    }


def test_base_and_target_are_on_one_device():
    model, whole = model_of("bert"), named_batch("bert")
    with pytest.raises(PortError, match="the base is on cpu and the target on meta"):
        port(tuned=random_sites(model), base=model, target=model_of("bert", seed=1).to("meta"), calibration=[whole])


def test_progress_is_shown_only_where_asked_for(capsys):
    model, whole, seen = model_of("bert"), named_batch("bert"), []
    job = {
        "tuned": {key: t + 0.01 for key, t in model.state_dict().items()},
        "base": model,
        "target": model_of("bert", seed=1),
        "calibration": [whole, whole],
    }

    def track(items, what, total):
        seen.append((what, total))
        return items

    port(**job, track=track)
    assert ("Calibrating", 2) in seen
    assert capsys.readouterr() == ("", "")


@pytest.fixture(scope="module")
def published(hub, tmp_path_factory):
    """A tiny BERT on the Hub as demo/live-plus, and a port onto it that was opened from there."""
    root = tmp_path_factory.mktemp("live")
    write_family(root, "bert")
    api = HfApi()
    for part in ("base", "plus"):
        api.create_repo(f"demo/live-{part}")
        api.upload_folder(folder_path=root / part, repo_id=f"demo/live-{part}")
    cls = transformers.BertForSequenceClassification
    base, target = (cls.from_pretrained(f"demo/live-{part}", num_labels=CLASSES) for part in ("base", "plus"))
    inputs, labels = batch("text", processor_of("text"))
    ported = port(
        tuned=cls.from_pretrained(root / "ft"), base=base, target=target, calibration=[inputs | {"labels": labels}]
    )
    return ported, inputs, base


def logits(model: nn.Module, inputs: dict) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**inputs).logits


def test_saved_is_what_applied_is(published, tmp_path):
    ported, inputs, _ = published
    before = {key: tensor.clone() for key, tensor in ported.target.state_dict().items()}
    ported.save_pretrained(tmp_path / "half", 0.5)
    assert all(torch.equal(before[key], tensor) for key, tensor in ported.target.state_dict().items())
    opened, told = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "half", output_loading_info=True
    )
    assert not any(told.values())
    other = copy.deepcopy(ported.target)
    copied = type(ported)(other, ported.delta, ported.head, ported.moved, ported.account, ported.record)
    assert torch.equal(logits(opened, inputs), logits(copied.apply_(0.5), inputs))
    assert not torch.allclose(logits(opened, inputs), logits(ported.target, inputs))
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "half")
    assert words("a line")["input_ids"] == tokenizer_of("text")("a line")["input_ids"]
    report = json.loads((tmp_path / "half" / "hf_bico.json").read_text())
    assert report["task_vector"].pop("written")["form"] == "model"
    assert report == ported.report | {"alpha": 0.5}
    assert report["lineage"]["base"]["commit"] == HfApi().model_info("demo/live-base").sha
    with pytest.raises(PortError, match="would be added twice"):
        copied.save_pretrained(tmp_path / "twice")
    with pytest.raises(PortError, match="no new or empty folder"):
        ported.save_pretrained(tmp_path / "half")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["half"]


def test_the_card_says_what_is_known(published, tmp_path):
    ported, inputs, _ = published
    card = ModelCard.load(ported.save_pretrained(tmp_path / "plain") / "README.md")
    card.validate()
    sha = HfApi().model_info("demo/live-plus").sha
    assert card.data.base_model == "demo/live-plus"
    assert f"| target | demo/live-plus | {sha} |" in card.text
    assert "No scores were measured" in card.text
    labels = logits(ported.target, inputs).argmax(-1)
    copied = type(ported)(ported.target, ported.delta, ported.head, ported.moved, ported.account, ported.record)
    found = copied.evaluate(lambda model: float((model(**inputs).logits.argmax(-1) == labels).double().mean()))
    without, ours = found.values()
    assert without == 1.0 > ours
    card = ModelCard.load(copied.save_pretrained(tmp_path / "told", scores={"on my set": 0.75}) / "README.md").text
    assert "No scores were measured" not in card
    assert "| accuracy of the new base without the port | 1 |" in card
    assert "| on my set | 0.75 |" in card
    assert "{{" not in card and "{%" not in card


def test_pushed_as_one_commit(published):
    ported, inputs, _ = published
    url = ported.push_to_hub("demo/live-port", 0.5, private=True, commit_message="By hand")
    assert url.startswith(f"{HfApi().endpoint}/demo/live-port/commit/")
    assert HfApi().model_info("demo/live-port").private
    assert HfApi().list_repo_commits("demo/live-port")[0].title == "By hand"
    code, names = ModelCard.load("demo/live-port").text.split("```python\n")[1].split("```")[0], {}
    exec(code, names)
    with torch.no_grad():
        state = ported.target.state_dict() | ported.tensors(0.5)
        expected = torch.func.functional_call(ported.target.eval(), state, (), inputs).logits
    assert torch.equal(logits(names["model"], inputs), expected)
    ported.push_to_hub("demo/live-port")  # an earlier push of the same
    proposed = ported.push_to_hub("demo/live-plus", create_pr=True)
    assert "/discussions/" in proposed
    for repo, words in (("demo/live-base", "not a port of"), ("other/mine", "may not write to")):
        with pytest.raises(PortError, match=words):
            ported.push_to_hub(repo)


@pytest.mark.parametrize("form", ["delta", "lora"])
def test_a_change_alone_is_the_same_model(published, form, tmp_path):
    ported, inputs, _ = published
    exact = {"dtype": "float32"} if form == "delta" else {}
    folder, repo = ported.save_pretrained(tmp_path / form, 0.5, form=form, **exact), f"demo/live-{form}"
    ported.push_to_hub(repo, 0.5, form=form, **exact)
    with torch.no_grad():
        state = ported.target.state_dict() | ported.tensors(0.5)
        expected = torch.func.functional_call(ported.target.eval(), state, (), inputs).logits
    moved = (expected - logits(ported.target, inputs)).norm()
    for model in (
        hf_bico.from_pretrained(folder, device="cpu").model,
        hf_bico.from_pretrained(repo, device="cpu").model,
        transformers.AutoModelForSequenceClassification.from_pretrained(repo, num_labels=CLASSES),
    ):
        assert (logits(model, inputs) - expected).norm() < 1e-4 * moved
    card = ModelCard.load(repo)
    assert (card.data.base_model, card.data.base_model_relation) == ("demo/live-plus", "adapter")
    assert f'hf_bico.from_pretrained("{repo}")' in card.text and "{{" not in card.text


def test_a_change_is_of_what_lies_on_the_hub(published, tmp_path):
    ported, _, _ = published
    other = copy.deepcopy(ported.target)
    copied = type(ported)(other, ported.delta, ported.head, ported.moved, ported.account, ported.record)
    key = next(iter(ported.delta))
    with torch.no_grad():
        other.state_dict()[key].mul_(1.5)
    with pytest.raises(PortError, match=f"{key} is not what demo/live-plus"):
        copied.save_pretrained(tmp_path / "edited", form="delta")
    other.config._name_or_path = ""
    with pytest.raises(PortError, match="base="):
        copied.save_pretrained(tmp_path / "nameless", form="delta")
    with pytest.raises(PortError, match="model, delta, lora"):
        copied.save_pretrained(tmp_path / "odd", form="soup")
    assert not list(tmp_path.iterdir())


def test_a_delta_brings_the_targets_own_classifier_where_its_repo_has_none(published, tmp_path):
    ported, inputs, _ = published
    own = type(ported)(ported.target, ported.delta, {}, ported.moved, ported.account, ported.record)
    folder = own.save_pretrained(tmp_path / "own", form="delta", dtype="float32")
    with torch.no_grad():
        state = own.target.state_dict() | own.tensors()
        expected = torch.func.functional_call(own.target.eval(), state, (), inputs).logits
    opened = hf_bico.from_pretrained(folder, device="cpu").model
    assert (logits(opened, inputs) - expected).norm() < 1e-4 * expected.norm()


@pytest.mark.parametrize("form", ["model", "delta"])
def test_class_names_and_scores_are_of_what_is_written(published, form, tmp_path):
    ported, _, _ = published
    assert ported.record.head.labels == NAMES
    names = tuple(f"other {name}" for name in NAMES)
    record = replace(ported.record, head=replace(ported.record.head, labels=names))
    copied = type(ported)(ported.target, ported.delta, ported.head, ported.moved, ported.account, record)
    copied.evaluate(lambda model: 0.25)
    folder = copied.save_pretrained(tmp_path / form, 0.5, form=form)
    opened = (
        hf_bico.from_pretrained(folder, device="cpu").model
        if form == "delta"
        else transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    )
    assert tuple(opened.config.id2label.values()) == names
    assert tuple(ported.target.config.id2label.values()) == NAMES  # it is left as it was
    card = (folder / "README.md").read_text()
    assert "without the port | 0.25" in card and "α = 1)" not in card


def test_a_delta_of_a_target_that_is_no_longer_its_repos_is_refused(published, tmp_path):
    ported, _, _ = published
    other = copy.deepcopy(ported.target)
    with torch.no_grad():
        other.bert.embeddings.word_embeddings.weight[3] += 1.0
    copied = type(ported)(other, ported.delta, ported.head, ported.moved, ported.account, ported.record)
    with pytest.raises(PortError, match=r"word_embeddings.weight is not what demo/live-plus"):
        copied.save_pretrained(tmp_path / "moved", form="delta")


def test_another_fine_tune_in_memory_does_not_take_its_repo(published):
    ported, _, _ = published
    ported.push_to_hub("demo/live-mine")
    record = replace(ported.record, task_vector=replace(ported.record.task_vector, relative_norm=0.123))
    other = replace(ported, record=record)
    with pytest.raises(PortError, match="not a port of"):
        other.push_to_hub("demo/live-mine")


def test_other_modules_are_saved_as_a_state_dict(tmp_path):
    clip, samples = tiny_clip(), Samples.make(8)
    ported = port(
        tuned=random_fine_tune(clip),
        base=clip,
        target=tiny_clip(seed=1),
        loss=samples.loss,
        calibration=[(samples.images, samples.labels)],
        method=Naive(),
    )
    folder = ported.save_pretrained(str(tmp_path / "clip"))
    assert isinstance(folder, Path)
    saved = load_file(folder / "model.safetensors")
    applied = ported.apply_().state_dict()
    assert saved.keys() == applied.keys()
    assert all(torch.equal(saved[key], applied[key]) for key in saved)
    assert "the state dict of a CLIP" in (folder / "README.md").read_text()


def test_live_jobs_need_no_loss_of_their_own_either():
    model = model_of("bert")
    job = job_of(tuned=random_sites(model), base=model, target=model_of("bert", seed=1), calibration=[])
    whole = named_batch("bert")
    assert torch.allclose(job.base.loss(model, whole), own_loss("bert", model, whole))


def test_a_familys_loss_is_that_of_the_repos(tmp_path):
    """One definition: the same sums as the ports of repos take."""
    for name in ("bert", "llama", "t5"):
        kind = CASES[name].kind
        processor = processor_of(kind)
        model = case_of(name, processor.vocab_size).build()
        inputs, labels = batch(kind, processor)
        job = job_of(tuned=random_sites(model), base=model, target=model, calibration=[])
        assert torch.allclose(job.base.loss(model, inputs | {"labels": labels}), loss(kind)(model, (inputs, labels)))
