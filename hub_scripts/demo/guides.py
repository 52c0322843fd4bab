"""The small models and texts that the guides in docs/guides/ speak of.

    python -m hub_scripts.demo.guides --namespace org     # push them to the Hub that HF_ENDPOINT and HF_TOKEN name
    python -m hub_scripts.demo.guides --make              # fine-tune them anew; minutes

Bases are the zoo's. What a fine-tune changed lies in `world/weights/guides.safetensors`, in float16, and the texts in
`guides.json` beside it, so that nothing is trained, and no text searched, where a guide is run. The whole language
model is the LoRA, merged.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hub_scripts.demo.publish import push, write_dataset
from hub_scripts.world.places import WEIGHTS
from hub_scripts.world.vision.clips import DIGITS

CHANGES, TEXTS = WEIGHTS / "guides.safetensors", WEIGHTS / "guides.json"
TUNED = {"vit-digits": "vit-narrow", "lm-headings-lora": "lm-a", "lm-headings": "lm-a", "bert-pairs": "bert-narrow"}
"""Fine-tunes, and what they came from; an adapter before the model that it is merged into."""
BASES = ("vit-narrow", "vit-wide", "lm-a", "lm-b", "bert-narrow", "bert-wide")
SPLITS = {"train": 120, "test": 200}
LORA = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"}
STEPS = {"lm-headings-lora": (400, 3e-3, 32), "bert-pairs": (400, 1e-3, 32)}
"""Steps, rate and batch of the fine-tunes of texts."""
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]
MODEL_CARD = """---
license: apache-2.0
{more}---
# {name}

A small model for the guides; made by `hub_scripts/demo/guides.py`.
"""
DATA_CARD = """---
license: other
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-00000-of-00001.parquet
  - split: test
    path: data/test-00000-of-00001.parquet
---
# {name}

