"""Tiny models with heads of every kind, and datasets that ask them: a base, its fine-tune, and the base's twin."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from datasets import ClassLabel, List, Value
from safetensors.torch import save_file
from support import tokenizers_at_hand
from support.family_twins import gradient_step, twin
from support.repos import ROWS, _scale, case_of, texts
from torch import nn

from hf_bico.families import Loaded, Transformers
from hf_bico.families.purposes import of_config
from hf_bico.io.hub import Hub
from hf_bico.tasks.asked import objective_of
from hf_bico.tasks.objectives import Objective
from hf_bico.tasks.samples import Sample, Task, read_task, samples_of
from hf_bico.tasks.splits import HubDataset

MOODS = ("joy", "anger", "fear", "calm")
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


@dataclass(frozen=True)
class Kind:
    """A kind of task: a model's class and config, and what a row of its dataset has besides a text."""

    cls: str
    options: dict[str, Any]
    features: dict[str, Any]
    metric: str

    def row(self, number: int, text: str) -> dict[str, Any]:
        words = text.split()
        found = {
            "text": text,
            "labels": [k for k in range(len(MOODS)) if (number + len(words)) % (k + 2) == 0],
            "label": len(words) / 3,
            "tokens": words,
            "ner_tags": [_tag(words, place) for place in range(len(words))],
            "question": " ".join(words[:2]),
            "context": text,
            "answers": {"text": [words[-1]], "answer_start": [len(text) - len(words[-1])]},
        }
        return {name: found[name] for name in self.features}


def _tag(words: list[str], place: int) -> int:
    """Long words are persons, those after them too; words of four letters are places."""
    if len(words[place]) > 5:
        return 2 if place and len(words[place - 1]) > 5 else 1
    return 3 if len(words[place]) == 4 else 0


ANSWERS = {"text": List(Value("string")), "answer_start": List(Value("int32"))}
S = Value("string")
NAMED = {"id2label": dict(enumerate(MOODS)), "label2id": {name: k for k, name in enumerate(MOODS)}}
TAGGED = {"id2label": dict(enumerate(TAGS)), "label2id": {name: k for k, name in enumerate(TAGS)}}
SEVERAL = {"num_labels": len(MOODS), "problem_type": "multi_label_classification", **NAMED}
KINDS = {
    "several": Kind(
        "BertForSequenceClassification",
        SEVERAL,
        {"text": S, "labels": List(ClassLabel(names=list(MOODS)))},
        "micro F1",
    ),
    "number": Kind(
        "BertForSequenceClassification", {"num_labels": 1}, {"text": S, "label": Value("float32")}, "pearson"
    ),
    "tags": Kind(
        "BertForTokenClassification",
        {"num_labels": len(TAGS), **TAGGED},
        {"tokens": List(S), "ner_tags": List(ClassLabel(names=list(TAGS)))},
        "entity F1",
    ),
    "hidden": Kind("BertForMaskedLM", {}, {"text": S}, "masked accuracy"),
    "spans": Kind("BertForQuestionAnswering", {}, {"question": S, "context": S, "answers": ANSWERS}, "answer F1"),
}


def words() -> Any:
    """Return a tokenizer of BERT's kind that can hide words."""
    return tokenizers_at_hand.word_piece(mask_token="[UNK]")


def other_words() -> Any:
    """Return a tokenizer of RoBERTa's kind, which cuts words differently."""
    return tokenizers_at_hand.byte_bpe(pad_token="<s>", mask_token="<|end|>", add_prefix_space=True)


def write_rows(folder: Path, kind: str) -> Path:
    """Write a dataset of a kind in parquet."""
    features = datasets.Features(KINDS[kind].features)
    for split in ROWS:
        rows = [KINDS[kind].row(number, text) for number, text in enumerate(texts(split))]
        table = datasets.Dataset.from_list(rows, features=features)
        (folder / "data").mkdir(parents=True, exist_ok=True)
        table.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def task_of(folder: Path, model: nn.Module) -> tuple[Task, list[Sample]]:
    """Return the task of a dataset as a model is asked it, and its training samples."""
    hub = Hub()
    dataset = HubDataset(hub, hub.resolve(str(folder), "dataset"))
    split = dataset.split("train")
    task = read_task(dataset, split, {}, None, of_config(model.config, type(model).__name__))
    return task, list(samples_of(split, range(split.num_rows), task))


