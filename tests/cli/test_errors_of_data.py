"""Datasets, samples and methods that cannot serve are refused in one line."""

import subprocess
import sys

import datasets
from support.commands import assert_refused, hf_bico
from support.hub import client_env
from support.world import CLASSES, write_dataset


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
    assert_refused(port("--eval-split", "train"), "--eval-split train is what the calibration samples are drawn from")
    assert_refused(port("--eval-split", "dev"), "no split 'dev'", "train, test")
    assert_refused(port("--split", "train[:200%"), "'train[:200%' is not of the form train, train[:80%]")
    assert_refused(port("--split", "train[half]"), "'train[half]': give train[:80%], train[100:200]")
    assert_refused(port("--split", "train[70:]"), "no row in the split 'train[70:]'; 'train' has 60")
    assert_refused(port("--eval-n", "31"), "31 samples asked for", "'test' has 30")
    assert_refused(port("--score-dtype", "int8"), "--score-dtype = 'int8'", "bfloat16 or float16")


def test_an_evaluation_split_without_labels(port, tmp_path):
    write_dataset(tmp_path / "task", {"train": 30, "test": 10})
    table = datasets.load_dataset(str(tmp_path / "task"), split="test").remove_columns("label")
    table.to_parquet(tmp_path / "task" / "data" / "test-00000-of-00001.parquet")
    assert_refused(port(dataset=str(tmp_path / "task")), "label")


def test_more_samples_than_there_are(port):
    assert_refused(port(n="61"), "61 samples asked for", "'train' has 60")
    assert_refused(port(n="0"), "-n 0 asks for no samples")


def test_templates_without_a_place_for_the_class(port, tmp_path):
    (tmp_path / "prompts.txt").write_text("a picture\n")
    assert_refused(port("--templates", str(tmp_path / "prompts.txt")), "every prompt template needs one {}")
    (tmp_path / "prompts.txt").write_text("a {photo} of a {}\n")
    assert_refused(port("--templates", str(tmp_path / "prompts.txt")), "no other braces")


def test_unknown_method_and_device(port):
    assert_refused(port("--method", "magic"), "unknown method 'magic'", "auto, bico, weighted, theseus")
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
    refused("-n", "8", "--output", tmp_path / "full", saying=("is not a new or empty folder",))
