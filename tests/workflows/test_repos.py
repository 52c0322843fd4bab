"""Repos of transformers, through the local Hub: read in shards, ported, pushed, and opened by transformers itself."""

import pytest
import torch
import transformers
from huggingface_hub import HfApi, ModelCard
from safetensors.torch import load_file
from support.family_twins import CASES
from support.repos import NAMES, batch, processor_of, shards, write_family
from support.twins import distance

from hf_bico.families import family_of
from hf_bico.io.hub import Hub
from hf_bico.workflows.arithmetic import apply, extract
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.port import run

ONE_EACH = (
    "vit",
    "deit",
    "dinov2-swiglu",
    "timm",
    "clip-classifier",
    "bert",
    "roberta",
    "distilbert",
    "modernbert",
    "mpnet",
    "t5-gated",
    "gpt2",
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
)
"""A shape of every family."""


def published(root, name: str) -> str:
    """Push a family's repos as demo/NAME-base, -ft, -plus and -task; what was fine-tuned is on the fine-tune's card."""
    api = HfApi()
    (root / "ft" / "README.md").write_text(f"---\nbase_model: demo/{name}-base\nlicense: mit\n---\n")
    for part in ("base", "ft", "plus", "task"):
        kind = "dataset" if part == "task" else "model"
        api.create_repo(f"demo/{name}-{part}", repo_type=kind)
        api.upload_folder(folder_path=root / part, repo_id=f"demo/{name}-{part}", repo_type=kind)
    return f"demo/{name}"


PORTS = [pytest.param(name, "bico", id=name) for name in ONE_EACH]
PORTS += [pytest.param(name, "response", id=f"{name} response") for name in ("bert", "t5-gated", "llama")]


@pytest.mark.parametrize(("name", "method"), PORTS)
def test_twin_gives_the_fine_tune_back_through_the_hub(name, method, tmp_path, hub):
    expected, kind = write_family(tmp_path, name), CASES[name].kind
    assert shards(tmp_path / "plus") > 1
    repo = published(tmp_path, name if method == "bico" else f"{name}-{method}")
    run(
        PortConfig(
            f"{repo}-ft",
            f"{repo}-plus",
            f"{repo}-task",
            n=66,
            push_to=f"{repo}-port",
            method=method,
            method_options=("rtol=1e-6",),
            allow_regression=True,
        ),
        Hub(),
    )
    cls = getattr(transformers, CASES[name].cls)
    ported, told = cls.from_pretrained(f"{repo}-port", output_loading_info=True)
    assert not any(told.values())
    before = cls.from_pretrained(tmp_path / "plus", num_labels=len(NAMES)).state_dict()
    delta = {
        key: tensor - before[key]
        for key, tensor in ported.state_dict().items()
        if expected[key].any() and tensor.is_floating_point()
    }
    assert distance(delta, {key: expected[key] for key in delta}) < 0.05
    family = family_of(ported)
    head = {*family.head_gains(ported), *(s.key for site in family.head_sites(ported) for s in site.slices)}
    kept = set(ported.state_dict()) - set(delta) - head
    assert all(torch.equal(ported.state_dict()[key], before[key]) for key in kept)
    inputs, _ = batch(kind, processor_of(kind))
    with torch.no_grad():  # the same function as the fine-tune's, head and all
        asked = inputs | ({"decoder_input_ids": inputs["input_ids"][:, :3]} if kind == "seq2seq" else {})
        theirs, ours = (model(**asked).logits for model in (cls.from_pretrained(tmp_path / "ft"), ported))
    assert (theirs - ours).norm() < 0.03 * theirs.norm()
    card = ModelCard.load(f"{repo}-port").data
    assert (card.base_model, card.library_name) == (f"{repo}-plus", "transformers")
    if kind in ("text", "image"):
        assert tuple(ported.config.id2label.values()) == NAMES


def test_a_fitted_head_is_the_same_again(tmp_path):
    """Both bases' gradients are taken under heads that are known: the fine-tune's own, and the fitted one.

    What is written is fitted to the body as it was ported: another scale has another head.
    """
    write_family(tmp_path, "vit")
    made = []
    for number, alpha in enumerate((1.0, 1.0, 2.0)):
        torch.manual_seed(number)
        run(
            PortConfig(
                *(str(tmp_path / part) for part in ("ft", "plus", "task")),
                base=str(tmp_path / "base"),
                n=66,
                method="bico",
                head="ridge",
                alpha=alpha,
                allow_regression=True,  # there is nothing to learn in these labels
                output=tmp_path / f"out {number}",
            ),
            Hub(),
        )
        made.append(load_file(tmp_path / f"out {number}" / "model.safetensors"))
    assert distance(*made[:2]) < 1e-6
    one, two = (tensors["classifier.weight"] for tensors in made[1:])
    assert (one - two).norm() > 1e-3 * one.norm()


def test_a_task_vector_goes_back_onto_a_bare_base(tmp_path):
    write_family(tmp_path, "bert")
    extract(str(tmp_path / "ft"), str(tmp_path / "base"), tmp_path / "tau.safetensors", Hub())
    apply(tmp_path / "tau.safetensors", str(tmp_path / "base"), tmp_path / "sum", 1.0, Hub())
    tuned, summed = (transformers.BertModel.from_pretrained(tmp_path / name).state_dict() for name in ("ft", "sum"))
    assert all(torch.allclose(summed[key], tuned[key], atol=1e-6) for key in summed)