def asked(model: nn.Module, tokenizer: Any, task: Task) -> Objective:
    """Return what a live model is asked."""
    purpose = of_config(model.config, type(model).__name__)
    return objective_of(Loaded(model, None, tokenizer), Transformers(), purpose, task, 64, text_moves=False)


def model_of(kind: str, tokenizer: Any) -> nn.Module:
    """Return a tiny model of a kind, in float64."""
    torch.manual_seed(0)
    own = KINDS[kind]
    options = case_of("bert", tokenizer.vocab_size).options | own.options
    return _spread(getattr(transformers, own.cls)(transformers.BertConfig(**options)).double().eval())


def _spread(model: nn.Module) -> nn.Module:
    """Make a model's features differ from text to text."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=1.0 if "embed" in name else 2 * parameter.shape[-1] ** -0.5)
    return model


def write_world(root: Path, kind: str) -> Path:
    """Write `base` without its head, `ft`, `plus`, the base's twin, and `task`."""
    tokenizer = words()
    model = model_of(kind, tokenizer)
    task, samples = task_of(write_rows(root / "task", kind), model)
    objective = asked(model, tokenizer, task)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    stepped = gradient_step(model, objective.loss, objective.encode(samples), step=1.0)
    change = {key: stepped[key] - tensor for key, tensor in before.items()}
    scale = _scale(before, change)
    other = twin(model)
    for folder, each in (("base", model), ("plus", other)):
        (each if kind == "hidden" else each.bert).float().save_pretrained(root / folder)
        each.double()
    model.load_state_dict({key: tensor + scale * change[key] for key, tensor in before.items()})
    model.float().save_pretrained(root / "ft")
    for folder in ("base", "ft", "plus"):
        tokenizer.save_pretrained(root / folder)
    return root


def write_sentences(root: Path, *, dense: bool = False, nested: bool = False, prompt: str = "") -> Path:
    """Write `base`, its fine-tune `ft` as sentence-transformers does, and `plus`, the base's twin."""
    torch.manual_seed(0)
    tokenizer, rows = words(), texts("train")
    options = case_of("bert", tokenizer.vocab_size).options
    config = transformers.BertConfig(**options)
    model: Any = _spread(transformers.BertModel(config, add_pooling_layer=False).double().eval())
    inputs = dict(tokenizer(rows, padding=True, return_tensors="pt"))
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    wanted = torch.randn(len(rows), options["hidden_size"], dtype=torch.float64)
    stepped = gradient_step(
        model, lambda m, batch: (m(**batch).last_hidden_state[:, 0] * wanted).sum(), inputs, step=1.0
    )
    change = {key: stepped[key] - tensor for key, tensor in before.items()}
    scale = _scale(before, change)
    for folder, each in (("base", model), ("plus", twin(model))):
        each.float().save_pretrained(root / folder)
        tokenizer.save_pretrained(root / folder)
        each.double()
    model.load_state_dict({key: tensor + scale * change[key] for key, tensor in before.items()})
    place = root / "ft" / ("0_Transformer" if nested else "")
    model.float().save_pretrained(place)
    tokenizer.save_pretrained(place)
    kinds = ["Transformer", "Pooling", *["Dense"] * dense, "Normalize"]
    places = [f"{k}_{kind}" if k or nested else "" for k, kind in enumerate(kinds)]
    width = options["hidden_size"]
    files: dict[str, Any] = {
        "modules.json": [
            {"idx": k, "name": str(k), "path": place, "type": f"sentence_transformers.models.{kind}"}
            for k, (place, kind) in enumerate(zip(places, kinds, strict=True))
        ],
        "1_Pooling/config.json": {
            "word_embedding_dimension": width,
            "pooling_mode_cls_token": True,
            "pooling_mode_mean_tokens": False,
        },
        "config_sentence_transformers.json": {
            "prompts": {"query": prompt},
            "default_prompt_name": "query" if prompt else None,
        },
    }
    if dense:
        layer = nn.Linear(width, 8)
        files["2_Dense/config.json"] = {
            "in_features": width,
            "out_features": 8,
            "bias": True,
            "activation_function": "torch.nn.modules.activation.Tanh",
        }
        (root / "ft" / "2_Dense").mkdir()
        named = {"linear.weight": layer.weight.detach(), "linear.bias": layer.bias.detach()}
        save_file(named, root / "ft" / "2_Dense" / "model.safetensors")
    for name, data in files.items():
        (root / "ft" / name).parent.mkdir(exist_ok=True)
        (root / "ft" / name).write_text(json.dumps(data))
    return root
