"""Trainer to Hub: what was trained is ported to new bases as training ends; and a ported model is trained on."""

import logging
from dataclasses import replace
from types import SimpleNamespace

import datasets
import peft
import pytest
import torch
import transformers
from huggingface_hub import HfApi, ModelCard
from safetensors.torch import load_file
from support.family_twins import CASES, CLASSES
from support.repos import NAMES, case_of, rows, tokenizer_of, write_family
from support.twins import distance
from transformers import Trainer, TrainingArguments

from hf_bico import PortCallback, PortConfig, PortError, warm_start
from hf_bico.io.hub import Hub
from hf_bico.workflows.port import run

CLS = transformers.BertForSequenceClassification
CHOSEN = PortConfig("", "", "", n=60, method="bico", allow_regression=True, method_options=("rtol=1e-6",))


@pytest.fixture(scope="module")
def bases(hub, tmp_path_factory):
    """demo/train-base, its twin in other coordinates demo/train-twin and a wider demo/train-wide; and their folders."""
    root = tmp_path_factory.mktemp("train")
    write_family(root, "bert")
    wide = replace(
        case_of("bert", 400), options=case_of("bert", 400).options | {"hidden_size": 32, "num_attention_heads": 4}
    )
    wide.build(seed=3, exact=False).bert.save_pretrained(root / "wide")
    tokenizer_of("text").save_pretrained(root / "wide")
    api = HfApi()
    for name, part in (("base", "base"), ("twin", "plus"), ("wide", "wide")):
        api.create_repo(f"demo/train-{name}")
        api.upload_folder(folder_path=root / part, repo_id=f"demo/train-{name}")
    return root


def table() -> datasets.DatasetDict:
    """Raw texts with named classes, in memory."""
    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=list(NAMES)))
    return datasets.DatasetDict(
        {split: datasets.Dataset.from_dict(rows("text", split), features=features) for split in ("train", "test")}
    )


def model_of(name: str = "demo/train-base", **options):
    torch.manual_seed(0)
    return CLS.from_pretrained(name, num_labels=CLASSES, id2label=dict(enumerate(NAMES)), **options)


def trained(model, folder, callback=None, steps: int = 4, rate: float = 1e-3) -> Trainer:
    """A few steps of a real Trainer on the CPU."""
    words = tokenizer_of("text")
    data = table()["train"].map(lambda row: words(row["text"]), remove_columns="text").rename_column("label", "labels")
    args = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=8,
        report_to=[],
        learning_rate=rate,
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
        seed=0,
    )
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=data,
        processing_class=words,
        data_collator=transformers.DataCollatorWithPadding(words),
        callbacks=[callback] if callback else [],
    )
    trainer.train()
    return trainer


def test_what_was_trained_is_on_the_hub_for_every_new_base(bases, tmp_path):
    callback = PortCallback(
        ["demo/train-twin", "demo/train-wide"], table(), config=CHOSEN, push=True, output=tmp_path / "ports"
    )
    model = model_of()
    start = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    trained(model, tmp_path / "letters", callback)
    assert callback.errors == {}
    shas = {name: HfApi().model_info(f"demo/train-{name}").sha for name in ("base", "twin", "wide")}
    for name in ("twin", "wide"):
        outcome = callback.outcomes[f"demo/train-{name}"]
        repo = f"demo/letters-on-train-{name}"
        assert outcome.url.startswith(f"{HfApi().endpoint}/{repo}/commit/")
        card = ModelCard.load(repo)
        assert card.data.base_model == f"demo/train-{name}"
        assert card.data.eval_results[0].metric_value == round(outcome.evaluation.ported.value, 6)
        assert f"demo/train-base at `{shas['base']}`" in card.text
        assert f"demo/train-{name} at `{shas[name]}`" in card.text
        opened = transformers.AutoModelForSequenceClassification.from_pretrained(repo)
        assert tuple(opened.config.id2label.values()) == NAMES
        assert (tmp_path / "ports" / f"train-{name}" / "README.md").exists()
    lines = outcome_rows(callback)
    assert lines["train-twin"].n == 22
    # The twin got the same function: change and classifier.
    texts = tokenizer_of("text")(table()["train"][:]["text"], padding=True, return_tensors="pt")
    ours = CLS.from_pretrained("demo/letters-on-train-twin").eval()
    with torch.no_grad():
        theirs, got = model.eval()(**texts).logits, ours(**texts).logits
        model.load_state_dict(start)
        before = model(**texts).logits
    assert (theirs - got).norm() < 0.1 * (theirs - before).norm()


def outcome_rows(callback) -> dict:
    return {name.split("/")[-1]: outcome.evaluation.ported for name, outcome in callback.outcomes.items()}


