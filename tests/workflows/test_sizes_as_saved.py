"""A fine-tune at another image size than its base: its blocks move, its positions are left with both sizes."""

import datasets
import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file
from support.little import tuned

from hf_bico.core.notes import noted
from hf_bico.io.changes.vectors import TaskVector
from hf_bico.io.hub import Hub
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.port import run

POSITIONS = "vit.embeddings.position_embeddings"


def vit(side: int, seed: int = 0, **options):
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.ViTConfig(**sizes, image_size=side, patch_size=8, num_labels=2, **options)
    config.id2label, config.label2id = {0: "a", 1: "b"}, {"a": 0, "b": 1}
    return transformers.ViTForImageClassification(config).eval()


def write(model, folder):
    side = model.config.image_size
    model.save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": side, "width": side}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A base at 16 pixels, its fine-tune at 32, a new base at 16, and images."""
    place = tmp_path_factory.mktemp("sizes")
    base = vit(16)
    larger, small = vit(32), tuned(base, part="layer")
    larger.load_state_dict({k: t for k, t in small.state_dict().items() if k != POSITIONS}, strict=False)
    for name, model in {"base": base, "ft": larger, "plus": vit(16, seed=1)}.items():
        write(model, place / name)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    (place / "task" / "data").mkdir(parents=True)
    noise = np.random.default_rng(0)
    for split in ("train", "test"):
        images = [Image.fromarray(noise.integers(0, 255, (16, 16, 3)).astype(np.uint8)) for _ in range(8)]
        rows = {"image": images, "label": [i % 2 for i in range(8)]}
        table = datasets.Dataset.from_dict(rows, features=features.copy())
        table.to_parquet(place / "task" / "data" / f"{split}-00000-of-00001.parquet")
    return place


def test_a_task_vector_leaves_positions_of_another_size_out_and_says_so(root):
    with noted() as lines:
        tensors = TaskVector.from_pretrained(root / "ft", root / "base").tensors
    assert POSITIONS not in tensors and "vit.embeddings.cls_token" in tensors
    assert len(lines) == 1 and f"{POSITIONS} is (1, 17, 16) in the fine-tuned model, (1, 5, 16) in the base" in lines[0]


def test_the_blocks_move_and_the_positions_stay(root, tmp_path):
    words = {
        "base": str(root / "base"),
        "method": "naive",
        "n": 8,
        "allow_regression": True,
        "output": tmp_path / "out",
    }
    outcome = run(PortConfig(str(root / "ft"), str(root / "plus"), str(root / "task"), **words), Hub())
    folders = (tmp_path / "out", root / "plus", root / "ft", root / "base")
    after, before, mine, theirs = (load_file(folder / "model.safetensors") for folder in folders)
    layers = [key for key in before if "layer" in key]
    assert all(torch.allclose(after[k] - before[k], mine[k] - theirs[k], atol=1e-6) for k in layers)
    assert torch.equal(after[POSITIONS], before[POSITIONS])
    (left,) = [entry for entry in outcome.report["left"] if entry["key"] == POSITIONS]
    assert "(1, 17, 16) in the fine-tuned model, (1, 5, 16) in the base" in left["reason"]
