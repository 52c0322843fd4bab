"""Rows without a label are left out and said; what a split has wrong is found before the work."""

import datasets
import pytest
from support.datasets import opened

from hf_bico.core.errors import PortError
from hf_bico.core.notes import noted
from hf_bico.families import Answer, Purpose, PurposeKind
from hf_bico.tasks.asked import class_order
from hf_bico.tasks.samples import check_columns, read_task, samples_of
from hf_bico.tasks.usable import check_labels, check_rows, labelled
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.reading import parts_of
from hf_bico.workflows.scored import scoring_of

NAMES = datasets.ClassLabel(names=["no", "yes"])


def dataset_of(folder, **splits: list[int | None]):
    """Texts whose words are their split and number, with these labels."""
    (folder / "data").mkdir(parents=True)
    for name, labels in splits.items():
        rows = {"text": [f"{name} {n}" for n in range(len(labels))], "label": labels}
        features = datasets.Features({"text": datasets.Value("string"), "label": NAMES})
        place = folder / "data" / f"{name}-00000-of-00001.parquet"
        datasets.Dataset.from_dict(rows, features=features.copy()).to_parquet(place)
    return opened(folder)


@pytest.mark.parametrize("nothing", [-1, None])
def test_rows_without_a_label_are_left_out(tmp_path, nothing):
    dataset = dataset_of(tmp_path, train=[0, nothing, 1, nothing, 1])
    split = dataset.split("train")
    task = read_task(dataset, split, {}, None)
    with noted() as lines:
        kept = labelled(split, "train", task)
    assert kept.num_rows == 3 and kept.column("label") == [0, 1, 1]
    assert [sample.inputs for sample in samples_of(kept, [0, 2], task)] == ["train 0", "train 4"]
    assert len(lines) == 1 and "2 of 5 rows of the split 'train' have no label" in lines[0]
    assert labelled(kept, "train", task) is kept
    check_columns(kept, "train", task.columns)
    check_labels(kept, task)


def scored(dataset, **options):
    split = dataset.split("train")
    config = PortConfig("a", "b", "c", **options)
    names = parts_of(dataset, config.split, config.eval_split).scored
    return scoring_of(config, names, dataset, read_task(dataset, split, {}, None), 0)


def test_scores_are_taken_where_there_are_labels(tmp_path):
    dataset = dataset_of(tmp_path, train=[0, 1], validation=[1, 0, 1], test=[-1, -1])
    with noted() as lines:
        assert scored(dataset).name == "validation"
    assert lines == ["no row of the split 'test' is labelled: scores are taken on 'validation'"]
    with pytest.raises(PortError, match="no row of the split 'test' is labelled"):
        scored(dataset, eval_split="test")


def test_an_empty_text_of_the_split_that_is_scored_is_found_in_the_plan(tmp_path):
    dataset = dataset_of(tmp_path, train=[0, 1], test=[0, 1])
    split = dataset.split("test")
    task = read_task(dataset, split, {}, None)
    check_rows(split, [0, 1], task)

    class Blank:
        features, num_rows, window = split.features, 2, None

        def rows(self, indices, columns):
            return iter({"text": " " * n, "label": 0} for n in indices)

    with pytest.raises(PortError, match="row 1 has no text"):
        check_rows(Blank(), [1], task)


WRITTEN = {
    "fractions": [0.0, 1.0, None, 1.0],
    "lists of one": [[0], [1], [-1], [1]],
    "fractions, none labelled by −1": [0.0, 1.0, -1.0, 1.0],
}


@pytest.mark.parametrize("labels", WRITTEN.values(), ids=WRITTEN)
def test_one_class_a_row_is_read_however_it_is_written(tmp_path, labels):
    (tmp_path / "data").mkdir()
    rows = {"text": [f"text {n}" for n in range(4)], "label": labels}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    dataset = opened(tmp_path)
    split = dataset.split("train")
    task = read_task(dataset, split, {}, None, Purpose(PurposeKind.TEXT_CLASSES, ("no", "yes")))
    assert task.labels.answer is Answer.CLASS and task.class_names == ("0", "1")
    kept = labelled(split, "train", task)
    check_labels(kept, task)
    assert [sample.label for sample in samples_of(kept, range(3), task)] == [0, 1, 1]


@pytest.mark.parametrize(
    ("names", "order"), [(("LABEL_0", "LABEL_1"), ()), (("pos", "neg"), (1, 0)), (("Neg", "Pos"), ())]
)
def test_classes_meet_by_name_and_by_number_where_they_have_none(names, order):
    assert class_order(names, ("neg", "pos")) == order


def test_classes_without_names_are_taken_in_order_and_that_is_said():
    with noted() as lines:
        assert class_order(("neg", "pos"), ("LABEL_0", "LABEL_1")) == ()
    assert lines == ["the model's classes have no names (LABEL_0 …): they are taken in the order neg, pos"]
