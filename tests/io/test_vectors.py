"""Deltas and task vectors of one base add up, merge as peft merges, and apply."""

import pytest
import torch
import transformers
from peft.utils import merge_utils
from support.commands import hf_bico as command
from support.deltas import same, state

import hf_bico
from hf_bico import TaskVector
from hf_bico.core.errors import PortError
from hf_bico.io.hub import Hub
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.port import run


@pytest.fixture(scope="module")
def two(llama, tmp_path_factory):
    """Two deltas of one base."""
    repo, root = llama
    other = tmp_path_factory.mktemp("other") / "delta"
    run(
        PortConfig(
            f"{repo}-tuned",
            f"{repo}-plus",
            f"{repo}-task",
            base=f"{repo}-base",
            n=8,
            method="theseus",
            form="delta",
            dtype="float32",
            output=other,
        ),
        Hub(),
    )
    return root / "delta", other


def test_deltas_of_one_base_add_up(two):
    base = state(hf_bico.from_pretrained(two[0], alpha=0.0, device="cpu"))
    a, b = (hf_bico.from_pretrained(each, delta_only=True) for each in two)
    got = state(hf_bico.from_pretrained(two, weights=[0.5, -2.0], device="cpu"))
    for key in base:
        change = sum(
            weight * vector.tensors[key] if key in vector.tensors else 0.0 for weight, vector in ((0.5, a), (-2.0, b))
        )
        assert torch.allclose(got[key], base[key] + change, atol=1e-6)
    both = hf_bico.from_pretrained(two, weights=[0.5, -2.0], delta_only=True)
    assert both.norm() == pytest.approx((0.5 * a - 2 * b).norm())


@pytest.mark.parametrize("merge", ["ties", "dare_linear", "dare_ties"])
def test_merges_are_pefts(merge, two):
    a, b = (hf_bico.from_pretrained(each, delta_only=True) for each in two)
    got, again = (
        hf_bico.from_pretrained(two, weights=[1.0, 0.5], merge=merge, density=0.3, seed=3, delta_only=True)
        for _ in range(2)
    )
    other = hf_bico.from_pretrained(two, weights=[1.0, 0.5], merge=merge, density=0.3, seed=4, delta_only=True)
    key = next(iter(a.tensors))
    parts = [a.tensors[key], b.tensors[key]]
    assert torch.equal(got.tensors[key], again.tensors[key])
    if merge == "ties":
        assert torch.equal(got.tensors[key], merge_utils.ties(parts, torch.tensor([1.0, 0.5]), 0.3))
    else:
        assert not torch.equal(got.tensors[key], other.tensors[key])
    whole = hf_bico.from_pretrained(two, weights=[1.0, 0.5], merge=merge, density=1.0, delta_only=True)
    if merge == "dare_linear":
        assert torch.allclose(whole.tensors[key], parts[0] + 0.5 * parts[1], atol=1e-7)


def test_vectors_are_a_vector_space(two, tmp_path):
    a, b = (TaskVector.from_pretrained(each) for each in two)
    assert (a + b - b - a).norm() < 1e-6 * a.norm()
    assert (2.0 * a * 0.5 - a).norm() == 0 and (-a).norm() == a.norm() > 0
    assert (a + b).norm() <= a.norm() + b.norm()
    assert (a - b).save(tmp_path / "tau.safetensors") > 0
    kept = TaskVector.from_pretrained(tmp_path / "tau.safetensors")
    assert (kept + b - a).norm() < 1e-6 * a.norm() and kept.lineage["base"] == a.lineage["base"]
    with pytest.raises(PortError, match="exists"):
        a.save(tmp_path / "tau.safetensors")


def test_a_vector_is_a_mapping_that_can_be_divided(two):
    a, b = (TaskVector.from_pretrained(each) for each in two)
    half = (a + b) / 2
    assert len(half) == len(set(half)) == len({*a, *b})
    for name in half:
        assert name in half
        assert torch.equal(half[name], (0.5 * (a + b)).tensors[name])
    assert repr(a) == f"TaskVector({len(a)} tensors, {a.lineage['source']} − {a.lineage['base']})"
    with pytest.raises(PortError, match="divided by 0"):
        a / 0
    with pytest.raises(KeyError):
        a["no such tensor"]
    assert bool(a)


def test_vectors_of_two_bases_do_not_add_up(llama, two):
    repo, _ = llama
    fine_tune = TaskVector.from_pretrained(f"{repo}-tuned", base=f"{repo}-base")
    assert fine_tune.norm() > 0
    with pytest.raises(PortError, match="different bases"):
        fine_tune + TaskVector.from_pretrained(two[0])


def test_a_delta_applied_is_the_model_it_opens_as(llama, tmp_path, capsys, monkeypatch):
    _, root = llama
    ran = command(capsys, monkeypatch, "apply", root / "delta", "--to", root / "plus", "--output", tmp_path / "sum")
    assert ran.code == 0, ran.err
    whole = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "sum").state_dict()
    assert same(whole, state(hf_bico.from_pretrained(root / "delta", device="cpu")))
    ran = command(capsys, monkeypatch, "apply", root / "delta", "--to", root / "base", "--output", tmp_path / "no")
    assert ran.code == 2 and "is not the base of" in ran.err and not (tmp_path / "no").exists()


def test_dare_leaves_the_generator_as_it_was_and_one_delta_is_merged_too(two):
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    one = hf_bico.from_pretrained(two[0], merge="dare_linear", density=0.2, delta_only=True)
    plain = hf_bico.from_pretrained(two[0], delta_only=True)
    key = next(iter(plain.tensors))
    assert 0.1 < float((one.tensors[key] != 0).float().mean()) < 0.4
    assert torch.equal(torch.rand(3), wanted)


def test_what_no_vector_can_do(two, tmp_path):
    tau = TaskVector.from_pretrained(two[0])
    for wrong in (lambda: tau + 1, lambda: tau * "x"):
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(PortError, match="not a scale"):
        tau * float("inf")
    with pytest.raises(PortError, match="NaN or Inf"):
        TaskVector({"x": torch.tensor([float("nan")])}, {}).save(tmp_path / "nan.safetensors")
    assert not list(tmp_path.iterdir())
