"""A tiny world for end-to-end tests, in files: two CLIPs, a fine-tune of the first, and a labelled dataset."""

import json
from pathlib import Path

import datasets
import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file
from support.twins import random_fine_tune, site_keys

CLASSES = ("circle", "square", "stripe_up", "stripe_down")
TEMPLATES = ("a {c}.", "a drawing of a {c}.")


def config(width: int, layers: int, size: int) -> dict:
    """An `open_clip_config.json` for open_clip's own tokenizer."""
    return {
        "model_cfg": {
            "embed_dim": 16,
            "vision_cfg": {"image_size": size, "layers": layers, "width": width, "patch_size": 8, "head_width": 8},
            "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
        },
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "size": [size, size]},
    }


def write_model(
    folder: Path, cfg: dict, tensors: dict | None = None, card: str = "---\nlicense: mit\n---\n", seed: int = 0
) -> dict:
    """A model repo with random weights, or with these; its tensors."""
    folder.mkdir(parents=True)
    if tensors is None:
        torch.manual_seed(seed)
        tensors = open_clip.CLIP(**cfg["model_cfg"]).state_dict()
    (folder / "open_clip_config.json").write_text(json.dumps(cfg))
    (folder / "README.md").write_text(card)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / "open_clip_model.safetensors")
    return tensors


def fine_tune(cfg: dict, tensors: dict, seed: int = 1) -> dict:
    """The model's tensors after steps of Adam on shapes of our own: it tells them apart, as a fine-tune does."""
    model = open_clip.CLIP(**cfg["model_cfg"]).eval()
    model.load_state_dict(tensors)
    model.load_state_dict(random_fine_tune(model, scale=0.002, seed=seed))
    size, generator = cfg["model_cfg"]["vision_cfg"]["image_size"], np.random.default_rng(1000 + seed)
    labels = torch.arange(48) % len(CLASSES)
    drawn = [
        shape(int(label), generator).convert("RGB").resize((size, size), Image.Resampling.BICUBIC) for label in labels
    ]
    images = torch.tensor(np.stack([np.asarray(image) for image in drawn])).permute(0, 3, 1, 2) / 127.5 - 1
    words = open_clip.tokenizer.SimpleTokenizer(context_length=cfg["model_cfg"]["text_cfg"]["context_length"])
    head = open_clip.build_zero_shot_classifier(
        model, words, CLASSES, [lambda c, text=text: text.format(c=c) for text in TEMPLATES]
    )
    keys = set(site_keys(model))
    adam = torch.optim.Adam([p for key, p in model.named_parameters() if key in keys], 2e-3)
    for _ in range(30):
        logits = model.logit_scale.exp() * model.encode_image(images, normalize=True) @ head
        loss = torch.nn.functional.cross_entropy(logits, labels)
        adam.zero_grad()
        loss.backward()
        adam.step()
    return {key: tensor.detach().clone() for key, tensor in model.state_dict().items()}


def write_dataset(
    folder: Path, rows: dict[str, int], features: datasets.Features | None = None, group: int = 10
) -> None:
    """Parquet splits of noisy shapes with small row groups, and the prompts."""
    (folder / "data").mkdir(parents=True)
    features = features or datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=list(CLASSES)))
    for seed, (split, n) in enumerate(rows.items()):
        generator = np.random.default_rng(seed)
        labels = generator.integers(len(CLASSES), size=n)
        table = datasets.Dataset.from_dict(
            {"image": [shape(label, generator) for label in labels], "label": labels.tolist()}, features=features
        )
        table.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet", batch_size=group)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    (folder / "zeroshot_classification_templates.txt").write_text("\n".join(TEMPLATES))


def shape(label: int, generator: np.random.Generator) -> Image.Image:
    y, x = np.mgrid[-1:1:40j, -1:1:40j]
    drawn = (x**2 + y**2 < 0.5, np.maximum(abs(x), abs(y)) < 0.6, abs(x - y) < 0.3, abs(x + y) < 0.3)[label]
    return Image.fromarray((200 * drawn + generator.integers(0, 55, drawn.shape)).astype(np.uint8))


def write_world(root: Path) -> None:
    """`ft` of `base` (width 32, 32 px), `plus` (width 48, one block more, 40 px) and `task`, as folders."""
    small, large = config(32, 2, 32), config(48, 3, 40)
    base = write_model(root / "base", small, card="---\nlicense: apache-2.0\n---\n")
    write_model(root / "plus", large, seed=4)
    write_model(root / "ft", small, fine_tune(small, base), card="---\nbase_model: demo/base\nlicense: mit\n---\n")
    write_dataset(root / "task", {"train": 60, "test": 30})
