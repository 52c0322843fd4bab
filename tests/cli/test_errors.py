"""A user's mistake: one line, exit code 2, nothing written, nothing pushed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import datasets
import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file
from support.commands import assert_refused, hf_bico
from support.hub import client_env
from support.world import CLASSES, config, write_dataset, write_model

from hf_bico.core import chain
from hf_bico.io import writer
from hf_bico.tasks.evaluation import Evaluator
from hf_bico.workflows import port as pipeline

WEIGHTS = "open_clip_model.safetensors"


@pytest.fixture
def port(world, tmp_path, capsys, monkeypatch):
    """Runs a port of the tiny world with some words changed, in an empty folder that must stay empty."""
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    words = {
        "source": "demo/ft",
        "--to": "demo/plus",
        "--dataset": "demo/task",
        "-n": "20",
        "--output": "out",
        "--push-to": "demo/never",
    }

    def run(*extra, **changed):
        named = words | {
            {"to": "--to", "dataset": "--dataset", "n": "-n", "base": "--base"}.get(key, key): value
            for key, value in changed.items()
        }
        source = named.pop("source")
        ran = hf_bico(capsys, monkeypatch, "port", source, *(w for pair in named.items() for w in pair), *extra)
        assert not list(empty.iterdir())
        assert not HfApi().repo_exists("demo/never")
        return ran

    return run


@pytest.fixture
def copy(world, tmp_path):
    """A model of the world as a folder of one's own, to break."""

    def make(name: str):
        return shutil.copytree(world / name, tmp_path / f"own-{name}")

    return make


def rewrite(folder, change) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def test_unknown_repo(port):
    assert_refused(port(source="demo/nothing"), "demo/nothing", "not found", "--token")


def test_unknown_revision(port):
    assert_refused(port(source="demo/ft@v9"), "demo/ft@v9", "no such revision")


def test_neither_folder_nor_repo(port):
    assert_refused(port(source="a/b/c"), "'a/b/c'", "neither")


def test_gated_repo(port, world):
    owner = HfApi(token="hf_local_other")
    if not owner.repo_exists("other/gated"):
        owner.create_repo("other/gated")
        owner.upload_folder(folder_path=world / "ft", repo_id="other/gated")
        owner.update_repo_settings("other/gated", gated="manual")
    assert_refused(port(source="other/gated"), "other/gated is gated", "ask for access at", "/other/gated")


def test_private_repo_needs_its_token(port, world, capsys, monkeypatch):
    owner = HfApi(token="hf_local_other")
    owner.create_repo("other/secret", private=True)
    owner.upload_folder(folder_path=world / "plus", repo_id="other/secret")
    assert_refused(port(to="other/secret"), "other/secret", "if it is private")
    ran = hf_bico(
        capsys,
        monkeypatch,
        "port",
        "demo/ft",
        "--to",
        "other/secret",
        "--dataset",
        "demo/task",
        "-n",
        "20",
        "--dry-run",
        "--token",
        "hf_local_other",
    )
    assert ran.code == 0, ran.err


def test_bad_token(port):
    assert_refused(port("--token", "hf_wrong"), "does not accept the token", "hf auth login")


def test_models_of_two_libraries(port):
    api = HfApi()
    api.create_repo("demo/text", exist_ok=True)
    api.upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id="demo/text")
    assert_refused(port(to="demo/text"), "demo/text", "is of transformers", "of open_clip", "models of one library")


def test_no_model_at_all(port, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "README.md").write_text("hello")
    assert_refused(
        port(to=str(tmp_path / "notes")),
        "notes (local folder) is no model that can be opened",
        "neither open_clip_config.json nor config.json",
    )


