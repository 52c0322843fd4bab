"""Repos whose model lies in a folder: every file is found where it lies, on this machine and on the Hub."""

import json

import pytest
from huggingface_hub import HfApi

from hf_bico import PortError
from hf_bico.io.adapter import one_kind
from hf_bico.io.hub import Hub

MODEL = ("config.json", "tokenizer.json")
"""Files of the model's folder."""
ABOVE = ("modules.json", "1_Pooling/config.json")
"""Files above it; each says its own place."""


def write(root, under=""):
    own = {f"0_Transformer/{name}": name for name in MODEL} | {name: name for name in ABOVE}
    for place in own:
        path = root / under / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(place))
    return root


def published(root, repo: str) -> str:
    HfApi().create_repo(repo)
    HfApi().upload_folder(folder_path=root, repo_id=repo)
    return f"hf://{repo}"


@pytest.mark.parametrize("under", ["", "runs/best"])
@pytest.mark.parametrize("local", [True, False], ids=["folder", "repo"])
def test_a_nested_model_is_read_as_if_at_the_top(local, under, tmp_path):
    root = write(tmp_path / "sentences", under)
    name = str(root) if local else published(root, f"demo/nested{len(under)}")
    hub = Hub()
    pinned = one_kind(hub.resolve(name), subfolder=under or None)
    assert {*MODEL, *ABOVE} <= set(pinned.files)
    assert {name: pinned.place(name) for name in (*MODEL, *ABOVE)} == {
        name: "/".join(filter(None, (under, "0_Transformer" * (name in MODEL), name))) for name in (*MODEL, *ABOVE)
    }
    folder = hub.fetch(pinned, (*MODEL, *ABOVE, "README.md"))
    told = {name: json.loads((folder / name).read_text()) for name in (*MODEL, *ABOVE)}
    assert told == {name: f"0_Transformer/{name}" if name in MODEL else name for name in told}
    assert "0_Transformer" not in str(pinned)  # the repo's name is what users know
    assert under in str(pinned)


def test_folders_of_a_nested_repo_are_named_as_they_are_there(tmp_path):
    pinned = Hub().resolve(str(write(tmp_path / "sentences")))
    model = pinned.inside("0_Transformer")
    assert set(model.files) == set(MODEL)
    assert (Hub().fetch(model, MODEL) / "config.json").read_text() == '"0_Transformer/config.json"'
    with pytest.raises(PortError, match=r"has no folder 'best'; it has 0_Transformer, 1_Pooling: name another"):
        pinned.inside("best")
