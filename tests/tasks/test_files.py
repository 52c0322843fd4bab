"""A single file of samples, on this disk or in a repo, gives what a folder of the same rows gives."""

import json

import datasets
import pytest
from huggingface_hub import HfApi
from support.datasets import opened

from hf_bico import PortError
from hf_bico.io.hub import Hub
from hf_bico.io.reference import Reference
from hf_bico.tasks.samples import read_task, samples_of
from hf_bico.tasks.splits import HubDataset, ParquetSplit

ROWS = [{"text": f'a text, number {i}\tof "some"', "label": ("no", "yes")[i % 2]} for i in range(12)]
WRITERS = {
    "rows.csv": lambda table, path: table.to_csv(path, index=False),
    "rows [1].csv": lambda table, path: table.to_csv(path, index=False),
    "rows.tsv": lambda table, path: table.to_csv(path, index=False, sep="\t"),
    "rows.jsonl": lambda table, path: table.to_json(path),
    "rows.json": lambda table, path: path.write_text(json.dumps(ROWS)),
    "Rows.PARQUET": lambda table, path: table.to_parquet(path),
}


def write(folder, name: str):
    WRITERS[name](datasets.Dataset.from_list(ROWS), folder / name)
    return folder / name


def read(dataset) -> list[tuple]:
    split = dataset.split("train")
    task = read_task(dataset, split, {}, None)
    return [(sample.inputs, task.class_names[sample.label]) for sample in samples_of(split, range(12), task)]


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_gives_its_rows(tmp_path, name):
    dataset = opened(write(tmp_path, name))
    (tmp_path / "README.md").write_text("---\nconfigs: [nonsense\n---\n")  # is not the file's
    assert dataset.splits == ["train"] and dataset.config is None
    assert read(dataset) == [(row["text"], row["label"]) for row in ROWS]
    assert str(dataset.pinned) == f"{name} (local file)"
    assert isinstance(dataset.split("train"), ParquetSplit) is name.lower().endswith("parquet")
    assert dataset.split("train[:50%]").num_rows == 6
    streamed = HubDataset(dataset.hub, dataset.pinned, streaming=True)
    assert read(streamed) == read(dataset)


def test_a_file_that_changes_is_read_anew(tmp_path):
    first = read(opened(write(tmp_path, "rows.csv")))
    (tmp_path / "rows.csv").write_text((tmp_path / "rows.csv").read_text().replace("number 3", "number three"))
    assert read(opened(tmp_path / "rows.csv"))[3][0] != first[3][0]


def test_class_names_may_lie_beside_a_file(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text,label\nx,0\ny,1\n")
    (tmp_path / "classnames.txt").write_text("left\nright\n")
    dataset = opened(path)
    assert read_task(dataset, dataset.split("train"), {}, None).class_names == ("left", "right")


@pytest.mark.parametrize("name", ["rows.csv", "Rows.PARQUET"])
def test_a_file_in_a_repo(hub, tmp_path, name):
    api, repo = HfApi(), f"demo/files-{name.split('.')[1].lower()}"
    (tmp_path / "part").mkdir()
    write(tmp_path / "part", name)
    api.create_repo(repo, repo_type="dataset")
    api.upload_folder(folder_path=tmp_path, repo_id=repo, repo_type="dataset")
    own, commit = Hub(), api.dataset_info(repo).sha
    for text in (f"{repo}:part/{name}", f"{repo}@{commit}:part/{name}", f"hf://{repo}:part/{name}"):
        pinned = own.resolve(text, "dataset")
        assert str(pinned) == f"{repo}@{commit}:part/{name}"
    dataset = HubDataset(own, pinned)
    assert read(dataset) == [(row["text"], row["label"]) for row in ROWS]
    assert dataset.split("train", whole=True).num_rows == 12
    with pytest.raises(
        PortError, match=rf"{repo}@\w+ has no file 'other.csv'; it has part/{name}|it has none of samples"
    ):
        own.resolve(f"{repo}:other.csv", "dataset")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("none.csv", "there is no file 'none.csv'"),
        ("./none.csv", "there is no file './none.csv'"),
        ("notes.md", "'notes.md' is no file of samples that can be read: one ends in .csv, .tsv"),
        (".:rows.csv", "there is no file '.:rows.csv': name one by its path, ./rows.csv"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path, monkeypatch, text, why):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.md").write_text("words")
    with pytest.raises(PortError) as error:
        Reference.of_data(text)
    assert why in str(error.value)


def test_what_cannot_be_read_says_why(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n{"text": \n')
    with pytest.raises(PortError, match=r"dataset rows.jsonl \(local file\) cannot be read: (?!An error occurred)"):
        opened(tmp_path / "rows.jsonl").split("train")
    write(tmp_path, "rows.csv")
    with pytest.raises(PortError, match="is a file, which has no configurations: leave out config="):
        HubDataset(Hub(), Hub().resolve(str(tmp_path / "rows.csv"), "dataset"), "default")