def test_a_config_of_neither_kind(port, copy):
    folder = copy("plus")
    (folder / "open_clip_config.json").write_text('{"model_cfg": {"embed_dim": 16}}')
    assert_refused(port(to=str(folder)), "own-plus", "not an open_clip CLIP", "no model_cfg with both towers")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"timm_model_name": "resnet50"}, ("timm's resnet50", "vision transformers")),
        ({"timm_model_name": "vit_base_patch16_224"}, ("do not fit its config", "text.text_projection is missing")),
        ({"layers": [1, 1, 1, 1]}, ("is not a vision transformer", "ResNet")),
        ({"attentional_pool": True}, ("attentional pooling", "not supported")),
    ],
)
def test_another_vision_tower(port, copy, change, words):
    folder = copy("plus")
    cfg = json.loads((folder / "open_clip_config.json").read_text())
    cfg["model_cfg"]["vision_cfg"] |= change
    (folder / "open_clip_config.json").write_text(json.dumps(cfg))
    assert_refused(port(to=str(folder)), "own-plus", *words)


def test_pickled_weights(port, copy):
    folder = copy("plus")
    (folder / WEIGHTS).rename(folder / "open_clip_pytorch_model.bin")
    assert_refused(port(to=str(folder)), "only pickled weights", "open_clip_pytorch_model.bin", "can run code")


def test_truncated_weights(port, copy):
    folder = copy("plus")
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])
    assert_refused(port(to=str(folder)), WEIGHTS, "not a readable safetensors file")


def test_weights_that_do_not_fit_their_config(port, copy):
    folder = copy("plus")
    rewrite(folder, lambda tensors: tensors.update({"visual.extra": tensors.pop("visual.proj")}))
    assert_refused(port(to=str(folder)), "do not fit its config", "visual.proj is missing", "visual.extra is unknown")


def test_no_base_named(port, copy):
    folder = copy("ft")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    assert_refused(port(source=str(folder)), "names no base_model", "--base")


def test_base_of_other_shapes(port):
    assert_refused(port(base="demo/plus"), "not a fine-tune of this base", "visual.conv1.weight", "more", "--base")


def test_base_that_is_another_model(port, tmp_path):
    cfg = config(32, 2, 32)
    write_model(tmp_path / "other", cfg, seed=7)
    assert_refused(port(base=str(tmp_path / "other")), "times as large as the base", "not the base of that fine-tune")


def test_base_that_is_the_fine_tune(port):
    assert_refused(port(base="demo/ft"), "are the same")


def test_a_tensor_that_nothing_accounts_for(port, copy):
    base, tuned = copy("base"), copy("ft")
    for folder in (base, tuned):
        rewrite(folder, lambda tensors: tensors.update(adapter=torch.zeros(2)))
    assert_refused(port(source=str(tuned), base=str(base)), "own-ft", "do not fit its config", "adapter is unknown")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_in_the_fine_tune(port, copy, value):
    folder = copy("ft")
    key = "visual.transformer.resblocks.0.mlp.c_fc.weight"
    rewrite(folder, lambda tensors: tensors[key].view(-1)[:1].fill_(value))
    assert_refused(port(source=str(folder)), "NaN or Inf", key)


def test_nan_in_the_target(port, copy):
    folder = copy("plus")
    rewrite(folder, lambda tensors: tensors["visual.conv1.weight"].view(-1)[:1].fill_(float("nan")))
    assert_refused(port(to=str(folder)), "NaN or Inf")


def test_a_broken_target_is_not_written_either_way(port, copy, world, capsys, monkeypatch, tmp_path):
    folder = copy("plus")
    rewrite(folder, lambda tensors: tensors["token_embedding.weight"].view(-1)[-1:].fill_(float("nan")))
    assert_refused(port("--method", "naive", to=str(folder)), "NaN or Inf in token_embedding.weight")
    vector = tmp_path / "new" / "tau.safetensors"
    assert hf_bico(capsys, monkeypatch, "extract", "demo/ft", "--output", vector).code == 0
    broken = copy("base")
    rewrite(broken, lambda tensors: tensors["logit_scale"].fill_(float("inf")))
    ran = hf_bico(capsys, monkeypatch, "apply", vector, "--to", broken, "--output", tmp_path / "sum")
    assert_refused(ran, "NaN or Inf in logit_scale")
    ran = hf_bico(
        capsys, monkeypatch, "apply", vector, "--to", world / "base", "--output", tmp_path / "sum", "--alpha", "1e39"
    )
    assert_refused(ran, "NaN or Inf in")
    assert not (tmp_path / "sum").exists()


