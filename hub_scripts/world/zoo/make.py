"""The zoo: small transformers models that were really pre-trained, as ordinary repo folders under `.world/zoo/`.

    python -m hub_scripts.world.zoo.make                  # all bases, from the committed weights
    python -m hub_scripts.world.zoo.make --train          # pre-train those whose weights are not there
    python -m hub_scripts.world.zoo.make --tuned          # also every fine-tune and dataset of PAIRS

`base("lm-b")`, `tuned("lm-a", "code")` and `dataset("code")` return folders that `hf-bico` takes; what is not there
is made, and made again when weights, data or recipe are others.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from hub_scripts.world.zoo import bert, lm, minilm, vit
from hub_scripts.world.zoo.data import dataset, told
from hub_scripts.world.zoo.next import NEXT, go_on
from hub_scripts.world.zoo.text import OTHER, train_other, write_tokenizer
from hub_scripts.world.zoo.training import ZOO, digest, file_digest, keep, weights
from hub_scripts.world.zoo.tune import tune_classifier, tune_lm

MODULES = {"vit": vit, "bert": bert, "lm": lm}
BASES = (*vit.SHAPES, *bert.SHAPES, *lm.SHAPES)
"""Pre-trained here, their weights committed."""
RECIPES = {"bert": (400, 1e-3, 32), "minilm": (150, 2e-4, 16), "lm": (400, 1e-3, 32)}
"""Steps, rate and batch of a fine-tune."""
LORA, LORA_RATE = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"}, 3e-3
PAIRS = {
    ("vit-narrow", "vit-wide"): vit.VIT_TASKS,
    ("bert-narrow", "bert-wide"): ("topic", "kind", "shuffle"),
    ("minilm", "minilm-next"): ("kind",),
    ("lm-a", "lm-b"): ("code", "heading"),
    ("lm-a", "lm-c"): ("code",),
}
"""(source, target) → tasks."""
CARD = """---
license: apache-2.0
library_name: transformers
{more}---
# {name}

{about}
Made by `hub_scripts/world/zoo/make.py`.
"""


def kind_of(name: str) -> str:
    return name.split("-")[0]


def base(name: str) -> Path:
    """A base as a repo folder: weights, configuration, tokenizer or image processor, card."""
    if kind_of(name) == "minilm":
        made = (minilm.STEPS, minilm.RATE)
        write = minilm.write_minilm if name == "minilm" else lambda f: minilm.write_next(f, base("minilm"))
    elif name in NEXT:
        made = (NEXT[name], file_digest(weights(NEXT[name].old)))
        write = lambda folder: _write_base(NEXT[name].old, go_on(name), folder)  # noqa: E731
    else:
        made = file_digest(weights(name))
        write = lambda folder: _write_base(name, MODULES[kind_of(name)].load(name), folder)  # noqa: E731
    return _folder(name, digest(name, made), write, f"A small {kind_of(name)}, pre-trained for minutes.", "")


def tuned(name: str, task: str) -> Path:
    """A fine-tune of a base on a task, with a new head where the task has classes."""
    recipe = RECIPES.get(kind_of(name), (vit.TUNE_STEPS, vit.TUNE_RATE, vit.TUNE_BATCH))
    start = base(name)
    made = digest(file_digest(start / "model.safetensors"), told(task), recipe)
    more = f"base_model: {name}\ndatasets: [{task}]\n"
    return _folder(
        f"{name}-{task}",
        made,
        lambda folder: _write_tuned(start, name, task, recipe, folder),
        f"{name} fine-tuned on {task}.",
        more,
    )


def lora(name: str, task: str) -> Path:
    """A LoRA of one of the language models, as PEFT writes it."""
    start, recipe = base(name), (*RECIPES["lm"][:1], LORA_RATE, *RECIPES["lm"][2:])

    def write(folder: Path) -> None:
        torch.set_num_threads(1)
        tune_lm(start, task, *recipe, lora=LORA).save_pretrained(folder)

    made = digest(file_digest(start / "model.safetensors"), told(task), recipe, LORA)
    about, more = f"A LoRA of {name} for {task}.", f"base_model: {name}\ndatasets: [{task}]\n"
    return _folder(f"{name}-{task}-lora", made, write, about, more)


def merged(name: str, task: str) -> Path:
    """The same LoRA merged into its base, a whole model: what `compare` takes for a target's own fine-tune."""
    adapter = lora(name, task)

    def write(folder: Path) -> None:
        from peft import AutoPeftModelForCausalLM
        from transformers import AutoTokenizer

        AutoPeftModelForCausalLM.from_pretrained(adapter).merge_and_unload().save_pretrained(folder)
        AutoTokenizer.from_pretrained(base(name)).save_pretrained(folder)

    made = digest(file_digest(adapter / "adapter_model.safetensors"))
    return _folder(f"{adapter.name}-merged", made, write, f"{adapter.name}, merged.", f"base_model: {name}\n")


