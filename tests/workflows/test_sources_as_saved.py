"""Ports of sources as people save them: what is scored and what is moved are of the same tensors, and it is said."""

import shutil

import pytest
import torch
from safetensors.torch import load_file
from support.little import llama, lora, rename, tuned, write, write_texts

from hf_bico.io.adapter import WEIGHTS
from hf_bico.io.hub import Hub
from hf_bico.reports.report import PortReport
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.live import as_named
from hf_bico.workflows.port import run


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    place = tmp_path_factory.mktemp("sources")
    base = llama()
    write(base, place / "base")
    write(llama(seed=1), place / "plus")
    write(tuned(base), place / "ft")
    write_texts(place / "task")
    return place


def ported(root, source, output, **options):
    """A naive port onto another model of the same shape: what moved is the sum less that model."""
    words = {
        "base": str(root / "base"),
        "method": "naive",
        "n": 8,
        "max_length": 32,
        "allow_regression": True,
    } | options
    config = PortConfig(str(source), str(root / "plus"), str(root / "task"), output=output, **words)
    outcome = run(config, Hub())
    before, after = load_file(root / "plus" / "model.safetensors"), load_file(output / "model.safetensors")
    return outcome, {key: after[key] - before[key] for key in before}


def assert_moved(change, model, base) -> None:
    """The blocks' linear maps moved as in the fine-tune, and nothing else."""
    a, b = model.state_dict(), base.state_dict()
    for key, tensor in change.items():
        expected = a[key] - b[key] if "proj" in key else torch.zeros_like(b[key])
        assert torch.allclose(tensor, expected, atol=1e-6), key


@pytest.fixture(scope="module")
def plain(root, tmp_path_factory):
    """The score of the fine-tune as it should be saved."""
    return ported(root, root / "ft", tmp_path_factory.mktemp("plain") / "out")[0].evaluation.source.value


def test_a_wrapped_source_without_its_head_is_scored_and_moved_as_it_is_whole(root, plain, tmp_path):
    folder = shutil.copytree(root / "ft", tmp_path / "ft")
    rename(folder, lambda tensors: {f"module.{key}": t for key, t in tensors.items() if key != "lm_head.weight"})
    outcome, change = ported(root, folder, tmp_path / "out")
    assert outcome.evaluation.source.value == pytest.approx(plain, rel=1e-6)
    assert_moved(change, tuned(llama()), llama())
    report = PortReport.from_json(outcome.report)
    assert [word in " ".join(report.notes) for word in ("'module.'", "saved without lm_head.weight")] == [True, True]
    assert "saved without lm_head.weight" in (tmp_path / "out" / "README.md").read_text()


def test_a_base_saved_without_its_head_takes_its_fine_tunes(root, plain, tmp_path):
    folder = shutil.copytree(root / "base", tmp_path / "base")
    rename(folder, lambda tensors: {key: t for key, t in tensors.items() if key != "lm_head.weight"})
    outcome, change = ported(root, root / "ft", tmp_path / "out", base=str(folder))
    assert outcome.evaluation.source.value == pytest.approx(plain, rel=1e-6)
    assert_moved(change, tuned(llama()), llama())
    assert "its fine-tune's is taken" in " ".join(outcome.report["notes"])


@pytest.mark.parametrize("kernel", ["flex_attention", "flash_attention_2"])
def test_what_attention_was_computed_with_is_no_part_of_a_model(root, tmp_path, kernel):
    """No kernel that this machine lacks, or that has no backward pass here, stops a port or changes it."""
    asking = write(llama(), tmp_path / "base", attn_implementation=kernel)
    _, plain_ = ported(root, root / "ft", tmp_path / "out", method="bico")
    _, asked = ported(root, root / "ft", tmp_path / "asked", method="bico", base=str(asking))
    assert all(torch.equal(asked[key], plain_[key]) for key in plain_)
    assert any(change.any() for change in asked.values())


@pytest.mark.parametrize("rows", [496, 512])
def test_a_vocabulary_of_another_size_is_scored_with_it_and_left_behind(root, tmp_path, rows):
    model = tuned(llama())
    model.resize_token_embeddings(rows, mean_resizing=False)
    outcome, change = ported(root, write(model, tmp_path / "ft"), tmp_path / "out")
    assert_moved({k: t for k, t in change.items() if "embed" not in k and "head" not in k}, tuned(llama()), llama())
    left = {entry["key"]: entry["reason"] for entry in outcome.report["left"]}
    assert f"({rows}, 16) in the fine-tuned model, (500, 16) in the base" in left.get("model.embed_tokens.weight", "")
    assert left.keys() >= {"lm_head.weight"}


@pytest.mark.parametrize("kind", [None, "adapter"])
def test_of_a_model_with_an_adapter_beside_it_the_same_is_scored_and_moved(root, plain, tmp_path, kind):
    folder, base = shutil.copytree(root / "ft", tmp_path / "ft"), llama()
    both = lora(base, tmp_path / "lora", root / "base")
    for name in ("adapter_config.json", WEIGHTS):
        shutil.copy(tmp_path / "lora" / name, folder)
    outcome, change = ported(root, folder, tmp_path / "out", source_kind=kind)
    assert_moved(change, both if kind else tuned(base), base)
    same = outcome.evaluation.source.value == pytest.approx(plain, rel=1e-6)
    assert same == (kind is None)
    assert ("--source-kind adapter" in outcome.report["command"]) == (kind is not None)


def test_an_adapter_with_more_tokens_is_scored_with_them_and_its_maps_move(root, tmp_path):
    base = llama()
    bigger = llama()
    bigger.resize_token_embeddings(504, mean_resizing=False)
    whole = lora(bigger, tmp_path / "lora", root / "base", modules_to_save=["embed_tokens", "lm_head"])
    outcome, change = ported(root, tmp_path / "lora", tmp_path / "out")
    assert_moved({k: t for k, t in change.items() if "embed" not in k and "head" not in k}, whole, base)
    left = {entry["key"]: entry["reason"] for entry in outcome.report["left"]}
    assert "(504, 16) in the adapter, (500, 16) in the base" in left.get("model.embed_tokens.weight", "")
    alone = write(whole, tmp_path / "whole")
    again, _ = ported(root, alone, tmp_path / "again")
    assert outcome.evaluation.source.value == pytest.approx(again.evaluation.source.value, rel=1e-5)


def test_a_live_model_in_a_wrapper_has_the_names_of_its_base():
    base = llama().state_dict()
    for mark in ("module.", "_orig_mod.", "module._orig_mod."):
        named = as_named({mark + key: tensor for key, tensor in base.items()}, base)
        assert named.keys() == base.keys() and all(named[key] is base[key] for key in base)
    assert as_named(base, base) is base


def test_layers_that_were_frozen_do_not_move_by_rounding(root, tmp_path):
    """Trained in bfloat16 on a base in float16, one matrix alone."""
    base, model = llama(), llama()
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.add_(0.02 * torch.randn(16, 32))
    before, after = write(base.half(), tmp_path / "half"), write(model.bfloat16(), tmp_path / "brain")
    outcome, change = ported(root, after, tmp_path / "out", base=str(before))
    assert [key for key, tensor in change.items() if tensor.any()] == ["model.layers.1.mlp.down_proj.weight"]
    assert any("rounding between bfloat16 and float16" in line for line in outcome.report["notes"])