@pytest.mark.parametrize("alpha", ["nan", "inf"])
def test_no_scale(port, alpha):
    assert_refused(port("--alpha", alpha), "give a finite number")


def test_neither_scale_nor_auto(port):
    assert_refused(port("--alpha", "best"), "--alpha is a number or auto, not 'best'")


def test_draws_that_cannot_be(world, capsys, monkeypatch, tmp_path):
    words = ("port", "demo/ft", "--to", "demo/plus", "--dataset", "demo/task", "--dry-run")

    def refused(*extra, saying):
        assert_refused(hf_bico(capsys, monkeypatch, *words, *extra), *saying)

    refused("--strategy", "best", saying=("unknown strategy 'best'", "random, class-balanced, centroid-near"))
    refused("--per-class", "2", "-n", "8", saying=("--per-class and -n", "one of them"))
    refused("--per-class", "0", saying=("--per-class 0 asks for no samples",))
    refused("--per-class", "2", "--strategy", "one-class", saying=("--per-class goes with class-balanced",))
    refused("--per-class", "40", saying=("40 samples of every class", "'train'", "'circle' has"))
    refused("--strategy", "one-class", "-n", "59", saying=("59 samples asked for", "one-class (seed 0) has"))
    refused("--strategy", "half-class", "-n", "60", saying=("60 samples asked for", "half-class (seed 0) has"))
    refused("--strategy", "centroid-near", "-n", "61", saying=("61 samples asked for", "'train' has 60"))


@pytest.mark.parametrize("words", [("--create-pr",), ("--private",), ("--commit-message", "hi")])
def test_options_of_a_push_without_one(world, capsys, monkeypatch, words):
    ran = hf_bico(
        capsys, monkeypatch, "port", "demo/ft", "--to", "demo/plus", "--dataset", "demo/task", "-n", "20", *words
    )
    assert_refused(ran, "about a push", "--push")
    assert_refused(
        hf_bico(
            capsys,
            monkeypatch,
            "port",
            "demo/ft",
            "--to",
            "demo/plus",
            "--dataset",
            "demo/task",
            "-n",
            "20",
            "--push-to",
            "",
        ),
        "--push-to needs the name of a repo",
    )


@pytest.mark.parametrize("base", ["123", "{a: b}", "[null]"])
def test_a_base_that_is_no_name(port, copy, base):
    folder = copy("ft")
    (folder / "README.md").write_text(f"---\nbase_model: {base}\n---\n")
    assert_refused(port(source=str(folder)), "names no base_model")


def test_a_token_that_cannot_be_one(port):
    assert_refused(port("--token", "hf_ö x"), "characters that no token has")


def test_a_place_that_cannot_be(port, tmp_path):
    (tmp_path / "file").touch()
    assert_refused(port(**{"--output": str(tmp_path / "file" / "sub" / "x")}), "nothing can be written to", "--output")


def test_extract_refuses_what_port_refuses(world, capsys, monkeypatch, tmp_path):
    write_model(tmp_path / "other", config(32, 2, 32), seed=7)
    words = ("--output", tmp_path / "tau.safetensors")
    ran = hf_bico(capsys, monkeypatch, "extract", "demo/ft", "--base", tmp_path / "other", *words)
    assert_refused(ran, "times as large as the base")
    assert_refused(hf_bico(capsys, monkeypatch, "extract", "demo/base", "--base", "demo/base", *words), "are the same")
    assert not (tmp_path / "tau.safetensors").exists()


