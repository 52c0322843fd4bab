"""Maps between two bases of transformers: classifiers that have no head yet, language models, adapters as sources."""

import json
import shutil

import datasets
import pytest
import torch
import transformers
from safetensors.torch import load_file
from support.adapters import write_adapter
from support.alignments import factors, same
from support.family_twins import CASES
from support.repos import NAMES, texts, write_family
from support.twins import distance

from hf_bico.core.errors import PortError
from hf_bico.families import LIBRARIES
from hf_bico.io.hub import Hub
from hf_bico.io.maps.files import MAPS_FILE
from hf_bico.tasks.columns import Columns, SampleKind
from hf_bico.tasks.labels import Labels
from hf_bico.tasks.samples import Task
from hf_bico.workflows import align
from hf_bico.workflows.bases import purpose_of
from hf_bico.workflows.config import AlignConfig, PortConfig
from hf_bico.workflows.port import run

RTOL = ("rtol=1e-6",)


def aligned(root, output="maps", dataset="task", **options) -> dict:
    """The record of maps from root/base to root/plus."""
    places = {"base": str(root / "base"), "target": str(root / "plus"), "dataset": str(root / dataset)}
    config = AlignConfig(**places, output=root / output, **{"n": 66} | options)
    return align.run(config, Hub()).record


def ported(root, output, source="ft", dataset="task", **options):
    names = (source, "plus", dataset)
    chosen = {"method": "bico", "n": 66} | options
    if "maps" in options:
        del chosen["method"]
    return run(
        PortConfig(
            *(str(root / name) for name in names),
            base=str(root / "base"),
            output=root / output,
            allow_regression=True,  # there is nothing to learn in these labels
            **chosen,
        ),
        Hub(),
    )


def weights(folder) -> dict[str, torch.Tensor]:
    """Of all shards, or of an adapter."""
    return {key: tensor for path in sorted(folder.glob("*.safetensors")) for key, tensor in load_file(path).items()}


def off(root, name: str, folder: str, expected: dict[str, torch.Tensor]) -> float:
    """How far a port's change is from the right one."""
    cls = getattr(transformers, CASES[name].cls)
    before = cls.from_pretrained(root / "plus", num_labels=len(NAMES)).state_dict()
    after = cls.from_pretrained(root / folder).state_dict()
    delta = {
        key: tensor - before[key] for key, tensor in after.items() if expected[key].any() and tensor.is_floating_point()
    }
    return distance(delta, {key: expected[key] for key in delta})


@pytest.mark.parametrize(
    "name", ["vit", "dinov2-swiglu", "timm", "bert", "roberta", "distilbert", "modernbert", "t5-gated", "gpt2", "llama"]
)
def test_twins_are_aligned_without_a_fine_tune(name, tmp_path):
    """The same function in other coordinates: its maps give a fine-tune that they never saw back."""
    expected, kind = write_family(tmp_path, name), CASES[name].kind
    record = aligned(tmp_path, method_options=RTOL)
    purposes = {"image": "image-classification", "text": "text-classification", "causal": "causal-lm"}
    assert record["calibration"]["purpose"] == purposes.get(kind, kind)
    assert record["calibration"]["head"] == ("ridge" if kind in ("image", "text") else "lm")
    ported(tmp_path, "over", maps=str(tmp_path / "maps"))
    assert off(tmp_path, name, "over", expected) < 0.01
    if kind in ("causal", "seq2seq"):  # under the very loss that a port takes
        ported(tmp_path, "own", method_options=RTOL)
        assert same(weights(tmp_path / "own"), weights(tmp_path / "over"))


def test_heads_of_neither_base_come_in(tmp_path):
    """Both are fitted: what a base's file, or the loading of it, says of a head does not matter."""
    write_family(tmp_path, "modernbert")
    for number in range(2):
        torch.manual_seed(number)
        aligned(tmp_path, f"maps {number}")
    assert distance(factors(tmp_path / "maps 0"), factors(tmp_path / "maps 1")) < 1e-5
    model = transformers.ModernBertForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=7)
    model.classifier.weight.data.normal_(std=9.0)
    shutil.move(tmp_path / "base", tmp_path / "bare")
    shutil.copytree(tmp_path / "bare", tmp_path / "base")
    model.save_pretrained(tmp_path / "base")  # of seven other classes
    record = aligned(tmp_path, "maps 2")
    rows = json.loads((tmp_path / "maps 0" / MAPS_FILE).read_text())["maps"]
    assert [row["target"] for row in record["maps"]] == [row["target"] for row in rows]


