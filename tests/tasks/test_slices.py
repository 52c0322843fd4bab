"""Parts of splits: slices as `datasets` has them, and a split that is always divided in the same way."""

import json

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from support.datasets import opened

from hf_bico import PortError
from hf_bico.core.notes import noted
from hf_bico.tasks import splits
from hf_bico.tasks.samples import read_task, samples_of
from hf_bico.tasks.slices import HELD, REST, Part
from hf_bico.tasks.splits import HubDataset
from hf_bico.workflows.reading import Parts, parts_of, scored_parts

SLICES = (
    "train[:80%]",
    "train[80%:]",
    "train[100:200]",
    "train[-50%:]",
    "train[:-390]",
    "train[:10%](pct1_dropremainder)",
)


def texts(folder, **rows: int):
    """Splits of texts that are numbered, in JSON lines."""
    (folder / "data").mkdir(parents=True)
    for name, n in rows.items():
        lines = [json.dumps({"text": f"{name} {i}"}) for i in range(n)]
        (folder / "data" / f"{name}-00000-of-00001.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def numbers(split) -> list[int]:
    return [int(row["text"].split()[1]) for row in split.rows(range(split.num_rows), ["text"])]


@pytest.mark.parametrize("name", [each for each in SLICES if "(" not in each])
def test_a_slice_is_that_of_datasets(folder, tmp_path, name):
    """Of parquet, and of files that `datasets` brings into its cache."""
    theirs = datasets.load_dataset(str(folder), split=name)
    ours = opened(folder).split(name)
    assert ours.num_rows == theirs.num_rows > 0
    assert ours.column("label") == theirs["label"]
    last = ours.num_rows - 1
    found = list(ours.rows([0, last], ["image", "label"]))
    assert [row["image"].tobytes() for row in found] == [theirs[i]["image"].tobytes() for i in (0, last)]
    lines = opened(texts(tmp_path / "lines", train=400)).split(name)
    place = next((tmp_path / "lines" / "data").iterdir())
    assert numbers(lines) == [
        int(t.split()[1]) for t in datasets.load_dataset("json", data_files=str(place), split=name)["text"]
    ]


def test_of_a_slice_no_other_rows_are_read(folder, monkeypatch):
    """By the row groups of 10 that parquet is asked for."""
    read = []
    right = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_group", lambda self, i, **words: (read.append(i), right(self, i, **words))[1]
    )
    split = opened(folder).split("train[100:130]", whole=True)
    list(split.rows(range(30), ["image"]))
    assert read == [10, 11, 12]


def test_files_are_fetched_whole_for_more_than_a_small_slice(folder, monkeypatch):
    dataset, fetched = opened(folder), []
    monkeypatch.setattr(dataset, "_here", lambda urls: (fetched.append(name), urls)[1])
    for name, whole in (("train[:5%]", True), ("train[:50%]", False), ("train[:50%]", True), ("train", True)):
        dataset.split(name, whole=whole)
    assert fetched == ["train[:50%]", "train"]


def test_of_a_streamed_slice_no_later_rows_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(splits, "WINDOW", 40)
    hub = opened(texts(tmp_path / "lines", train=400))
    dataset = HubDataset(hub.hub, hub.pinned, streaming=True)
    assert numbers(dataset.split("train[5:9]")) == [5, 6, 7, 8]
    assert numbers(dataset.split("train[100:200]")) == list(range(100, 140))
    for name in ("train[:10%]", "train[-5:]"):
        with pytest.raises(PortError, match=r"nobody says how many rows the streamed split 'train' has"):
            dataset.split(name)
    assert set(numbers(dataset.split("train[held-out]"))) == set(Part("train", HELD).rows(400)) & set(range(40))


@pytest.mark.parametrize("name", ["train[", "train[:1]x", "train[a:b]", "train[held out]", "[:3]", "train[5:5]"])
def test_what_is_no_part_is_refused(tmp_path, name):
    with pytest.raises(PortError, match=r"split"):
        opened(texts(tmp_path / "lines", train=10)).split(name)


