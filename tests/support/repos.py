"""Model repos of every family, in files: a base, its fine-tune, and the base's twin in other coordinates as target."""

import json
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import torch
import torch.nn.functional as F
import transformers
from PIL import Image
from support import tokenizers_at_hand
from support.family_twins import CASES, CLASSES, Case, gradient_step, turned, twin
from torch import Tensor, nn

NAMES = tuple(f"kind {k}" for k in range(CLASSES))
ROWS = {"train": 66, "test": 22}
ANSWERS = ("yes", "no", "perhaps so", "who knows")


def case_of(name: str, words: int) -> Case:
    """A family's tiny model, with room for a real tokenizer's words."""
    case = CASES[name]
    if case.kind == "image":
        return case
    long = {key: 128 for key in ("max_position_embeddings", "n_positions") if key in case.options}
    roomy = {"vocab_size": words} | long
    return replace(case, options=case.options | roomy)


def tokenizer_of(kind: str):
    """BERT's kind for classifiers, GPT-2's for the rest."""
    if kind == "text":
        return tokenizers_at_hand.word_piece(pad_token="[PAD]")
    return tokenizers_at_hand.byte_bpe(pad_token="<s>")


def texts(split: str) -> list[str]:
    """Words of the tokenizers' text in order, in lines of various lengths, none twice."""
    lines = [line for line in dict.fromkeys(tokenizers_at_hand._lines()) if len(line) > 20]
    words = " ".join(lines).split()
    n, first = ROWS[split], 0 if split == "train" else ROWS["train"]
    return [" ".join(words[5 * (first + i) : 5 * (first + i) + 4 + i % 5]) for i in range(n)]


def rows(kind: str, split: str) -> dict[str, list]:
    n = ROWS[split]
    labels = [i % CLASSES for i in range(n)]
    if kind == "image":
        generator = np.random.default_rng(split == "test")
        return {
            "image": [Image.fromarray(generator.integers(0, 255, (16, 16, 3)).astype(np.uint8)) for _ in range(n)],
            "label": labels,
        }
    if kind == "text":
        return {"text": texts(split), "label": labels}
    if kind == "causal":
        return {"text": texts(split)}
    return {"prompt": texts(split), "completion": [ANSWERS[i % len(ANSWERS)] for i in range(n)]}


def write_dataset(folder: Path, kind: str) -> None:
    types = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(NAMES))}
    (folder / "data").mkdir(parents=True)
    for split in ROWS:
        columns = rows(kind, split)
        features = datasets.Features({name: types.get(name, datasets.Value("string")) for name in columns})
        table = datasets.Dataset.from_dict(columns, features=features)
        table.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")


def processor_of(kind: str):
    return transformers.ViTImageProcessor(size={"height": 16, "width": 16}) if kind == "image" else tokenizer_of(kind)


def batch(kind: str, processor) -> tuple[dict[str, Tensor], Tensor]:
    """All training samples at once, as the models of a kind take them, and what they are asked."""
    columns = rows(kind, "train")
    if kind == "image":
        return dict(processor(images=columns["image"], return_tensors="pt")), torch.tensor(columns["label"])
    got = dict(processor(columns.get("text", columns.get("prompt")), padding=True, return_tensors="pt"))
    if kind == "text":
        return got, torch.tensor(columns["label"])
    if kind == "causal":
        got.pop("token_type_ids", None)
        return got, got["input_ids"].masked_fill(got["attention_mask"] == 0, -100)
    answers = processor(columns["completion"], padding=True, return_tensors="pt")
    return got, answers["input_ids"].masked_fill(answers["attention_mask"] == 0, -100)


def _double(asked: tuple[dict[str, Tensor], Tensor]) -> tuple[dict[str, Tensor], Tensor]:
    inputs, labels = asked
    return {key: x.double() if x.is_floating_point() else x for key, x in inputs.items()}, labels


def loss(kind: str):
    def summed(model: nn.Module, asked: tuple[dict[str, Tensor], Tensor]) -> Tensor:
        inputs, labels = asked
        if kind == "seq2seq":
            return F.cross_entropy(
                model(**inputs, labels=labels).logits.flatten(0, 1), labels.flatten(), reduction="sum"
            )
        logits = model(**inputs).logits
        if kind == "causal":
            logits, labels = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        return F.cross_entropy(logits, labels, reduction="sum")

    return summed


def write_family(root: Path, name: str, *, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """`base`, without its classifier, `ft`, and `plus`, the base's twin in shards; the change of a right port."""
    kind = CASES[name].kind
    processor = processor_of(kind)
    case = case_of(name, getattr(processor, "vocab_size", 0))
    model = case.build(exact=False).double()
    model.config.id2label, model.config.label2id = dict(enumerate(NAMES)), {k: i for i, k in enumerate(NAMES)}
    before = model.state_dict()
    stepped = gradient_step(model, loss(kind), _double(batch(kind, processor)), step=1.0)
    change = {key: stepped[key] - tensor for key, tensor in before.items()}
    change = {key: tensor * _scale(before, change) for key, tensor in change.items()}
    tuned = {key: tensor + change[key] for key, tensor in before.items()}
    expected = turned(model, change)
    other = twin(model)
    bare = kind in ("image", "text") and "timm" not in name
    for folder, each in (("base", model), ("plus", other)):
        body = getattr(each, each.base_model_prefix, each) if bare else each
        body.to(dtype).save_pretrained(root / folder, max_shard_size="40KB" if folder == "plus" else "1GB")
    model.load_state_dict(tuned)
    model.to(dtype)
    model.save_pretrained(root / "ft")
    for folder in ("base", "ft", "plus"):
        processor.save_pretrained(root / folder)
    (root / "ft" / "README.md").write_text("---\nlicense: mit\n---\n")
    write_dataset(root / "task", kind)
    return expected


def _scale(before: dict[str, Tensor], change: dict[str, Tensor], share: float = 0.03) -> float:
    """What makes a change as large as a fine-tune's is."""
    moved = [key for key, tensor in change.items() if tensor.any()]
    norms = [sum(float(tensors[key].square().sum()) for key in moved) ** 0.5 for tensors in (before, change)]
    return share * norms[0] / norms[1]


def shards(folder: Path) -> int:
    index = folder / "model.safetensors.index.json"
    return len(set(json.loads(index.read_text())["weight_map"].values())) if index.exists() else 1