def test_an_adapter_moves_over_maps_as_its_factors(tmp_path):
    write_family(tmp_path, "llama")
    write_adapter(tmp_path, "llama", merge=False, r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"])
    aligned(tmp_path)
    own = ported(tmp_path, "own", "lora", form="lora")
    over = ported(tmp_path, "over", "lora", form="lora", maps=str(tmp_path / "maps"))
    assert same(weights(tmp_path / "own"), weights(tmp_path / "over"))
    assert {row["rank"] for row in over.report["task_vector"]["written"]["layers"]} == {4}
    assert over.report["task_vector"] == own.report["task_vector"]


def test_label_free_maps_of_plain_texts_serve_a_classifier(tmp_path):
    """Made by language models of texts without labels. By hand, out of the files: τ_B = s L τ_A Rᵀ."""
    write_family(tmp_path, "llama")
    classes = datasets.ClassLabel(names=["one", "two", "three"])
    features = datasets.Features(text=datasets.Value("string"), label=classes)
    for split in ("train", "test"):
        (tmp_path / "kinds" / "data").mkdir(parents=True, exist_ok=True)
        rows = texts(split)
        table = {"text": rows, "label": [i % 3 for i in range(len(rows))]}
        datasets.Dataset.from_dict(table, features=features).to_parquet(
            tmp_path / "kinds" / "data" / f"{split}-00000-of-00001.parquet"
        )
    torch.manual_seed(0)
    model = transformers.LlamaForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=3)
    tau = {
        name: 0.02 * torch.randn_like(weight)
        for name, weight in model.named_parameters()
        if ".layers." in name and weight.ndim > 1
    }
    model.load_state_dict(model.state_dict() | {key: model.state_dict()[key] + t for key, t in tau.items()})
    shutil.copytree(tmp_path / "base", tmp_path / "classifier")
    for path in (tmp_path / "classifier").glob("model*"):
        path.unlink()
    model.save_pretrained(tmp_path / "classifier")
    record = aligned(tmp_path, method_options=("label_free=1",))
    assert record["calibration"]["purpose"] == "causal-lm"
    outcome = ported(tmp_path, "over", "classifier", "kinds", maps=str(tmp_path / "maps"))
    made, stored = factors(tmp_path / "maps"), json.loads((tmp_path / "maps" / MAPS_FILE).read_text())
    before, after = weights(tmp_path / "plus"), weights(tmp_path / "over")
    keys = {
        f"block {depth} {role}": f"model.layers.{depth}.{path}.weight"
        for depth in range(2)
        for role, path in (("q", "self_attn.q_proj"), ("v", "self_attn.v_proj"), ("MLP down", "mlp.down_proj"))
    }
    seen = 0
    for row in stored["maps"]:
        if row["target"] in keys:
            left, right = (made[f"{row[side]['file']}/{row[side]['tensor']}"] for side in ("left", "right"))
            key, there = keys[row["target"]], keys[row["source"]]
            moved = row["scale"] * left @ tau[there] @ right.T
            assert torch.allclose(after[key] - before[key], moved, atol=1e-6)
            seen += 1
    assert seen == 6
    assert outcome.report["head"]["kind"] == "transport"


def task(kind: SampleKind, classes=("a", "b")) -> Task:
    return Task(Columns(kind, {"label": "label"} if classes else {}), Labels(names=classes), ())


def test_what_a_base_is_opened_for(tmp_path):
    """A classifier where the samples have classes and it can be one; else what its config says."""
    library = LIBRARIES[1]
    tiny = {
        "vocab_size": 20,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
    }
    made = {
        "bert": transformers.BertForMaskedLM(transformers.BertConfig(**tiny)),
        "bare": transformers.BertModel(transformers.BertConfig(**tiny)),
        "vit": transformers.ViTForImageClassification(transformers.ViTConfig(**tiny, num_labels=7)),
        "encoder": transformers.T5EncoderModel(
            transformers.T5Config(vocab_size=20, d_model=8, d_ff=8, num_layers=1, num_heads=2, d_kv=4)
        ),
        "tower": transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**tiny)),
        "llama": transformers.LlamaForCausalLM(transformers.LlamaConfig(**tiny)),
    }
    for name, model in made.items():
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(tmp_path / name)

    def kind(name: str, asked: Task, head: str | None = None) -> str:
        found = purpose_of(head, asked, library, tmp_path / name)
        assert not found.kind.endswith("classification") or found.labels == asked.class_names
        return found.kind

    text, image, plain = task(SampleKind.TEXT), task(SampleKind.IMAGE), task(SampleKind.PLAIN, ())
    assert kind("bert", text) == kind("bare", text) == kind("bert", task(SampleKind.PAIR)) == "text-classification"
    assert kind("vit", image) == "image-classification"
    assert kind("bert", plain) == kind("bare", plain) == kind("bare", text, "probe") == "features"
    assert kind("encoder", text) == kind("tower", image) == "features"
    assert kind("llama", text) == kind("llama", plain) == "causal-lm"


def test_heads_and_adapters_that_no_base_has_are_refused(tmp_path):
    write_family(tmp_path, "bert")
    with pytest.raises(PortError, match="head= transport is not for two bases"):
        aligned(tmp_path, head="transport")
    write_adapter(tmp_path, "bert", merge=False, r=2, target_modules=["query"], modules_to_save=["classifier"])
    shutil.move(tmp_path / "base", tmp_path / "own")
    shutil.move(tmp_path / "lora", tmp_path / "base")
    with pytest.raises(PortError, match="is a PEFT adapter; only SOURCE may be one"):
        aligned(tmp_path)
    assert not (tmp_path / "maps").exists()


def test_features_without_labels(tmp_path):
    """A probe is fitted to either side where samples have classes; without them, gradients without labels."""
    write_family(tmp_path, "bert")
    assert aligned(tmp_path, "probed", head="probe")["calibration"]["head"] == "probe"
    for split in ("train", "test"):
        (tmp_path / "texts" / "data").mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_dict({"text": texts("train")}).to_parquet(
            tmp_path / "texts" / "data" / f"{split}-00000-of-00001.parquet"
        )
    with pytest.raises(PortError, match="method_options= label_free=1"):
        aligned(tmp_path, dataset="texts")
    record = aligned(tmp_path, dataset="texts", method_options=("label_free=1", *RTOL))
    assert (record["calibration"]["purpose"], record["calibration"]["head"]) == ("features", "none")