@pytest.mark.parametrize("rows", [2, 3, 7, 100, 5000])
def test_a_split_is_divided_into_two_parts_that_are_the_whole(rows):
    held, rest = (Part("train", part).rows(rows) for part in (HELD, REST))
    assert held and rest and sorted(held + rest) == list(range(rows))
    assert held == Part("other", HELD).rows(rows)
    if rows > 50:
        assert len(held) == pytest.approx(rows / 5, rel=0.3)
        assert np.corrcoef(np.arange(rows), np.isin(np.arange(rows), held))[0, 1] == pytest.approx(0, abs=0.2)


def test_rows_that_are_added_change_nothing_before_them():
    held = Part("train", HELD).rows(1000)
    assert held == [row for row in Part("train", HELD).rows(1700) if row < 1000]


def test_one_row_cannot_be_divided():
    with pytest.raises(PortError, match="'train' has 1 rows: too few to hold some out"):
        Part("train", REST).rows(1)


def test_some_rows_are_held_out_where_there_is_one_split(tmp_path):
    alone = opened(texts(tmp_path / "alone", train=50))
    with noted() as lines:
        assert parts_of(alone, "train", None) == Parts("train[rest]", ("train[held-out]",))
        assert scored_parts(alone, None) == ("train[held-out]",)
    assert len(lines) == 1
    assert "no test or validation split: one in five rows of 'train' is held out to score on" in lines[0]
    assert parts_of(alone, "train[rest]", None) == parts_of(alone, "train", None)
    assert not set(numbers(alone.split("train[rest]"))) & set(numbers(alone.split("train[held-out]")))
    with pytest.raises(PortError, match=r"no split to evaluate on beside 'train\[:80%\]'"):
        parts_of(alone, "train[:80%]", None)
    assert parts_of(alone, "train[:80%]", "train[80%:]") == Parts("train[:80%]", ("train[80%:]",))


def test_where_there_are_others_nothing_is_held_out(tmp_path):
    both = opened(texts(tmp_path / "both", train=9, validation=9, test=9))
    with noted() as lines:
        assert parts_of(both, "train", None) == Parts("train", ("test", "validation"))
        assert parts_of(both, "test", None) == Parts("test", ("validation",))
        assert parts_of(both, "train[:5]", None) == Parts("train[:5]", ("test", "validation"))
        assert scored_parts(both, None) == ("test", "validation")
        assert scored_parts(both, "train[:3]") == ("train[:3]",)
    assert lines == []
    odd = opened(texts(tmp_path / "odd", train=9, extra=9))
    with noted() as lines:
        assert parts_of(odd, "train", None).scored == ("train[held-out]",)
    assert lines[0].endswith("; eval_split= names another split (extra)")
    none = opened(texts(tmp_path / "none", one=9, two=9))
    with pytest.raises(PortError, match="no test or validation split: name one with split=; it has one, two"):
        scored_parts(none, None)


def test_classes_are_those_of_the_whole_split(tmp_path):
    """Rows that are sorted by class, as many are."""
    from hf_bico.workflows.config import PortConfig
    from hf_bico.workflows.reading import read_split

    (tmp_path / "set").mkdir()
    rows = {"text": [f"text {i}" for i in range(30)], "label": ["a"] * 10 + ["b"] * 10 + ["c"] * 10}
    datasets.Dataset.from_dict(rows).to_json(tmp_path / "set" / "train.jsonl")
    dataset = opened(tmp_path / "set")
    split, task = read_split(PortConfig("a", "b", "c"), dataset, "train[:15]", {})
    assert task.class_names == ("a", "b", "c")
    assert [sample.label for sample in samples_of(split, [0, 14], task)] == [0, 1]
    assert read_task(dataset, split, {}, None).class_names == ("a", "b")