def _folder(name: str, made: str, write: Callable[[Path], None], about: str, more: str) -> Path:
    """`write` fills the folder unless it was made from the same before."""
    folder, stamp = ZOO / name, ZOO / name / "zoo.json"
    if stamp.is_file() and json.loads(stamp.read_text())["made"] == made:
        return folder
    ZOO.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ZOO) as scratch:
        new = Path(scratch) / name
        new.mkdir()
        write(new)
        (new / "README.md").write_text(CARD.format(name=name, about=about, more=more), encoding="utf-8")
        (new / "zoo.json").write_text(json.dumps({"made": made}) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
    return folder


def _write_base(name: str, model: torch.nn.Module, folder: Path) -> None:
    """Saved as published checkpoints are: a BERT's has both heads of pre-training and says BertForMaskedLM."""
    model.save_pretrained(folder)
    if kind_of(name) == "vit":
        vit.write_processor(folder)
        return
    write_tokenizer(folder, "bert" if kind_of(name) == "bert" else lm.SHAPES[name].tokenizer)
    if kind_of(name) == "bert":
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"architectures": ["BertForMaskedLM"]}, indent=2))


def _write_tuned(start: Path, name: str, task: str, recipe: tuple[int, float, int], folder: Path) -> None:
    from transformers import AutoTokenizer, ViTForImageClassification

    torch.set_num_threads(1)
    if kind_of(name) == "vit":
        body = ViTForImageClassification.from_pretrained(start).state_dict()
        vit.tune(NEXT[name].old if name in NEXT else name, task, body).save_pretrained(folder)
        vit.write_processor(folder)
        return
    tune = tune_lm if kind_of(name) == "lm" else tune_classifier
    tune(start, task, *recipe).save_pretrained(folder)
    AutoTokenizer.from_pretrained(start).save_pretrained(folder)


def train(name: str) -> None:
    """Pre-train a base and keep its weights; prints loss and seconds."""
    torch.set_num_threads(1)
    if name == "lm-c" and not OTHER.is_file():
        train_other().save(str(OTHER))
    start = time.time()
    model, losses = MODULES[kind_of(name)].pretrain(name)
    keep(name, model)
    print(f"{name}: loss {sum(losses[-100:]) / len(losses[-100:]):.3f}, {time.time() - start:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", action="store_true", help="pre-train the bases whose weights are not there")
    parser.add_argument("--tuned", action="store_true", help="also make the fine-tunes and datasets of PAIRS")
    parser.add_argument("names", nargs="*", default=list(BASES), help="bases")
    args = parser.parse_args()
    for name in args.names:
        if args.train and not weights(name).is_file():
            train(name)
        print(base(name), flush=True)
    if args.tuned:
        for (source, target), tasks in PAIRS.items():
            for task in tasks:
                print(dataset(task), tuned(source, task), tuned(target, task), flush=True)


if __name__ == "__main__":
    main()
