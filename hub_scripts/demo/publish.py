"""Push the demo's world to the Hub that HF_ENDPOINT and HF_TOKEN name: three models and a dataset.

    python -m hub_scripts.demo.publish --namespace demo

Each repo is one commit; a repo that holds the same files already is left alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from pathlib import Path

from safetensors.torch import save_file

from hub_scripts.world.vision.clips import DIGITS, SIDE, TEMPLATES, WIDTHS, config, digits, kept

PREPROCESS = {
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
    "size": [SIDE, SIDE],
    "mode": "RGB",
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}

BASE_CARD = """---
license: apache-2.0
library_name: open_clip
pipeline_tag: zero-shot-image-classification
tags: [clip, glyphs]
---
# {name}

A very small CLIP (ViT, width {width}, 4 layers, 32 pixels), pre-trained on rendered letters, digits and signs
in real fonts with prompts such as "the digit three" or "a photo of the capital letter k". Made for a demo.

```python
import open_clip
model, preprocess = open_clip.create_model_from_pretrained("hf-hub:{repo}")
tokenizer = open_clip.get_tokenizer("hf-hub:{repo}")
```
Only the tokens of its prompts were trained; all others have a zero embedding.
"""

TUNED_CARD = """---
license: apache-2.0
library_name: open_clip
pipeline_tag: zero-shot-image-classification
base_model: {namespace}/vit64
base_model_relation: finetune
datasets: [{namespace}/digits]
tags: [clip, digits]
---
# {name}

[{namespace}/vit64](https://huggingface.co/{namespace}/vit64) fine-tuned on the handwritten digits of
[{namespace}/digits](https://huggingface.co/datasets/{namespace}/digits): vision tower only; text tower,
logit scale and zero-shot head frozen. Made for a demo.
"""

DATA_CARD = """---
license: cc-by-4.0
task_categories: [image-classification, zero-shot-image-classification]
size_categories: [1K<n<10K]
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-00000-of-00001.parquet
  - split: test
    path: data/test-00000-of-00001.parquet
---
# Handwritten digits

The 1,797 digits that scikit-learn ships (Alpaydin and Kaynak, *Optical Recognition of Handwritten Digits*,
UCI, 1998, CC BY 4.0), 8x8 pixels enlarged to 32x32, in 1,200 for training and 597 for testing.
`zeroshot_classification_templates.txt` has one prompt a line, with `{c}` for the name of the class.
"""


def write_model(name: str, folder: Path, namespace: str = "demo") -> Path:
    """One model as open_clip reads it, with its card; returns its folder."""
    target, width = folder / name, WIDTHS[name]
    target.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"model_cfg": config(width), "preprocess_cfg": PREPROCESS}, indent=2)
    (target / "open_clip_config.json").write_text(text + "\n", encoding="utf-8")
    save_file(kept(name), target / "open_clip_model.safetensors", metadata={"format": "pt"})
    card = TUNED_CARD if name == "vit64-digits" else BASE_CARD
    card = card.format(name=name, width=width, namespace=namespace, repo=f"{namespace}/{name}")
    (target / "README.md").write_text(card, encoding="utf-8")
    return target


def write_models(folder: Path | str, namespace: str = "demo") -> dict[str, Path]:
    """The three models as folders under `folder`, by name and without any Hub."""
    return {name: write_model(name, Path(folder), namespace) for name in WIDTHS}


def write_dataset(folder: Path | str) -> Path:
    """The digits as parquet (columns image and label), templates and card; returns the folder."""
    import datasets

    datasets.disable_progress_bars()
    target = Path(folder) / "digits"
    (target / "data").mkdir(parents=True, exist_ok=True)
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=DIGITS))
    for split, (images, labels) in digits().items():
        table = datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)
        table.to_parquet(target / "data" / f"{split}-00000-of-00001.parquet")
    lines = "".join(f"{template}\n" for template in TEMPLATES)
    (target / "zeroshot_classification_templates.txt").write_text(lines, encoding="utf-8")
    (target / "README.md").write_text(DATA_CARD, encoding="utf-8")
    return target


def same(path: Path, remote) -> bool:
    """Whether a file on the Hub has this content: by its sha256 when it is LFS, else by its git blob id."""
    data = path.read_bytes()
    if remote.lfs is not None:
        return remote.lfs.sha256 == hashlib.sha256(data).hexdigest()
    return remote.blob_id == hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def push(folder: Path, repo: str, kind: str) -> str:
    """One commit with every file of the folder, unless the repo has them all; returns what happened."""
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    api = HfApi()
    api.create_repo(repo, repo_type=kind, exist_ok=True)
    files = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
    tree = api.list_repo_tree(repo, repo_type=kind, recursive=True)
    remote = {entry.path: entry for entry in tree if hasattr(entry, "blob_id")}
    if all(name in remote and same(path, remote[name]) for name, path in files.items()):
        return f"{kind} {repo}: up to date"
    operations = [CommitOperationAdd(name, path) for name, path in files.items()]
    done = api.create_commit(repo, operations, commit_message="Add files", repo_type=kind)
    return f"{kind} {repo}: {done.oid}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--namespace", default="demo", help="user or organisation that owns the four repos")
    namespace = parser.parse_args().namespace
    with tempfile.TemporaryDirectory() as folder:
        print(push(write_dataset(folder), f"{namespace}/digits", "dataset"), flush=True)
        for name, path in write_models(folder, namespace).items():
            print(push(path, f"{namespace}/{name}", "model"), flush=True)


if __name__ == "__main__":
    main()
