"""A fine-tune that is a PEFT adapter ports as the same fine-tune does when it is merged and saved whole."""

import json
import shutil

import peft
import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file
from support.adapters import write_adapter
from support.repos import write_family

from hf_bico.core.errors import PortError
from hf_bico.core.low_rank import Factored, LowRank
from hf_bico.core.methods.gradfix import Mask
from hf_bico.core.methods.naive import Padding
from hf_bico.core.methods.transfusion import Permutation
from hf_bico.core.transport import transport
from hf_bico.core.types import BilinearMap, Pair, Site, Slice, Tokens
from hf_bico.io.adapter import AdapterConfig
from hf_bico.io.hub import Hub
from hf_bico.workflows.arithmetic import extract
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.dry_run import dry_run
from hf_bico.workflows.port import run

LLAMA = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "gate_proj", "down_proj"]}
KINDS = {
    "llama": ("llama", LLAMA),
    "llama-patterns": (
        "llama",
        LLAMA
        | {
            "rank_pattern": {"layers.0.self_attn.q_proj": 2, "v_proj": 3},
            "alpha_pattern": {"down_proj": 5},
            "use_rslora": True,
        },
    ),
    "llama-dora": ("llama", LLAMA | {"use_dora": True}),
    "llama-embedding": ("llama", LLAMA | {"target_modules": ["q_proj", "embed_tokens"], "embeddings": False}),
    "llama-embedded": ("llama", LLAMA | {"target_modules": ["q_proj", "embed_tokens"]}),  # the file has the base's too
    "llama-pissa": ("llama", LLAMA | {"init_lora_weights": "pissa"}),
    "llama-loha": ("llama", {"cls": peft.LoHaConfig, "r": 4, "target_modules": ["q_proj", "up_proj"]}),
    "bert-ia3": (
        "bert",
        {
            "cls": peft.IA3Config,
            "target_modules": ["key", "value", "output.dense"],
            "feedforward_modules": ["output.dense"],
        },
    ),
    "gpt2": ("gpt2", {"r": 4, "target_modules": ["c_attn", "c_fc", "mlp.c_proj"], "fan_in_fan_out": True}),
    "gpt2-dora": ("gpt2", {"r": 4, "target_modules": ["c_attn"], "fan_in_fan_out": True, "use_dora": True}),
    "gpt2-bias": ("gpt2", {"r": 4, "target_modules": ["c_attn"], "fan_in_fan_out": True, "bias": "all"}),
    "bert": (
        "bert",
        {"r": 4, "target_modules": ["query", "dense"], "modules_to_save": ["classifier"], "bias": "lora_only"},
    ),
    "bert-lora-bias": ("bert", {"r": 4, "target_modules": ["query", "value"], "lora_bias": True}),
    "bert-norms": ("bert", {"r": 4, "target_modules": ["query"], "modules_to_save": ["classifier", "output.dense"]}),
    "vit": ("vit", {"r": 4, "target_modules": ["q_proj", "o_proj"], "modules_to_save": ["classifier"]}),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Repos of a family, written once."""
    made = {}

    def of(family: str):
        if family not in made:
            made[family] = tmp_path_factory.mktemp(family)
            write_family(made[family], family)
        return made[family]

    return of


def ported(root, source: str, output: str, **options):
    found = run(
        PortConfig(
            str(root / source),
            str(root / "plus"),
            str(root / "task"),
            base=str(root / "base"),
            n=22,
            output=root / output,
            method="bico",
            method_options=("rtol=1e-4",),
            allow_regression=True,  # what random factors answer is chance
            **options,
        ),
        Hub(),
    )
    tensors = {}
    for path in (root / output).glob("*.safetensors"):
        tensors |= load_file(path)
    return tensors, found.report


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_ports_as_the_merged_model_does(kind, folders):
    family, options = KINDS[kind]
    root = folders(family)
    write_adapter(root, family, kind, **options)
    (ours, told), (dense, theirs) = (ported(root, name, f"{name}-port") for name in (kind, f"{kind}-merged"))
    before = {key: tensor for path in (root / "plus").glob("*.safetensors") for key, tensor in load_file(path).items()}
    change = (
        sum(
            float((tensor - before[key.removeprefix(f"{family}.")]).square().sum())
            for key, tensor in dense.items()
            if key.removeprefix(f"{family}.") in before
        )
        ** 0.5
    )
    assert change > 1e-2 and ours.keys() == dense.keys()
    assert max(float((ours[key] - tensor).norm()) for key, tensor in dense.items()) < 2e-4 * change
    scores, expected = (each["evaluation"]["source"]["value"] for each in (told, theirs))
    assert scores == pytest.approx(expected, rel=1e-5, abs=1e-4)
    by_peft = ("embedded", "pissa", "loha", "ia3")
    how = "as a DoRA" if "dora" in kind else "merged by PEFT" if kind.endswith(by_peft) else "as factors"
    assert told["task_vector"]["adapter"]["read"].startswith(how) and theirs["task_vector"]["adapter"] is None
    assert told["task_vector"]["relative_norm"] == pytest.approx(theirs["task_vector"]["relative_norm"], rel=1e-3)
    ranks = [row["input"]["rank"] for row in told["moved"]]
    assert ranks == [row["input"]["rank"] for row in theirs["moved"]]
    lost, kept = ({(row["key"], row["reason"]) for row in each["left"]} for each in (told, theirs))
    assert lost == kept


def test_the_base_is_the_one_that_the_adapter_names(folders, tmp_path, hub):
    """At its revision; --base overrides it."""
    api, root = HfApi(), folders("llama")
    write_adapter(root, "llama", "named", merge=False, **LLAMA)
    folder = shutil.copytree(root / "named", tmp_path / "named")
    api.create_repo("demo/lora-base")
    old = api.upload_folder(folder_path=root / "base", repo_id="demo/lora-base").oid
    api.upload_folder(folder_path=root / "plus", repo_id="demo/lora-base")
    rewrite(folder, base_model_name_or_path="demo/lora-base", revision=old)
    api.create_repo("demo/lora")
    api.upload_folder(folder_path=folder, repo_id="demo/lora")
    plan, _ = drafted(root, "demo/lora")
    assert (plan.lineage.base.name, plan.lineage.base.commit) == ("demo/lora-base", old)
    plan, _ = drafted(root, "demo/lora", base=str(root / "base"))
    assert plan.lineage.base.folder == root / "base"
    _, whole = drafted(root, str(root / "ft"), base=str(root / "base"))
    assert drafted(root, "demo/lora")[1].passes_flops == whole.passes_flops


def drafted(root, source, target="plus", **options):
    return dry_run(PortConfig(str(source), str(root / target), str(root / "task"), n=22, **options), Hub())


def test_a_base_that_was_a_folder_of_the_trainer_is_asked_for(folders, tmp_path):
    root = folders("llama")
    write_adapter(root, "llama", "lost", merge=False, **LLAMA)
    folder = shutil.copytree(root / "lost", tmp_path / "lost")
    (folder / "README.md").unlink(missing_ok=True)
    rewrite(folder, base_model_name_or_path="/home/someone/my model")
    with pytest.raises(PortError, match="base="):
        drafted(root, folder)


def rewrite(folder, **changes) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_extract_takes_an_adapter(folders, tmp_path):
    root = folders("gpt2")
    write_adapter(root, "gpt2", "taken", **KINDS["gpt2"][1])
    made = [load_file(extract_to(root, name, tmp_path)) for name in ("taken", "taken-merged")]
    assert made[0].keys() == made[1].keys() and len(made[0])
    assert all(torch.allclose(made[0][key], tensor, atol=1e-6) for key, tensor in made[1].items())


def extract_to(root, name, folder):
    extract(str(root / name), str(root / "base"), folder / f"{name}.safetensors", Hub())
    return folder / f"{name}.safetensors"


def broken(tensors, what):
    key = next(key for key in tensors if "lora_A" in key)
    if what == "nan":
        tensors[key][0, 0] = float("nan")
    elif what == "rank":
        tensors[key] = tensors[key][:2].clone()
    elif what == "half":
        del tensors[key]
    elif what == "width":
        tensors[key] = torch.ones(4, 7)
    elif what == "elsewhere":
        tensors.update({name.replace("layers.0", "layers.7"): tensors.pop(name) for name in list(tensors)})
    return tensors


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("nan", "NaN or Inf"),
        ("rank", "has factors of rank 4 and 2, not 4"),
        ("half", "rank 4 and none, not 4"),
        ("width", "base=.*7"),
        ("elsewhere", "layers.7.*is not in the base"),
    ],
)
def test_a_file_that_is_not_what_it_says_is_refused(what, why, folders, tmp_path):
    root = folders("llama")
    write_adapter(root, "llama", "sound", merge=False, **LLAMA)
    folder = shutil.copytree(root / "sound", tmp_path / what)
    save_file(broken(load_file(folder / "adapter_model.safetensors"), what), folder / "adapter_model.safetensors")
    with pytest.raises(PortError, match=why):
        ported(root, folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"peft_type": "PREFIX_TUNING"}, "PREFIX_TUNING adapter's change cannot be ported.*LORA, ADALORA"),
        ({"task_type": "QUESTION_ANS"}, "is for question-answering, but"),
        ({"task_type": "MULTIPLE_CHOICE"}, "MULTIPLE_CHOICE is for a task"),
    ],
)
def test_a_kind_that_cannot_be_ported_is_refused_by_name(change, why, folders, tmp_path):
    root = folders("llama")
    write_adapter(root, "llama", "kind", merge=False, **LLAMA)
    folder = shutil.copytree(root / "kind", tmp_path / "kind")
    rewrite(folder, **change)
    with pytest.raises(PortError, match=why):
        ported(root, folder, tmp_path / "out")


def test_pickled_weights_and_adapters_as_targets_are_refused(folders, tmp_path):
    root = folders("llama")
    write_adapter(root, "llama", "pickled", merge=False, **LLAMA)
    with pytest.raises(PortError, match="only SOURCE may be one"):
        drafted(root, root / "ft", "pickled", base=str(root / "base"))
    folder = shutil.copytree(root / "pickled", tmp_path / "pickled")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(PortError, match="can run code"):
        ported(root, folder, tmp_path / "out")


def test_patterns_are_read_as_peft_reads_them():
    data = {
        "peft_type": "LORA",
        "r": 8,
        "lora_alpha": 16,
        "rank_pattern": {"0.q": 2, "q": 4},
        "use_rslora": True,
        "alpha_pattern": {"^a.1.q$": 3},
    }
    config = AdapterConfig("LORA", data=data)
    assert [config.scale(name) for name in ("a.0.q", "a.1.q", "a.10.q", "a.q.x")] == [
        (2, 16 / 2**0.5),
        (4, 3 / 2),
        (4, 16 / 2),
        (8, 16 / 8**0.5),
    ]


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def test_factors_stay_factors():
    """Moved, measured and cut without their product; what comes out is what the product gives."""
    product, calls = LowRank(random(9, 2), random(2, 6)), []

    class Thin(LowRank):
        def dense(self):
            calls.append(self)
            return super().dense()

    class Tau(Factored, dict):
        __getitem__, __iter__, __len__ = dict.__getitem__, dict.__iter__, dict.__len__

        def factors(self, key):
            return Thin(product.T.b, product.T.a)

    def site(name, where, d_out, d_in):
        return Site(name, name, 0, where, None, d_out, d_in, "x", Tokens(1))

    left, right = random(4, 3), random(5, 6)
    pairs = [
        (
            Pair(
                site(f"a{i}", Slice("w", (3 * i, 3 * i + 3), True), 3, 6),
                site(f"b{i}", Slice("v", (4 * i, 4 * i + 4)), 4, 5),
            ),
            BilinearMap(left, right),
        )
        for i in range(3)
    ]
    moved = transport(Tau(w=product.T.dense()), pairs, {"v": torch.empty(12, 5)})
    assert not calls
    dense = transport({"w": product.T.dense()}, pairs, {"v": torch.empty(12, 5)})
    assert torch.allclose(moved.delta["v"], dense.delta["v"])
    joined = moved.delta.factors("v")
    assert torch.allclose(joined.dense(), dense.delta["v"]) and joined.rank == 2  # A is the same, and once there
    for ours, theirs in zip(moved.moved, dense.moved, strict=True):
        assert (ours.norm, ours.kept) == pytest.approx((theirs.norm, theirs.kept))
    assert product.norm() == pytest.approx(float(product.dense().norm()))


def test_every_map_moves_factors_as_it_moves_their_product():
    product = LowRank(random(9, 2), random(2, 6))
    order = torch.randperm(9), torch.randperm(6)
    for move in (
        Padding(12, 5),
        Padding(4, 8),
        Permutation(*order),
        Permutation(None, order[1]),
        BilinearMap(random(7, 9), None, scale=0.5),
        BilinearMap(None, random(3, 6)),
        Mask(random(9, 6), random(9)),
    ):
        moved = move.product(product)
        dense = moved if isinstance(moved, torch.Tensor) else moved.dense()
        assert torch.allclose(dense, move.weight(product.dense())), move