def test_a_cached_dataset_does_not_stand_in_for_the_pinned_one(tmp_path):
    """`datasets` falls back to whatever commit it has in its cache when the Hub is gone."""
    from support.hub import start_hub

    write_dataset(tmp_path / "task", {"train": 20, "test": 10})
    script = tmp_path / "script.py"
    script.write_text("""
import os, signal, sys
from huggingface_hub import HfApi
import datasets
from hf_bico import PortError
from hf_bico.tasks.splits import HubDataset
from hf_bico.io.hub import Hub
HfApi().create_repo("demo/task", repo_type="dataset")
HfApi().upload_folder(folder_path=sys.argv[1], repo_id="demo/task", repo_type="dataset")
datasets.load_dataset("demo/task")
pinned = Hub().resolve("demo/task", "dataset")
os.kill(int(sys.argv[2]), signal.SIGKILL)
datasets.config.HF_HUB_OFFLINE = True  # spares the client's half minute of retries
try:
    HubDataset(Hub(), pinned)
except PortError as error:
    print("refused:", error)
""")
    with start_hub(tmp_path / "hub") as own:
        done = subprocess.run(
            [sys.executable, script, tmp_path / "task", str(own.process.pid)],
            text=True,
            env=client_env(own, tmp_path / "home"),
            capture_output=True,
            check=False,
        )
    assert "refused: no answer from" in done.stdout, done


def test_a_card_that_is_no_yaml(port, copy):
    folder = copy("ft")
    (folder / "README.md").write_text("---\nbase_model: [demo/base\n---\n")
    assert_refused(port(source=str(folder)), "card of own-ft", "no readable YAML")


def test_dataset_without_labels(port, tmp_path):
    folder = tmp_path / "plain"
    (folder / "data").mkdir(parents=True)
    write_dataset(tmp_path / "task", {"train": 20, "test": 10})
    table = datasets.load_dataset(str(tmp_path / "task"), split="train").remove_columns("label")
    table.to_parquet(folder / "data" / "train.parquet")
    assert_refused(port(dataset=str(folder)), "has no labels", "--columns label=")


def test_labels_without_names(port, tmp_path):
    write_dataset(
        tmp_path / "task",
        {"train": 30, "test": 10},
        datasets.Features(image=datasets.Image(), label=datasets.Value("int64")),
    )
    assert_refused(port(dataset=str(tmp_path / "task")), "no class names", "classnames.txt")
    (tmp_path / "task" / "classnames.txt").write_text("\n".join(CLASSES[:2]))
    assert_refused(port(dataset=str(tmp_path / "task")), "labels are 0 to 1")


def test_two_images_a_row(port, tmp_path):
    write_dataset(tmp_path / "task", {"train": 30, "test": 10})
    table = datasets.load_dataset(str(tmp_path / "task"), split="train")
    depth = table.select_columns("image").rename_column("image", "depth")
    table = datasets.concatenate_datasets([table, depth], axis=1)
    table.to_parquet(tmp_path / "task" / "data" / "train-00000-of-00001.parquet")
    assert_refused(port(dataset=str(tmp_path / "task")), "several image column", "--columns")


def test_unknown_dataset_and_split(port):
    assert_refused(port(dataset="demo/no-task"), "dataset demo/no-task", "not found")
    assert_refused(port("--split", "training"), "no split 'training'", "train, test")
    assert_refused(port("--eval-split", "train"), "no split to evaluate on beside 'train'")
    assert_refused(port("--eval-n", "31"), "31 samples asked for", "'test' has 30")


def test_an_evaluation_split_without_labels(port, tmp_path):
    write_dataset(tmp_path / "task", {"train": 30, "test": 10})
    table = datasets.load_dataset(str(tmp_path / "task"), split="test").remove_columns("label")
    table.to_parquet(tmp_path / "task" / "data" / "test-00000-of-00001.parquet")
    assert_refused(port(dataset=str(tmp_path / "task")), "label")


def test_more_samples_than_there_are(port):
    assert_refused(port(n="61"), "61 samples asked for", "'train' has 60")
    assert_refused(port(n="0"), "0 samples asked for")


