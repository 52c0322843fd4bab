"""What a live port writes and pushes is what it is in memory."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from huggingface_hub import HfApi, ModelCard
from safetensors.torch import load_file
from support.family_twins import CLASSES
from support.ports import clip_port
from support.repos import NAMES, batch, processor_of, tokenizer_of, write_family
from torch import nn

import hf_bico
from hf_bico import PortError, port


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
    assert report.pop("opening")["library"] == "transformers"
    assert report == ported.report | {"alpha": 0.5}
    assert report["lineage"]["base"]["commit"] == HfApi().model_info("demo/live-base").sha
    with pytest.raises(PortError, match="would be added twice"):
        copied.save_pretrained(tmp_path / "twice")
    with pytest.raises(PortError, match="not a new or empty folder"):
        ported.save_pretrained(tmp_path / "half")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["half"]


def test_the_card_says_what_is_known(published, tmp_path):
    ported, inputs, _ = published
    card = ModelCard.load(ported.save_pretrained(tmp_path / "plain") / "README.md")
    card.validate()
    sha = HfApi().model_info("demo/live-plus").sha
    assert card.data.base_model == "demo/live-plus"
    assert f"| target | demo/live-plus at `{sha}`" in card.text
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
    assert torch.equal(logits(names["pipe"].model, inputs), expected)
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
    ported = clip_port()
    folder = ported.save_pretrained(str(tmp_path / "clip"))
    assert isinstance(folder, Path)
    saved = load_file(folder / "model.safetensors")
    applied = ported.apply_().state_dict()
    assert saved.keys() == applied.keys()
    assert all(torch.equal(saved[key], applied[key]) for key in saved)
    assert "the state dict of a CLIP" in (folder / "README.md").read_text()
