"""Delta repos: exact carriers, opened by stock loaders and by ours, and refused where anything is not as it was."""

import json
import shutil

import peft
import pytest
import torch
import transformers
from adapters import write_adapter
from family_twins import CASES
from huggingface_hub import HfApi, ModelCard, snapshot_download
from repos import NAMES, batch, processor_of, write_family
from safetensors.torch import load_file, save_file
from test_forms import SOURCES, publish

import hf_bico
from hf_bico.blueprint import PortConfig
from hf_bico.core.errors import PortError
from hf_bico.io.hub import Hub
from hf_bico.pipeline import run

ONE_EACH = ("vit", "dinov2-swiglu", "timm", "clip-classifier", "bert", "distilbert", "modernbert", "t5-gated", "gpt2",
            "llama", "qwen2", "gemma")
"""A family of every build: with and without biases, some of both, transposed, fused, tied."""
AUTO = {"text": "AutoModelForSequenceClassification", "image": "AutoModelForImageClassification",
        "causal": "AutoModelForCausalLM", "seq2seq": "AutoModelForSeq2SeqLM"}


def ported(repo: str, form: str, source: str = "ft", **options) -> dict:
    config = PortConfig(f"{repo}-{source}", f"{repo}-plus", f"{repo}-task", base=f"{repo}-base", n=22, form=form,
                        push_to=f"{repo}-as-{form}", allow_regression=True, **options)
    return run(config, Hub()).report


def logits(kind: str, *models) -> list[torch.Tensor]:
    """Of models of a kind, on the same samples."""
    inputs, _ = batch(kind, processor_of(kind))
    asked = inputs | ({"decoder_input_ids": inputs["input_ids"][:, :3]} if kind == "seq2seq" else {})
    with torch.no_grad():
        return [model.eval()(**asked).logits for model in models]


def built(kind: str) -> dict:
    return {"num_labels": len(NAMES)} if kind in ("text", "image") else {}


@pytest.mark.parametrize("family", ONE_EACH)
def test_every_loader_gives_the_model_that_was_scored(family, tmp_path, hub):
    write_family(tmp_path, family)
    repo, case = publish(tmp_path, family, "ft"), CASES[family]
    told, whole = (ported(repo, form) for form in ("delta", "model"))
    cls, more = getattr(transformers, case.cls), built(case.kind)
    auto = getattr(transformers, AUTO[case.kind])
    ours = hf_bico.from_pretrained(f"{repo}-as-delta", device="cpu")
    plus = cls.from_pretrained(f"{repo}-plus", **more)
    before, full, mine, stock, through_peft = logits(
        case.kind, plus, cls.from_pretrained(f"{repo}-as-model"), ours.model,
        auto.from_pretrained(f"{repo}-as-delta", **more),
        peft.PeftModel.from_pretrained(cls.from_pretrained(f"{repo}-plus", **more), f"{repo}-as-delta"))
    moved = (before - full).norm()
    for other in (stock, through_peft):
        assert (other - mine).norm() < 1e-4 * moved
    assert 0 < (mine - full).norm() < 0.01 * moved  # bfloat16
    assert told["task_vector"]["written"]["mean_error"] == pytest.approx(2**-9, rel=0.5)
    assert told["evaluation"]["ported"]["value"] == pytest.approx(whole["evaluation"]["ported"]["value"], rel=0.02)
    assert type(ours.model) is cls