def test_templates_without_a_place_for_the_class(port, tmp_path):
    (tmp_path / "prompts.txt").write_text("a picture\n")
    assert_refused(port("--templates", str(tmp_path / "prompts.txt")), "every prompt template needs one {}")
    (tmp_path / "prompts.txt").write_text("a {photo} of a {}\n")
    assert_refused(port("--templates", str(tmp_path / "prompts.txt")), "no other braces")


def test_unknown_method_and_device(port):
    assert_refused(port("--method", "magic"), "unknown method 'magic'", "bico, best, theseus")
    assert_refused(port("--device", "warp"), "no device 'warp'")
    assert_refused(port("--device", "meta"), "no device 'meta'")


def test_comparisons_that_cannot_be(world, capsys, monkeypatch, tmp_path):
    words = ("compare", "demo/ft", "--to", "demo/plus", "--dataset", "demo/task")

    def refused(*extra, saying):
        assert_refused(hf_bico(capsys, monkeypatch, *words, *extra), *saying)

    refused("--method", "magic", saying=("unknown method 'magic'", "bico"))
    refused("--set", "rtol=1", saying=("--set rtol=1", "METHOD:name=value"))
    refused("--method", "bico", "--set", "naive:rtol=1", saying=("METHOD one of bico",))
    refused("--set", "bico:size=1", saying=("bico has no option 'size'",))
    refused("-n", "61", "-n", "8", saying=("61 samples asked for",))
    refused("-n", "8", "-n", "61", saying=("61 samples asked for",))
    refused("-n", "8", "--per-class", "1", saying=("--per-class and -n",))
    refused("--alpha", "half", saying=("--alpha is a number or auto",))
    refused("-n", "8", "--target-tuned", "demo/nothing", saying=("demo/nothing", "not found"))
    refused("--seeds", "0", saying=("--seeds",))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    refused("-n", "8", "--output", tmp_path / "full", saying=("is no new or empty folder",))


def test_regression_is_not_pushed(world, capsys, monkeypatch, tmp_path):
    """One of these scales is worse than none; it is written, but pushed only on request."""
    words = ("port", "demo/ft", "--to", "demo/plus", "--dataset", "demo/task", "-n", "20")
    alpha = next(
        alpha
        for alpha in ("-4", "4", "-40", "40", "-400", "400")
        if json.loads(hf_bico(capsys, monkeypatch, *words, "--alpha", alpha, "--format", "json").out)["evaluation"][
            "regressed"
        ]
    )
    ran = hf_bico(capsys, monkeypatch, *words, "--alpha", alpha, "--push-to", "demo/worse", "-q")
    assert ran.code == 2
    assert "not pushed: the port scores" in ran.err
    assert "--allow-regression" in ran.err
    assert not HfApi().repo_exists("demo/worse")
    ran = hf_bico(capsys, monkeypatch, *words, "--alpha", alpha, "--output", tmp_path / "out")
    assert ran.code == 0
    assert "worse than its base" in (tmp_path / "out" / "README.md").read_text()