def test_an_adapter_is_ported_as_what_it_makes_of_its_base(bases, tmp_path):
    config = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"])
    named = [name.title() for name in NAMES]  # not as the base has them
    model = model_of()
    model.config.id2label, model.config.label2id = dict(enumerate(named)), {name: i for i, name in enumerate(named)}
    model = peft.get_peft_model(model, config)
    callback = PortCallback("demo/train-twin", table(), config=CHOSEN, output=tmp_path / "ports", strict=True)
    trained(model, tmp_path / "lora", callback)
    report = callback.outcomes["demo/train-twin"].report
    assert report["task_vector"]["adapter"]["type"] == "LORA"
    assert report["lineage"]["base"]["name"] == "demo/train-base"
    assert not HfApi().repo_exists("demo/lora-on-train-twin")
    texts = tokenizer_of("text")(table()["train"][:]["text"], padding=True, return_tensors="pt")
    ours = CLS.from_pretrained(tmp_path / "ports" / "train-twin").eval()
    assert list(ours.config.id2label.values()) == named
    with torch.no_grad():
        theirs, got = model.eval()(**texts).logits, ours(**texts).logits
    assert (theirs - got).norm() < 0.02 * theirs.norm()
    (tmp_path / "merged").mkdir()
    merged = model.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    tokenizer_of("text").save_pretrained(tmp_path / "merged")
    whole = save_of(bases, tmp_path)
    run(
        replace(
            CHOSEN,
            source=str(tmp_path / "merged"),
            base="demo/train-base",
            target="demo/train-twin",
            dataset=str(whole),
            output=tmp_path / "again",
        ),
        Hub(),
    )
    written = [load_file(tmp_path / name / "model.safetensors") for name in ("ports/train-twin", "again")]
    before = CLS.from_pretrained("demo/train-twin", num_labels=CLASSES).state_dict()
    keys = [key for key in written[0] if key.endswith(("query.weight", "value.weight"))]
    assert distance(*({key: each[key] - before[key] for key in keys} for each in written)) < 1e-3


def save_of(bases, tmp_path):
    """The same rows as in memory, as a folder."""
    folder = tmp_path / "rows" / "data"
    folder.mkdir(parents=True)
    for split, data in table().items():
        data.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder.parent


def test_one_bad_base_costs_no_other(bases, tmp_path, caplog):
    callback = PortCallback(["demo/none-such", "demo/train-wide"], table(), config=CHOSEN, output=tmp_path / "ports")
    with caplog.at_level(logging.ERROR, "hf_bico.workflows.trainer"):
        model = trained(model_of(), tmp_path / "run", callback).model
    assert list(callback.outcomes) == ["demo/train-wide"]
    assert "was not found" in str(callback.errors["demo/none-such"])
    assert "demo/none-such" in caplog.text
    strict = PortCallback(
        ["demo/none-such", "demo/train-wide"], table(), config=CHOSEN, output=tmp_path / "strict", strict=True
    )
    with pytest.raises(PortError, match="the port to demo/none-such failed"):
        strict.port(model, tokenizer_of("text"))
    assert list(strict.outcomes) == ["demo/train-wide"]


def test_only_the_first_process_ports(bases, tmp_path):
    callback = PortCallback("demo/train-wide", table(), config=CHOSEN, output=tmp_path / "ports")
    state = transformers.TrainerState(is_world_process_zero=False)
    args = TrainingArguments(output_dir=str(tmp_path / "x"), report_to=[])
    callback.on_train_end(args, state, None, model=model_of())
    assert not callback.outcomes and not callback.errors and not (tmp_path / "ports").exists()


def test_the_base_is_the_commit_that_was_opened(bases, tmp_path):
    """Also where its repo moved while the model was trained."""
    api = HfApi()
    api.create_repo("demo/train-moving")
    api.upload_folder(folder_path=bases / "base", repo_id="demo/train-moving")
    opened = api.model_info("demo/train-moving").sha
    model = trained(model_of("demo/train-moving"), tmp_path / "run", steps=2).model
    api.upload_file(path_or_fileobj=b"---\nlicense: mit\n---\n", path_in_repo="README.md", repo_id="demo/train-moving")
    callback = PortCallback("demo/train-wide", table(), config=CHOSEN, strict=True)
    callback.port(model, tokenizer_of("text"))
    base = callback.outcomes["demo/train-wide"].report["lineage"]["base"]
    assert (base["name"], base["commit"]) == ("demo/train-moving", opened) != api.model_info("demo/train-moving").sha


