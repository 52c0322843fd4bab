"""Every kind of sample is read, hashed by its content, and streamed no further than it must be."""

import json
from pathlib import Path

import datasets
import pytest
from support.datasets import opened, random_draw
from support.world import CLASSES

from hf_bico import PortError
from hf_bico.io.hub import Hub
from hf_bico.tasks import labels, splits
from hf_bico.tasks.columns import Columns, SampleKind
from hf_bico.tasks.samples import check_columns, choose, classes_of, read_task, samples_of
from hf_bico.tasks.splits import HubDataset, ParquetSplit, StreamedSplit
from hf_bico.tasks.strategies import Calibration

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
        ({"messages": [CHAT]}, {"messages": [CHAT[1:]]}),
        ({"messages": [CHAT]}, {"messages": [[CHAT[0] | {"role": "system"}, CHAT[1]]]}),
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
        asked(in_lines(tmp_path / "a", {"text": ["a", "b"], "label": [None, None]}))
    many = {"text": ["a"] * 1200, "label": [f"{i}" for i in range(1200)]}
    with pytest.raises(PortError, match="1200 different values: make it a ClassLabel"):
        asked(in_lines(tmp_path / "b", many))
    monkeypatch.setattr(labels, "READ_WHOLE", 1000)
    with pytest.raises(
        PortError, match=r"1200 rows are too many to learn them from: make it a ClassLabel, or put a class"
    ):
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
