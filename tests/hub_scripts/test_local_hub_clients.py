"""The local Hub under other clients: ranges, cards, datasets, open_clip."""

from __future__ import annotations

import hashlib
import io
import json

import pytest
from huggingface_hub import (
    HfApi,
    HfFileSystem,
    ModelCard,
    get_session,
)
from support.hub import Hub
from support.hub_clients import NUMBERS, commit

# other clients


def test_ranges(hub: Hub, api: HfApi, repo: str) -> None:
    data = bytes(range(256)) * 40
    commit(api, repo, {"m.bin": data})
    fs = HfFileSystem(endpoint=hub.url, token=hub.token)
    with fs.open(f"{repo}/m.bin", block_size=64) as file:
        file.seek(1000)
        assert file.read(100) == data[1000:1100]
    assert fs.cat_file(f"{repo}/m.bin", start=5, end=9) == data[5:9]
    assert fs.ls(repo, detail=False) == [f"{repo}/.gitattributes", f"{repo}/m.bin"]
    url = f"{hub.url}/{repo}/resolve/main/m.bin"
    answer = get_session().get(url, headers={"Range": "bytes=3-5"})
    assert (answer.status_code, answer.content) == (206, data[3:6])
    assert answer.headers["Content-Range"] == f"bytes 3-5/{len(data)}"
    assert get_session().get(url, headers={"Range": "bytes=99999-"}).status_code == 416
    head = get_session().head(url).headers
    assert head["X-Linked-Size"] == head["Content-Length"] == str(len(data))
    assert head["X-Linked-Etag"] == f'"{hashlib.sha256(data).hexdigest()}"'


def test_cards(api: HfApi, repo: str) -> None:
    meta = "license: mit\nbase_model: demo/base\nmodel-index:\n- name: m\n  results: []\n"
    card = ModelCard(f"---\n{meta}---\n# Hello\n")
    card.validate()
    card.push_to_hub(repo, token=api.token)
    assert ModelCard.load(repo).data.base_model == "demo/base"
    info = api.model_info(repo)
    assert info.card_data.license == "mit" and {"license:mit", "base_model:demo/base"} <= set(info.tags)
    for bad in ("---\na: [\n---\n", "---\nbase_model: 3\n---\n"):
        with pytest.raises(ValueError, match="metadata"):
            commit(api, repo, {"README.md": bad.encode()})


def test_a_dataset_pushed_is_the_dataset_loaded(api: HfApi, hub: Hub) -> None:
    from datasets import Dataset, load_dataset

    repo, rows = f"demo/data-{next(NUMBERS)}", {"x": list(range(50)), "y": [str(i) for i in range(50)]}
    pushed = Dataset.from_dict(rows).push_to_hub(repo, token=hub.token, num_shards=3)
    assert pushed.oid == api.dataset_info(repo).sha
    assert load_dataset(repo, split="train").to_dict() == rows
    assert load_dataset(repo, split="train", revision=pushed.oid).to_dict() == rows
    streamed = load_dataset(repo, split="train", streaming=True)
    assert [row["x"] for row in streamed] == rows["x"]


def test_an_image_folder(api: HfApi) -> None:
    from datasets import load_dataset
    from PIL import Image

    repo = api.create_repo(f"demo/images-{next(NUMBERS)}", repo_type="dataset").repo_id
    files = {}
    for label, shade in (("cat", 10), ("dog", 200)):
        Image.new("RGB", (4, 4), (shade,) * 3).save(buffer := io.BytesIO(), "png")
        files[f"train/{label}/0.png"] = buffer.getvalue()
    commit(api, repo, files, repo_type="dataset")
    for streaming in (False, True):
        found = list(load_dataset(repo, split="train", streaming=streaming))
        assert [(row["label"], row["image"].getpixel((0, 0))[0]) for row in found] == [(0, 10), (1, 200)]


def test_open_clip(api: HfApi, repo: str) -> None:
    import open_clip
    import torch
    from safetensors.torch import save

    towers = {
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 64, "patch_size": 8},
        "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
    }
    config = {"model_cfg": {"embed_dim": 8, **towers}, "preprocess_cfg": {}}
    model = open_clip.CLIP(**config["model_cfg"])
    files = {"open_clip_config.json": json.dumps(config).encode()}
    commit(api, repo, files | {"open_clip_model.safetensors": save(model.state_dict())})
    loaded, _, preprocess = open_clip.create_model_and_transforms(f"hf-hub:{repo}")
    expected = model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())
    assert preprocess is not None