def test_any_name_will_do(bases, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state, model = transformers.TrainerState(is_world_process_zero=True), model_of()
    args = TrainingArguments(output_dir=".", report_to=[])
    with torch.no_grad():
        model.bert.encoder.layer[0].output.dense.weight.add_(0.01)
    for given in (args, replace_dir(args, "dataset-in-memory")):  # the rows' own folder is called that
        callback = PortCallback("demo/train-wide", table(), config=CHOSEN, strict=True)
        callback.on_train_end(given, state, None, model=model, processing_class=tokenizer_of("text"))
        name = callback.outcomes["demo/train-wide"].report["lineage"]["source"]["name"]
        assert name == (tmp_path.name if given is args else "dataset-in-memory")
    with pytest.raises(PortError, match="cannot be written as parquet"):
        PortCallback("demo/train-wide", [1], config=CHOSEN, strict=True).port(model, None)


def replace_dir(args: TrainingArguments, name: str) -> TrainingArguments:
    return replace(args, output_dir=name)


def test_one_dataset_is_split_by_the_seed(bases, tmp_path):
    whole = table()["train"]
    callback = PortCallback("demo/train-wide", whole, config=replace(CHOSEN, n=40), strict=True)
    model = trained(model_of(), tmp_path / "run", steps=2).model
    callback.port(model, tokenizer_of("text"), "mine")
    report = callback.outcomes["demo/train-wide"].report
    assert report["evaluation"]["ported"]["n"] == 14
    assert report["lineage"]["source"]["name"] == "mine" and report["evaluation"]["split"] == "held_out"
    with pytest.raises(PortError, match="has 1 rows, too few"):
        PortCallback("demo/train-wide", whole.select([0]), config=CHOSEN, strict=True).port(model, None)


def test_mistakes_of_a_callback_are_one_line(tmp_path):
    with pytest.raises(PortError, match="two of the new bases are called base"):
        PortCallback(["demo/base", "other/base@v1"], "demo/task")
    with pytest.raises(PortError, match="push_to names one repo"):
        PortCallback(["demo/base", "demo/plus"], "demo/task", config=replace(CHOSEN, push_to="demo/x"))
    for model, words in ((torch.nn.Linear(2, 2), "use hf_bico.port"), (CASES["bert"].build(exact=False), "base=")):
        with pytest.raises(PortError, match=words):
            PortCallback("demo/train-wide", table(), config=CHOSEN, strict=True).port(model)
    with pytest.raises(PortError, match="whole model"):
        warm_start("demo/ft", "demo/plus", "demo/task", config=replace(CHOSEN, form="lora"))


WRONG = {
    "columns": ({"columns": "text=words,label=label"}, "the dataset has no words; it has text, label"),
    "roles": ({"columns": "colour=words"}, "'colour' is no role that a column can have"),
    "n": ({"n": 0}, "n= 0 asks for no samples"),
    "form": ({"form": "lora", "rank": -1}, "rank"),
}


@pytest.mark.parametrize(("choices", "why"), WRONG.values(), ids=WRONG)
def test_options_are_looked_at_before_the_training(choices, why):
    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    state = SimpleNamespace(is_world_process_zero=True)
    for data in (rows, datasets.DatasetDict({"train": rows, "test": rows})):
        with pytest.raises(PortError, match=why):
            PortCallback("org/none", data, **choices).on_train_begin(None, state, None)
    with pytest.raises(TypeError, match="colums"):
        PortCallback("org/none", rows, colums="text=text")


def test_a_warm_start_is_the_port_and_trains_on(bases, tmp_path):
    warm = warm_start(str(bases / "ft"), "demo/train-twin", table(), base="demo/train-base", config=CHOSEN)
    run(
        replace(
            CHOSEN,
            source=str(bases / "ft"),
            target="demo/train-twin",
            base="demo/train-base",
            dataset=str(save_of(bases, tmp_path)),
            output=tmp_path / "ported",
        ),
        Hub(),
    )
    texts = warm.tokenizer(table()["test"][:]["text"], padding=True, return_tensors="pt")
    assert warm.model.training
    assert all(p.requires_grad for p in warm.model.parameters())
    ported = CLS.from_pretrained(tmp_path / "ported")
    with torch.no_grad():
        ours, theirs = (model.eval()(**texts).logits for model in (warm.model, ported))
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert warm.outcome.evaluation.ported.n == 22
    assert warm.outcome.output is None or not warm.outcome.output.exists()
    start = {key: tensor.clone() for key, tensor in warm.model.state_dict().items()}
    callback = PortCallback("demo/train-wide", table(), config=CHOSEN, strict=True)
    trained(warm.model, tmp_path / "on", callback)
    assert any(not torch.equal(start[key], tensor) for key, tensor in warm.model.state_dict().items())
    lineage = callback.outcomes["demo/train-wide"].report["lineage"]  # a fine-tune of the base that it was ported to
    assert lineage["base"] == lineage["base"] | {
        "name": "demo/train-twin",
        "commit": HfApi().model_info("demo/train-twin").sha,
    }


def test_a_clip_warms_up_too(world):
    warm = warm_start("demo/ft", "demo/plus", "demo/task", config=PortConfig("", "", "", method="bico", n=20))
    assert warm.model.training
    assert callable(warm.preprocess)
    assert warm.outcome.report["lineage"]["source"]["name"] == "demo/ft"