{about} From the docstrings of open-source Python packages.
"""
ABOUT = {
    "headings": "A piece of a docstring and, as the completion, the heading of its section.",
    "pairs": "The opening of a docstring, and a later section of the same docstring.",
}


def write(root: Path, namespace: str = "org") -> dict[str, str]:
    """All repos as folders under `root`; returns their names and kinds."""
    from hub_scripts.world.zoo.make import base

    for name in BASES:
        shutil.copytree(base(name), root / name)
        _card(root / name, "")
    for name, start in TUNED.items():
        _write_tuned(root / name, name, root / start, namespace)
    for name in ABOUT:
        _write_texts(root / name, name)
    write_dataset(root)
    return dict.fromkeys((*BASES, *TUNED), "model") | dict.fromkeys((*ABOUT, "digits"), "dataset")


def _card(folder: Path, more: str) -> None:
    (folder / "README.md").write_text(MODEL_CARD.format(name=folder.name, more=more), encoding="utf-8")


def _write_tuned(folder: Path, name: str, start: Path, namespace: str) -> None:
    import peft
    import transformers

    folder.mkdir()
    if name.endswith("-lora"):
        save_file(_changed(name), folder / "adapter_model.safetensors", metadata={"format": "pt"})
        kept = json.loads(TEXTS.read_text())["adapter"] | {"base_model_name_or_path": f"{namespace}/{start.name}"}
        (folder / "adapter_config.json").write_text(json.dumps(kept, indent=2))
    elif name == "lm-headings":
        adapter = peft.PeftModel.from_pretrained(_open(start, name), folder.parent / "lm-headings-lora")
        adapter.merge_and_unload().save_pretrained(folder)
    else:
        model = _open(start, name)
        model.load_state_dict(_changed(name), strict=False)
        model.save_pretrained(folder)
    if name.startswith("vit"):
        transformers.AutoImageProcessor.from_pretrained(start).save_pretrained(folder)
    else:
        transformers.AutoTokenizer.from_pretrained(start).save_pretrained(folder)
    if name == "bert-pairs":
        _write_pooling(folder, 64)
    _card(folder, f"base_model: {namespace}/{start.name}\n")


def _open(start: Path, name: str) -> nn.Module:
    """The base as the class that its fine-tune has."""
    import transformers

    if name.startswith("vit"):
        names = dict(enumerate(DIGITS))
        found = transformers.ViTForImageClassification.from_pretrained(
            start, id2label=names, label2id={v: k for k, v in names.items()}, ignore_mismatched_sizes=True
        )
    elif name.startswith("bert"):
        found = transformers.BertModel.from_pretrained(start, add_pooling_layer=False)
    else:
        found = transformers.AutoModelForCausalLM.from_pretrained(start)
    return found.float()


def _write_pooling(folder: Path, width: int) -> None:
    """What sentence-transformers reads beside a model."""
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "modules.json").write_text(json.dumps(MODULES, indent=2))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 64}))


def _write_texts(folder: Path, name: str) -> None:
    import datasets

    (folder / "data").mkdir(parents=True)
    for split, rows in json.loads(TEXTS.read_text())[name].items():
        datasets.Dataset.from_list(rows).to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    (folder / "README.md").write_text(DATA_CARD.format(name=name, about=ABOUT[name]), encoding="utf-8")


def _changed(name: str) -> dict[str, Tensor]:
    """What a fine-tune has of its own, in float32."""
    mine = f"{name}|"
    return {key.removeprefix(mine): each.float() for key, each in load_file(CHANGES).items() if key.startswith(mine)}


def make() -> None:
    """Draw the texts, fine-tune the models, keep both."""
    from hub_scripts.world.zoo import data, vit
    from hub_scripts.world.zoo.make import base
    from hub_scripts.world.zoo.tune import tune_lm

    torch.set_num_threads(1)
    kept = {"headings": {split: data.rows("heading", split)[:n] for split, n in SPLITS.items()}}
    kept["pairs"] = {split: pairs(split)[:n] for split, n in SPLITS.items()}
    start = {name: base(of) for name, of in TUNED.items()}
    made = {"vit-digits": vit.tune("vit-narrow", "digits", _open(start["vit-digits"], "vit-digits").state_dict())}
    made["bert-pairs"] = tune_pairs(_open(start["bert-pairs"], "bert-pairs"), start["bert-pairs"])
    with tempfile.TemporaryDirectory() as folder:
        tune_lm(start["lm-headings-lora"], "heading", *STEPS["lm-headings-lora"], lora=LORA).save_pretrained(folder)
        kept["adapter"] = json.loads((Path(folder) / "adapter_config.json").read_text())
        kept["adapter"]["base_model_name_or_path"] = None  # named where it is written
        adapter = load_file(Path(folder) / "adapter_model.safetensors")
    changes = {f"lm-headings-lora|{key}": each.half() for key, each in adapter.items()}
    for name, model in made.items():
        before = _open(start[name], name).state_dict()
        changes |= {
            f"{name}|{key}": each.half().clone()
            for key, each in model.state_dict().items()
            if not torch.equal(each, before[key])
        }
    save_file(changes, CHANGES)
    CHANGES.chmod(0o644)
    TEXTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def pairs(split: str) -> list[dict[str, str]]:
    """The first 24 words of a docstring and of its longest other section, in a random order."""
    import numpy as np

    from hub_scripts.world.zoo.data import split_of
    from hub_scripts.world.zoo.text import sections

    whole: dict[tuple[int, str], list[str]] = {}
    for package, document, held, heading, line in sections():
        if heading != "References":
            whole.setdefault((document, split_of(package, document, held)), []).append(" ".join(line.split()[:24]))
    found = [(lines[0], max(lines[1:], key=len)) for (_, of), lines in whole.items() if of == split and len(lines) > 1]
    found = list({positive: (anchor, positive) for anchor, positive in found}.values())
    order = np.random.default_rng(5).permutation(len(found))
    return [{"anchor": found[i][0], "positive": found[i][1]} for i in order]


def tune_pairs(model: nn.Module, start: Path) -> nn.Module:
    """In-batch softmax over the cosines of mean-pooled rows; the token table stays frozen."""
    import torch.nn.functional as F
    from transformers import AutoTokenizer

    from hub_scripts.world.zoo.training import fit
    from hub_scripts.world.zoo.tune import freeze_embeddings

    steps, rate, batch = STEPS["bert-pairs"]
    tokenizer, generator, rows = AutoTokenizer.from_pretrained(start), torch.Generator().manual_seed(0), pairs("train")
    freeze_embeddings(model)

    def features(texts: list[str]) -> Tensor:
        coded = tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
        mask = coded["attention_mask"][..., None].float()
        hidden = model(input_ids=coded["input_ids"], attention_mask=coded["attention_mask"]).last_hidden_state
        return F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)

    def loss_of(step: int) -> Tensor:
        picked = [rows[i] for i in torch.randint(len(rows), (batch,), generator=generator).tolist()]
        a, b = (features([row[key] for row in picked]) for key in ("anchor", "positive"))
        return F.cross_entropy(20 * a @ b.T, torch.arange(batch))

    fit("bert-pairs", model.train(), loss_of, steps, rate, 0.1)
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--namespace", default="org", help="user or organisation that owns the repos")
    parser.add_argument("--make", action="store_true", help="fine-tune the models anew in place of publishing them")
    args = parser.parse_args()
    if args.make:
        make()
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, kind in write(Path(folder), args.namespace).items():
            print(push(Path(folder) / name, f"{args.namespace}/{name}", kind), flush=True)


if __name__ == "__main__":
    main()
