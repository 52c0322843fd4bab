"""Draws: by seed, without reading the whole split, the same from every kind of file."""

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from support.datasets import opened, random_draw
from support.world import CLASSES, write_dataset

from hf_bico import PortError
from hf_bico.io.hub import Hub
from hf_bico.tasks.columns import Columns, SampleKind
from hf_bico.tasks.samples import choose, classes_of, read_task, samples_of
from hf_bico.tasks.splits import ArrowSplit, HubDataset, ParquetSplit
from hf_bico.tasks.strategies import Calibration


def test_task_is_found_from_features_and_files(folder):
    dataset = opened(folder)
    task = read_task(dataset, dataset.split("train"), {}, None)
    assert task.columns == Columns(SampleKind.IMAGE, {"image": "image", "label": "label"})
    assert task.class_names == ("circle", "square", "stripe up", "stripe down")
    assert task.templates == ("a {}.", "a drawing of a {}.")


def test_parquet_rows_are_what_datasets_reads(folder):
    dataset = opened(folder)
    split = dataset.split("train")
    assert isinstance(split, ParquetSplit)
    task = read_task(dataset, split, {}, None)
    arrow = ArrowSplit(datasets.load_dataset(str(folder), split="train"))
    assert split.num_rows == arrow.num_rows == 400
    indices = [0, 9, 10, 57, 399]
    for ours, theirs in zip(samples_of(split, indices, task), samples_of(arrow, indices, task), strict=True):
        assert ours.label == theirs.label
        assert ours.inputs.tobytes() == theirs.inputs.tobytes()


def test_draw_depends_on_the_seed_alone(folder):
    dataset = opened(folder)
    task = read_task(dataset, dataset.split("train"), {}, None)
    split = dataset.split("train")
    first, again, other = (random_draw(split, task, 25, seed) for seed in (3, 3, 4))
    assert first.indices == tuple(sorted(np.random.default_rng(3).choice(400, 25, replace=False)))
    assert first.sha256 == again.sha256
    assert first.indices == again.indices
    assert len(set(first.indices)) == 25
    assert first.sha256 != other.sha256
    assert set(choose(dataset.split("train"), "train", 400, 0)) == set(range(400))


def test_a_draw_does_not_read_the_whole_split(folder, hub):
    """Bytes over HTTP for three samples of forty row groups, against the size of the file."""
    from huggingface_hub import HfApi, HfFileSystem

    HfApi().create_repo("demo/many", repo_type="dataset")
    HfApi().upload_folder(folder_path=folder, repo_id="demo/many", repo_type="dataset")
    dataset = HubDataset(Hub(), Hub().resolve("demo/many", "dataset"))
    read = []
    original = HfFileSystem._open

    def counting(self, *args, **kwargs):
        file = original(self, *args, **kwargs)
        fetch = file._fetch_range
        file._fetch_range = lambda start, end: (read.append(end - start), fetch(start, end))[1]
        file.cache.fetcher = file._fetch_range
        return file

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HfFileSystem, "_open", counting)
        split = dataset.split("train")
        task = read_task(dataset, split, {}, None)
        assert len(random_draw(split, task, 3).samples) == 3
    size = (folder / "data" / "train-00000-of-00001.parquet").stat().st_size
    assert 0 < sum(read) < size / 3


def test_features_of_the_card_serve_parquet_that_has_none(tmp_path, folder):
    write_dataset(tmp_path / "bare", {"train": 20, "test": 10})
    for path in (tmp_path / "bare" / "data").iterdir():
        pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    names = "".join(f"          '{i}': {name}\n" for i, name in enumerate(CLASSES))
    (tmp_path / "bare" / "README.md").write_text(
        "---\ndataset_info:\n  features:\n  - name: image\n    dtype: image\n  - name: label\n    dtype:\n"
        f"      class_label:\n        names:\n{names}---\n"
    )
    dataset = opened(tmp_path / "bare")
    split = dataset.split("train")
    assert len(random_draw(split, read_task(dataset, split, {}, None), 5).samples) == 5


def test_an_image_folder_serves_as_well(tmp_path, folder):
    table = datasets.load_dataset(str(folder), split="test")
    for split, start in (("train", 0), ("test", 20)):
        for number in range(start, start + 10):
            row = table[number]
            path = tmp_path / "images" / split / CLASSES[row["label"]]
            path.mkdir(parents=True, exist_ok=True)
            row["image"].save(path / f"{number}.png")
    dataset = opened(tmp_path / "images")
    split = dataset.split("train")
    assert isinstance(split, ArrowSplit)
    task = read_task(dataset, split, {}, None)
    assert set(task.class_names) <= {name.replace("_", " ") for name in CLASSES}
    assert task.templates == ("a photo of a {}.",)
    assert len(random_draw(split, task, 5).samples) == 5
    assert split.column("label") == [row["label"] for row in split.dataset]


def test_several_configurations_must_be_chosen_from(tmp_path, folder):
    (tmp_path / "two").mkdir()
    for name in ("one", "two"):
        write_dataset(tmp_path / "two" / name, {"train": 10, "test": 10})
    (tmp_path / "two" / "README.md").write_text(
        "---\nconfigs:\n- config_name: one\n  data_dir: one/data\n- config_name: two\n  data_dir: two/data\n---\n"
    )
    with pytest.raises(PortError, match=r"one.*two"):
        opened(tmp_path / "two")


def test_labels_are_read_without_their_images(folder, monkeypatch):
    dataset = opened(folder)
    split = dataset.split("train")
    task = read_task(dataset, split, {}, None)
    columns = []
    monkeypatch.setattr(
        pq.ParquetFile,
        "read",
        lambda self, right=pq.ParquetFile.read, **words: (columns.extend(words["columns"]), right(self, **words))[1],
    )
    labels = classes_of(split, task, Calibration(strategy="one-class"))
    assert columns == ["label"]
    assert labels.tolist() == [sample.label for sample in samples_of(split, range(400), task)]
    assert not classes_of(split, task, Calibration()).any()
    assert columns == ["label"]
