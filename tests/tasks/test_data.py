"""Draws: by seed, without reading the whole split, the same from every kind of file."""

import json
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from support.world import CLASSES, write_dataset

from hf_bico import PortError
from hf_bico.io.hub import Hub
from hf_bico.tasks import samples as data
from hf_bico.tasks import splits, strategies
from hf_bico.tasks.columns import Columns, SampleKind
from hf_bico.tasks.samples import check_columns, choose, classes_of, draw, read_task, samples_of
from hf_bico.tasks.splits import ArrowSplit, HubDataset, ParquetSplit, StreamedSplit
from hf_bico.tasks.strategies import BALANCED, STRATEGIES, Calibration, chosen


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "task"
    write_dataset(path, {"train": 400, "test": 30}, group=10)
    return path


def opened(folder):
    hub = Hub()
    return HubDataset(hub, hub.resolve(str(folder), "dataset"))


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


def random_draw(split, task, n: int, seed: int = 0):
    chosen = Calibration(n=n, seed=seed)
    return draw(split, "train", task, chosen, classes_of(split, task, chosen))


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


@pytest.fixture
def crowd():
    """300 labels of five classes of unequal size, with features."""
    generator = np.random.default_rng(0)
    labels = generator.choice(5, 300, p=[0.4, 0.3, 0.2, 0.08, 0.02])
    return labels, generator.normal(size=(300, 6))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_strategy_draws_the_same_by_the_same_seed(crowd, strategy):
    labels, features = crowd
    first, again, other = (chosen(labels, strategy, 5, seed, lambda i: features[i]) for seed in (3, 3, 4))
    assert first == again
    assert list(first) == sorted(set(first))
    assert len(first) == 5
    assert (first != other) or strategy.startswith("centroid")


@pytest.mark.parametrize("strategy", BALANCED)
@pytest.mark.parametrize("n", [1, 5, 7, 20, 60])
def test_balanced_is_as_equal_as_can_be(crowd, strategy, n):
    labels, features = crowd
    sizes = np.bincount(labels)
    counts = np.bincount(labels[list(chosen(labels, strategy, n, 1, lambda i: features[i]))], minlength=5)
    assert counts.sum() == n
    level = max(counts)
    assert all(count >= level - 1 or count == size for count, size in zip(counts, sizes, strict=True))


def test_near_is_nearest_and_far_is_farthest(crowd):
    labels, features = crowd
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    for strategy, sign in (("centroid-near", 1), ("centroid-far", -1)):
        picked = set(chosen(labels, strategy, 25, 0, lambda i: features[i]))
        for label in range(5):
            own = np.flatnonzero(labels == label)
            distance = sign * np.linalg.norm(units[own] - units[own].mean(0), axis=1)
            mine = np.isin(own, list(picked))
            assert mine.all() or distance[mine].max() <= distance[~mine].min()


def test_a_huge_split_is_not_embedded_whole(crowd, monkeypatch):
    labels, features = crowd
    monkeypatch.setattr(strategies, "POOL", 40)
    seen = []
    picked = chosen(labels, "centroid-near", 10, 0, lambda i: (seen.extend(i), features[i])[1])
    assert len(seen) == len(set(seen)) == 40
    assert set(picked) < set(seen)


def test_classes_of_half_and_one(crowd):
    labels, _ = crowd
    draws = {
        strategy: [labels[list(chosen(labels, strategy, 5, seed))] for seed in range(12)]
        for strategy in ("half-class", "one-class")
    }
    assert all(len(set(drawn)) <= 2 for drawn in draws["half-class"])
    assert any(len(set(drawn)) == 2 for drawn in draws["half-class"])
    assert all(len(set(drawn)) == 1 for drawn in draws["one-class"])
    assert len({drawn[0] for drawn in draws["one-class"]}) > 1


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


