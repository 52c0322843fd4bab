"""What is written as a LoRA is, opened by PEFT and by transformers, the model that was scored."""

import json

import peft
import pytest
import torch
import transformers
from huggingface_hub import HfApi, ModelCard
from support.adapters import write_adapter
from support.deltas import LORAS, ported, publish
from support.family_twins import CASES
from support.repos import NAMES, batch, processor_of, write_family

from hf_bico.core.errors import PortError
from hf_bico.core.low_rank import Delta, LowRank
from hf_bico.core.types import Slice
from hf_bico.io.changes.forms import Storage, as_products, stored, truncated


@pytest.mark.parametrize(("family", "source"), [("llama", "lora"), ("gpt2", "lora"), ("bert", "lora"), ("bert", "ft")])
def test_a_lora_is_the_model_that_it_was_scored_as(family, source, tmp_path, hub):
    write_family(tmp_path, family)
    if source == "lora":
        write_adapter(tmp_path, family, merge=False, **LORAS[family])
    repo, case = publish(tmp_path, family, source), CASES[family]
    told, whole = (ported(repo, form, source) for form in ("lora", "model"))
    scores = [report["evaluation"]["ported"]["value"] for report in (told, whole)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-4)
    cls, built = getattr(transformers, case.cls), {"num_labels": len(NAMES)} if case.kind == "text" else {}
    base = cls.from_pretrained(f"{repo}-plus", **built)
    inputs, _ = batch(case.kind, processor_of(case.kind))
    models = [
        cls.from_pretrained(f"{repo}-as-model"),
        cls.from_pretrained(f"{repo}-as-lora", **built),
        peft.PeftModel.from_pretrained(cls.from_pretrained(f"{repo}-plus", **built), f"{repo}-as-lora"),
    ]
    with torch.no_grad():
        before, full, *others = (model.eval()(**inputs).logits for model in (base, *models))
    for logits in others:
        assert (logits - full).norm() < 1e-4 * (before - full).norm()
    config = _config(f"{repo}-as-lora")
    assert config["base_model_name_or_path"] == f"{repo}-plus"
    assert config["revision"] == HfApi().repo_info(f"{repo}-plus").sha
    if source == "lora":
        most = {2, 3} if family == "llama" else {3}
        assert {config["r"], *config["rank_pattern"].values()} == most
    assert told["task_vector"]["written"]["mean_error"] < 1e-5
    card = ModelCard.load(f"{repo}-as-lora").data
    assert (card.base_model, card.base_model_relation, card.library_name) == (f"{repo}-plus", "adapter", "peft")


def _config(repo: str) -> dict:
    from huggingface_hub import hf_hub_download

    with open(hf_hub_download(repo, "adapter_config.json")) as file:
        return json.load(file)


def matrix() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(9, 6, generator=generator) @ torch.diag(torch.tensor([5.0, 4, 3, 2, 1, 0]))


def test_a_cut_is_the_best_of_its_rank_and_says_what_it_lost():
    whole = matrix()
    for rank in (1, 3, 9):
        product, error = truncated(whole, rank, None)
        sizes = torch.linalg.svdvals(whole)
        assert product.rank == min(rank, 5)
        lost = float((product.dense() - whole).norm())
        assert lost == pytest.approx(float(sizes[rank:].norm()), abs=1e-4)
        assert error == pytest.approx(lost / float(whole.norm()), abs=1e-5)
    for energy in (0.5, 0.9, 0.99):
        product, error = truncated(whole, None, energy)
        assert 1 - error**2 >= energy > 1 - truncated(whole, product.rank - 1, None)[1] ** 2 or product.rank == 1
    assert truncated(whole, None, None)[1] < 1e-6


def test_products_are_not_cut_and_nothing_stays_nothing():
    product = LowRank(torch.ones(9, 2), torch.rand(2, 6))
    made, cuts = as_products({"a": matrix(), "b": torch.ones(9), "zero": torch.zeros(9, 6)}, 2, None)
    assert set(made) == {"a", "b"} and [(cut.key, cut.rank) for cut in cuts] == [("a", 2)]
    assert torch.equal(made["b"], torch.ones(9)) and product.rank == 2


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("adapter", None, None, None, "transformers"), "model, delta, lora"),
        (("model", 3, None, None, "transformers"), "form= lora"),
        (("delta", None, 0.5, None, "transformers"), "form= lora"),
        (("lora", 3, 0.5, None, "transformers"), "exclude"),
        (("lora", 0, None, None, "transformers"), "1 or more"),
        (("lora", None, 1.5, None, "transformers"), "share"),
        (("lora", None, None, None, "open_clip"), "form= delta"),
        (("model", None, None, "float32", "open_clip"), "form= delta"),
        (("delta", None, None, "int8", "open_clip"), "bfloat16 or float32"),
    ],
)
def test_a_form_that_cannot_be_written_is_refused(options, why):
    with pytest.raises(PortError, match=why):
        Storage.of(*options)


def test_what_is_stored_is_rounded_once_and_says_how_far_off_it_is():
    change = {"dense": matrix(), "bias": matrix()[:, 0], "zero": torch.zeros(3, 3)}
    shaped = stored(change, 0.5, None)
    assert set(shaped.delta) == {"dense", "bias"} and (shaped.alpha, shaped.dtype) == (1.0, "bfloat16")
    assert torch.equal(shaped.delta["dense"], (0.5 * matrix()).bfloat16().float())
    assert torch.equal(shaped.delta["bias"], 0.5 * matrix()[:, 0])
    lost = float((shaped.delta["dense"] - 0.5 * matrix()).norm() / (0.5 * matrix()).norm())
    assert [cut.error for cut in shaped.cuts] == pytest.approx([lost]) and 0 < lost < 2**-8
    assert stored(change, 0.5, "float32").cuts[0].error == 0


def test_a_product_is_scaled_once():
    product = LowRank(matrix()[:, :2], matrix()[:2])
    delta = Delta({"w": torch.empty(9, 6)})
    delta.write(Slice("w"), product)
    shaped = stored(delta, -0.5, "float32")
    assert torch.allclose(shaped.delta["w"], -0.5 * product.dense()) and shaped.cuts[0].rank == 2
    assert shaped.cuts[0].error < 1e-6


def test_a_rounding_that_can_be_measured_is_not_done():
    b, a = torch.ones(6, 2), torch.full((2, 6), 1.0)
    a[1] = -1.003  # the product of the rounded factors is far from what is left of the product
    delta = Delta({"w": torch.empty(6, 6)})
    delta.write(Slice("w"), LowRank(b, a))
    shaped = stored(delta, 1.0, None)
    assert shaped.dtype == "float32" and shaped.cuts[0].error < 1e-6
    assert stored(delta, 1.0, "bfloat16").cuts[0].error > 0.1