def test_output_that_exists(port, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert_refused(port(**{"--output": str(tmp_path / "full")}), "is no new or empty folder")
    assert_refused(port(**{"--output": "."}), "is no new or empty folder")
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    assert_refused(port(**{"--output": str(tmp_path / "link")}), "is no new or empty folder")


def test_a_repo_of_somebody_else(port):
    assert_refused(port(**{"--push-to": "other/mine"}), "demo may not write to other/mine", "--push-to")


def test_private_cannot_hide_a_public_repo(port, world):
    HfApi().create_repo("demo/open", exist_ok=True)
    assert_refused(port("--private", **{"--push-to": "demo/open"}), "exists and is public")


def test_no_space_is_noticed_before_the_work(port, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(writer.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    assert_refused(port(), "no space left", "MB are needed")


def test_no_space_while_writing(port, tmp_path):
    """A file system of one megabyte, where this machine lets one be made."""
    small = tmp_path / "small"
    small.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        with pytest.raises(writer.PortError, match="no space left"), writer.staged(small / "out") as stage:
            save_file({"big": torch.zeros(10**6)}, stage)
        assert not list(small.iterdir())
    finally:
        subprocess.run(["umount", small], check=True)


def test_missing_option_and_bad_number(world, capsys, monkeypatch):
    assert_refused(hf_bico(capsys, monkeypatch, "port", "demo/ft"), "--to")
    assert_refused(hf_bico(capsys, monkeypatch, "port", "demo/ft", "--to", "x", "--dataset", "y", "-n", "many"), "'-n'")


def child(hub, tmp_path, *words, **changed):
    """The tool as a process of its own."""
    env = client_env(hub, tmp_path / "home") | changed
    return subprocess.Popen(
        [sys.executable, "-c", "from hf_bico.cli.main import main; main()", *map(str, words)],
        env=env,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_no_network(hub, tmp_path):
    process = child(
        hub,
        tmp_path,
        "port",
        "demo/ft",
        "--to",
        "demo/plus",
        "--dataset",
        "demo/task",
        HF_ENDPOINT="http://127.0.0.1:9",
    )
    out, err = process.communicate(timeout=100)
    assert (process.returncode, out, err.count("\n")) == (2, "", 1), err
    assert "no answer from http://127.0.0.1:9" in err


def test_offline_without_a_cache(hub, tmp_path):
    process = child(hub, tmp_path, "port", "demo/ft", "--to", "demo/plus", "--dataset", "demo/task", HF_HUB_OFFLINE="1")
    out, err = process.communicate(timeout=100)
    assert (process.returncode, out, err.count("\n")) == (2, "", 1), err
    assert "HF_HUB_OFFLINE is set" in err


def test_interrupted_by_the_keyboard(hub, world, tmp_path):
    seen = len(hub.log.read_text())
    process = child(
        hub,
        tmp_path,
        "port",
        "demo/ft",
        "--to",
        "demo/plus",
        "--dataset",
        "demo/task",
        "-n",
        "60",
        "--batch-size",
        "1",
        "--output",
        "out",
        "--push-to",
        "demo/interrupted",
    )
    deadline = time.monotonic() + 60
    while "/api/models/demo/ft" not in hub.log.read_text()[seen:] and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Interrupted" in err
    assert {path.name for path in tmp_path.iterdir()} <= {"home"}
    assert not HfApi().repo_exists("demo/interrupted")


@pytest.mark.parametrize(
    ("owner", "name"),
    [(chain, "collect"), (Evaluator, "per_sample"), (pipeline, "write_card"), (HfApi, "create_commit")],
)
def test_interrupted_anywhere(world, capsys, monkeypatch, tmp_path, owner, name):
    """During the calibration, the evaluation, the writing and the upload: no folder, no repo, nothing beside them."""

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, name, interrupt)
    place = tmp_path / "out"
    keep = ("--output", place) if name != "create_commit" else ()
    ran = hf_bico(
        capsys,
        monkeypatch,
        "port",
        "demo/ft",
        "--to",
        "demo/plus",
        "--dataset",
        "demo/task",
        "-n",
        "20",
        "--push-to",
        "demo/half",
        "--allow-regression",
        *keep,
    )
    assert ran.code == 130
    *stages, last = ran.err.splitlines()
    assert last == "Interrupted; nothing was left half-written"
    assert all(line.endswith(" …") for line in stages), ran.err
    assert not list(tmp_path.iterdir())
    assert not HfApi().repo_exists("demo/half")


def test_a_token_is_nowhere(hub, world, tmp_path):
    token = "hf_local_other"
    process = child(
        hub,
        tmp_path,
        "port",
        "demo/ft",
        "--to",
        "demo/plus",
        "--dataset",
        "demo/task",
        "-n",
        "20",
        "--output",
        "out",
        "--push-to",
        "other/tokens",
        "--allow-regression",
        "--token",
        token,
        "--format",
        "json",
        HF_TOKEN="",
        HF_DEBUG="1",
    )
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert token not in out + err + hub.log.read_text()
    for folder, _, names in os.walk(tmp_path):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                assert token.encode() not in file.read(), name
    assert HfApi().repo_exists("other/tokens")