CHAT = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Ünd darum."}]
KINDS = {
    "text": ({"text": ["a b", "c", "dé"], "label": [1, 0, 1]}, ("0", "1"), ("a b", 1)),
    "names of classes": ({"text": ["a b", "c", "dé"], "label": ["x_y", "b", "x_y"]}, ("b", "x_y"), ("a b", 1)),
    "text pair": (
        {"premise": ["a", "b", "c"], "hypothesis": ["d", "e", "f"], "label": [2, 0, 1]},
        ("0", "1", "2"),
        (("a", "d"), 2),
    ),
    "plain text": ({"text": ["a b", "c", "dé"]}, (), ("a b", None)),
    "chat": ({"messages": [CHAT] * 3}, (), (tuple(CHAT), None)),
    "chat of the other form": (
        {"conversations": [[{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Ünd darum."}]] * 3},
        (),
        (tuple(CHAT), None),
    ),
    "prompt and completion": ({"prompt": ["a", "b", "c"], "completion": ["x", "y", "z"]}, (), ("a", "x")),
}


def in_lines(folder, columns: dict, split: str = "train"):
    """A dataset of JSON lines."""
    folder.mkdir(exist_ok=True)
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def asked(folder, streaming: bool = False, named: dict | None = None):
    hub = Hub()
    dataset = HubDataset(hub, hub.resolve(str(folder), "dataset"), streaming=streaming)
    split = dataset.split("train")
    return split, read_task(dataset, split, named or {}, None)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(("columns", "classes", "first"), KINDS.values(), ids=KINDS)
def test_every_kind_of_sample_is_read(tmp_path, columns, classes, first, streaming):
    split, task = asked(in_lines(tmp_path / "set", columns), streaming)
    assert task.class_names == classes
    assert task.templates == ()
    samples = list(samples_of(split, [0, 2], task))
    assert (samples[0].inputs, samples[0].label) == first
    assert len(samples) == 2
    if classes:
        labels = classes_of(split, task, Calibration(per_class=1))
        assert labels.tolist() == [sample.label for sample in samples_of(split, range(3), task)]
    else:
        with pytest.raises(PortError, match=r"class-balanced goes by class.*have none: use random"):
            classes_of(split, task, Calibration(per_class=1))


@pytest.mark.parametrize(
    ("columns", "changed"),
    [
        ({"text": ["a"], "label": [1]}, {"text": ["b"], "label": [1]}),
        ({"text": ["a", "b"], "label": ["u", "v"]}, {"text": ["a", "b"], "label": ["v", "u"]}),
        (
            {"premise": ["ab"], "hypothesis": ["c"], "label": [0]},
            {"premise": ["a"], "hypothesis": ["bc"], "label": [0]},
        ),
        ({"prompt": ["ab"], "completion": ["c"]}, {"prompt": ["a"], "completion": ["bc"]}),
        ({"messages": [CHAT]}, {"messages": [CHAT[:1]]}),
        ({"messages": [CHAT]}, {"messages": [[CHAT[0], CHAT[1] | {"role": "user"}]]}),
    ],
)
def test_the_hash_is_of_the_content_alone(tmp_path, columns, changed):
    hashes = []
    for number, some in enumerate((columns, columns, changed)):
        split, task = asked(in_lines(tmp_path / f"{number}", some))
        hashes.append(random_draw(split, task, split.num_rows).sha256)
    assert hashes[0] == hashes[1] != hashes[2]


def test_the_order_of_a_messages_keys_is_no_content(tmp_path):
    turned = [dict(reversed(message.items())) for message in CHAT]
    hashes = {
        random_draw(*asked(in_lines(tmp_path / str(number), {"messages": [chat]})), 1).sha256
        for number, chat in enumerate((CHAT, turned))
    }
    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("columns", "what"),
    [
        ({"text": ["a", "  "], "label": [0, 1]}, "row 1 has no text"),
        ({"text": ["a", None], "label": [0, 1]}, "row 1 has no text"),
        ({"premise": ["a", "b"], "hypothesis": ["a", ""], "label": [0, 1]}, "row 1 has no second text"),
        ({"text": ["a", "b"], "label": ["x", None]}, "row 1 has label None"),
        ({"text": ["a", "b"], "label": [0, -1]}, "row 1 has label -1; labels are 0 to 0"),
        ({"prompt": ["a", ""], "completion": ["a", "b"]}, "row 1 has no prompt"),
        ({"prompt": ["a", "b"], "completion": ["a", ""]}, "row 1 has no completion"),
        ({"messages": [CHAT, []]}, "row 1 has no messages"),
        ({"messages": [CHAT, [{"role": "user", "content": None}]]}, "row 1 has no messages, or one that is no text"),
    ],
)
def test_a_row_without_what_is_asked_is_refused(tmp_path, columns, what):
    split, task = asked(in_lines(tmp_path / "set", columns))
    assert len(list(samples_of(split, [0], task))) == 1
    with pytest.raises(PortError, match=what):
        list(samples_of(split, [0, 1], task))


def test_labels_that_are_no_classes_are_refused(tmp_path, monkeypatch):
    with pytest.raises(PortError, match=r"\(label\) are no classes: name another column"):
        asked(in_lines(tmp_path / "a", {"text": ["a", "b"], "label": [0.5, 1.5]}))
    many = {"text": ["a"] * 1200, "label": [f"{i}" for i in range(1200)]}
    with pytest.raises(PortError, match="1200 different values: make it a ClassLabel"):
        asked(in_lines(tmp_path / "b", many))
    monkeypatch.setattr(data, "READ_WHOLE", 1000)
    with pytest.raises(PortError, match=r"1200 are too many to learn them from: make it a ClassLabel, or put a class"):
        asked(in_lines(tmp_path / "c", many))
    (tmp_path / "c" / "classnames.txt").write_text("".join(f"{i}\n" for i in reversed(range(1200))))
    split, task = asked(tmp_path / "c")
    assert [sample.label for sample in samples_of(split, [0, 1199], task)] == [1199, 0]


def test_images_without_labels_and_texts_with_templates(tmp_path, folder):
    table = datasets.load_dataset(str(folder), split="test").remove_columns("label")
    table.to_parquet(str(tmp_path / "bare" / "train.parquet"))
    split, task = asked(tmp_path / "bare")
    assert task.columns == Columns(SampleKind.IMAGE, {"image": "image"})
    assert task.class_names == ()
    assert [sample.label for sample in random_draw(split, task, 4).samples] == [None] * 4
    dataset = opened(in_lines(tmp_path / "text", {"text": ["a"]}))
    with pytest.raises(PortError, match="templates= are for images"):
        read_task(dataset, dataset.split("train"), {}, tmp_path / "some.txt")


def test_columns_of_another_split_are_checked(tmp_path):
    in_lines(tmp_path / "set", {"text": ["a"], "label": [0]})
    split, task = asked(tmp_path / "set")
    check_columns(split, "train", task.columns)
    other, _ = asked(in_lines(tmp_path / "other", {"text": ["a"]}))
    with pytest.raises(PortError, match="the split 'test' has no column 'label'; it has text"):
        check_columns(other, "test", task.columns)


def test_a_stream_is_read_no_further_than_its_window(tmp_path, monkeypatch):
    """By rows of a generator that counts them, and the same samples as from the whole."""
    monkeypatch.setattr(splits, "WINDOW", 40)
    in_lines(tmp_path / "set", {"text": [f"text {i}" for i in range(100)], "label": [i % 3 for i in range(100)]})
    (whole, task), (split, same_task) = asked(tmp_path / "set"), asked(tmp_path / "set", streaming=True)
    assert isinstance(split, StreamedSplit)
    assert (whole.num_rows, whole.window, split.num_rows, split.window) == (100, None, 40, 40)
    assert task == same_task
    drawn, again = (random_draw(split, task, 10, 1) for _ in range(2))
    assert drawn.record()["window"] == 40
    assert "window" not in random_draw(whole, task, 10, 1).record()
    assert drawn.record() == again.record()
    assert max(drawn.indices) < 40
    assert list(drawn.samples) == list(samples_of(whole, drawn.indices, task))
    with pytest.raises(PortError, match=r"41 samples asked for, .* has 40"):
        choose(split, "train", 41, 0)

    seen = []
    stream = datasets.IterableDataset.from_generator(lambda: ((seen.append(i), {"text": "a"})[1] for i in range(99)))
    assert StreamedSplit(stream, 7).num_rows == 7
    assert len(seen) <= 14  # once for the features at most


def test_images_of_a_stream_wait_undecoded(tmp_path, folder):
    table = datasets.load_dataset(str(folder), split="test")
    for number, row in enumerate(table):
        path = tmp_path / "images" / "train" / CLASSES[row["label"]]
        path.mkdir(parents=True, exist_ok=True)
        row["image"].save(path / f"{number}.png")
    (split, task), (stream, _) = (asked(tmp_path / "images", streaming) for streaming in (False, True))
    assert isinstance(stream, StreamedSplit)
    assert stream.num_rows == split.num_rows == 30
    ours, theirs = (draw_all.sha256 for draw_all in (random_draw(stream, task, 30), random_draw(split, task, 30)))
    assert ours == theirs


def test_parquet_is_not_streamed(folder):
    hub = Hub()
    split = HubDataset(hub, hub.resolve(str(folder), "dataset"), streaming=True).split("train")
    assert isinstance(split, ParquetSplit)
    assert (split.num_rows, split.window) == (400, None)


def test_a_stream_comes_from_the_hub_in_part(tmp_path, hub, monkeypatch):
    """Bytes of a large file of JSON lines that were asked for."""
    from huggingface_hub import HfApi

    monkeypatch.setattr(splits, "WINDOW", 50)
    in_lines(tmp_path / "lines", {"text": ["word " * 2000] * 4000, "label": [0, 1] * 2000})
    HfApi().create_repo("demo/lines", repo_type="dataset")
    HfApi().upload_folder(folder_path=tmp_path / "lines", repo_id="demo/lines", repo_type="dataset")
    split = HubDataset(Hub(), Hub().resolve("demo/lines", "dataset"), streaming=True).split("train")
    assert split.num_rows == 50
    assert next(split.rows([49], ["text"]))["text"].startswith("word ")
    cached = [
        path
        for path in Path(datasets.config.HF_CACHE_HOME).rglob("*")
        if path.is_file() and path.stat().st_size > 2**25
    ]
    assert not cached  # 40 MB were not brought here
