"""Deltas of tiny models on the Hub."""

import shutil

import pytest
import torch
from huggingface_hub import HfApi, snapshot_download
from support.repos import write_family

from hf_bico.io.hub import Hub
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.port import run

LORAS = {
    "llama": {"r": 3, "target_modules": ["q_proj", "gate_proj", "down_proj"], "rank_pattern": {"down_proj": 2}},
    "gpt2": {"r": 3, "target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True, "lora_bias": True},
    "bert": {"r": 3, "target_modules": ["query", "value", "intermediate.dense"], "modules_to_save": ["classifier"]},
}
"""Adapters that peft writes: what of a family they change."""


def publish(root, family: str, source: str, what: str = "form") -> str:
    api, repo = HfApi(), f"demo/{family}-{source}-{what}"
    (root / source / "README.md").write_text("---\nlicense: mit\n---\n")
    for part in (source, "base", "plus", "task"):
        kind = "dataset" if part == "task" else "model"
        api.create_repo(f"{repo}-{part}", repo_type=kind)
        api.upload_folder(folder_path=root / part, repo_id=f"{repo}-{part}", repo_type=kind)
    return repo


def ported(repo: str, form: str, source: str = "ft", **options) -> dict:
    config = PortConfig(
        f"{repo}-{source}",
        f"{repo}-plus",
        f"{repo}-task",
        base=f"{repo}-base",
        n=22,
        method="bico",
        form=form,
        push_to=f"{repo}-as-{form}",
        allow_regression=True,
        **options,
    )
    return run(config, Hub()).report


@pytest.fixture(scope="session")
def llama(hub, tmp_path_factory):
    """The repos of a Llama, its delta ported, and folders of that delta and of its base."""
    root = tmp_path_factory.mktemp("delta")
    write_family(root, "llama")
    (root / "ft").rename(root / "tuned")
    repo = publish(root, "llama", "tuned", "change")
    ported(repo, "delta", "tuned", dtype="float32")
    shutil.copytree(snapshot_download(f"{repo}-as-delta"), root / "delta")
    return repo, root


def state(opened) -> dict[str, torch.Tensor]:
    return opened.model.state_dict()


def same(a: dict, b: dict) -> bool:
    """Bit for bit: a zero's sign counts."""
    return a.keys() == b.keys() and all(torch.equal(a[key].view(torch.int32), b[key].view(torch.int32)) for key in a)
