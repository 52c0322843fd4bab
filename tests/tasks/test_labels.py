"""What labels mean: by the columns' types, and by the model where these leave it open."""

import json

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from transformers import BertConfig

from hf_bico import PortError
from hf_bico.families import Answer
from hf_bico.families.feeding import Span
from hf_bico.families.purposes import of_config
from hf_bico.io.hub import Hub
from hf_bico.io.reference import Lineage
from hf_bico.tasks.columns import SampleKind
from hf_bico.tasks.requirements import require_task
from hf_bico.tasks.samples import classes_of, read_task, samples_of
from hf_bico.tasks.splits import HubDataset
from hf_bico.tasks.strategies import Calibration

TEXTS = {"text": ["one two", "three", "four five six"]}
MOODS = ("joy", "deep anger", "fear")


def purpose(cls: str = "SequenceClassification", problem: str | None = None, labels: tuple = MOODS):
    names = dict(enumerate(labels))
    config = BertConfig(id2label=names, label2id={name: k for k, name in names.items()}, problem_type=problem)
    return of_config(config, f"BertFor{cls}")


SEVERAL, NUMBER = purpose(problem="multi_label_classification"), purpose(labels=("LABEL_0",))
NAMELESS = purpose("TokenClassification", labels=("LABEL_0", "LABEL_1"))
TAGS, SPANS = purpose("TokenClassification", labels=("O", "B-X", "I-X")), purpose("QuestionAnswering")


def read(folder, columns: dict, asks=None, features: Features | None = None, named: dict | None = None):
    """The task and the labels of all rows."""
    (folder / "data").mkdir(parents=True)
    if features is None:
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        (folder / "data" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        Dataset.from_dict(columns, features=features).to_parquet(folder / "data" / "train-0.parquet")
    hub = Hub()
    dataset = HubDataset(hub, hub.resolve(str(folder), "dataset"))
    split = dataset.split("train")
    task = read_task(dataset, split, named or {}, None, asks)
    return task, [sample.label for sample in samples_of(split, range(split.num_rows), task)]


@pytest.mark.parametrize(
    ("columns", "named", "expected"),
    [
        ({"labels": [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]}, {}, [(0, 2), (), (1,)]),
        ({"labels": [[1, 0, 1], [0, 0, 0], [0, 1, 0]]}, {}, [(0, 2), (), (1,)]),
        ({"labels": [[2, 0], [], [1]]}, {}, [(0, 2), (), (1,)]),
        ({"labels": [["fear", "joy"], [], ["deep anger"]]}, {}, [(1, 2), (), (0,)]),  # sorted: anger, fear, joy
        ({"joy": [1, 0, 0], "deep_anger": [0, 0, 1], "fear": [1, 0, 0], "id": [7, 8, 9]}, {}, [(0, 2), (), (1,)]),
        ({"b": [True, False, False], "a": [False, False, True]}, {"label": "a|b"}, [(1,), (), (0,)]),
    ],
    ids=["yes or no", "whole yes or no", "numbers", "names", "a column of each", "columns as named"],
)
def test_several_classes_come_in_many_ways(tmp_path, columns, named, expected):
    task, found = read(tmp_path / "set", TEXTS | columns, SEVERAL, named=named)
    assert (task.labels.answer, found) == (Answer.CLASSES, expected)
    if not named:
        assert sorted(name.replace("_", " ") for name in task.class_names) == sorted(MOODS)


def test_lists_of_classes_are_several_whatever_the_model(tmp_path):
    features = Features({"text": Value("string"), "labels": List(ClassLabel(names=list(MOODS)))})
    task, found = read(tmp_path / "set", TEXTS | {"labels": [[2], [], [0, 1]]}, None, features)
    assert (task.labels.answer, task.class_names, found) == (Answer.CLASSES, MOODS, [(2,), (), (0, 1)])


def test_numbers_are_numbers_where_the_model_gives_one(tmp_path):
    task, found = read(tmp_path / "a", TEXTS | {"label": [5, 1, 3]}, NUMBER)
    assert (task.labels.answer, task.class_names, found) == (Answer.NUMBER, (), [5.0, 1.0, 3.0])
    task, found = read(tmp_path / "b", TEXTS | {"label": [0, 1, 2]}, purpose())
    assert (task.labels.answer, found) == (Answer.CLASS, [0, 1, 2])
    task, found = read(tmp_path / "c", TEXTS | {"label": [0.5, 1.0, 2.0]}, None)
    assert (task.labels.answer, found) == (Answer.NUMBER, [0.5, 1.0, 2.0])


WORDS = {"tokens": [["a", "b"], ["c"], ["d", "e"]]}


@pytest.mark.parametrize("tags", [[[0, 1], [2], [0, 0]], [["O", "B-X"], ["I-X"], ["O", "O"]]], ids=["numbers", "names"])
def test_tags_of_words(tmp_path, tags):
    task, found = read(tmp_path / "set", {"id": [1, 2, 3], **WORDS, "ner_tags": tags}, TAGS)
    order = task.class_names
    assert (task.columns.kind, task.labels.answer) == (SampleKind.TAGS, Answer.WORD_CLASSES)
    assert [tuple(order[k] for k in row) for row in found] == [("O", "B-X"), ("I-X",), ("O", "O")]


def test_answers_to_questions(tmp_path):
    rows = {"question": ["who?", "why?"], "context": ["it is Ada here", "no reason"], "title": ["x", "y"]}
    given = [{"text": ["Ada"], "answer_start": [6]}, {"text": [], "answer_start": []}]
    task, found = read(tmp_path / "set", rows | {"answers": given}, SPANS)
    assert (task.columns.kind, task.labels.answer, task.labels.may_lack) == (SampleKind.SPAN, Answer.SPAN, True)
    assert found == [(Span(6, 9),), ()]
    given[0]["answer_start"] = [5]
    with pytest.raises(PortError, match="row 0 has the answer 'Ada', which is not at character 5"):
        read(tmp_path / "moved", rows | {"answers": given}, SPANS)


@pytest.mark.parametrize(
    ("columns", "asks", "what"),
    [
        (TEXTS | {"labels": [[1, 0], [1], [0, 0, 1]]}, SEVERAL, None),
        (TEXTS | {"labels": [[1.0, 0.0, 2.0]] * 3}, SEVERAL, "only 0 and 1 say whether"),
        (TEXTS | {"labels": [[1.0, 0.0], [0.0], [1.0, 1.0]]}, SEVERAL, "not a yes or no for each of"),
        (WORDS | {"tags": [[0], [1], [0, 1]]}, TAGS, "row 0 has 2 words and 1 tags"),
        (WORDS | {"tags": [["O", "B-X"], ["O"], ["O", "O"]]}, NAMELESS, "their order is not known"),
        (TEXTS | {"label": [0.5, None, 1.0]}, NUMBER, "row 1 has label None, which is no number"),
    ],
    ids=["fine", "two", "short", "tags", "order", "none"],
)
def test_labels_that_do_not_go_together_are_refused(tmp_path, columns, asks, what):
    if what is None:
        read(tmp_path / "set", columns, asks)
        return
    with pytest.raises(PortError, match=what):
        read(tmp_path / "set", columns, asks)


@pytest.mark.parametrize(
    ("columns", "asks", "what"),
    [
        ({"label": [0, 1, 2]}, SEVERAL, r"several classes, .* \(problem_type multi_label.* has one class"),
        ({"label": [[0], [1, 2], []]}, purpose(), 'gives one class, and .* has several classes .*"multi_label_class'),
        ({"label": [0.5, 1.0, 2.0]}, purpose(), 'gives one class, and .* has a number a sample .*"regression"'),
        ({"label": ["a", "b", "c"]}, NUMBER, "gives numbers, and .* has one class a sample"),
        ({"label": [0.5, 1.0, 2.0]}, purpose(problem="regression"), "gives 3 numbers a sample"),
    ],
    ids=["one of several", "several of one", "numbers of classes", "classes of a number", "three numbers"],
)
def test_labels_of_another_kind_than_the_models_are_refused(tmp_path, columns, asks, what):
    task, _ = read(tmp_path / "set", TEXTS | columns, asks)
    hub = Hub()
    (tmp_path / "set" / "tokenizer.json").touch()
    where = hub.resolve(str(tmp_path / "set"), "dataset")
    with pytest.raises(PortError, match=what) as caught:
        require_task(asks, task, Lineage(where, where, where, where), None)
    assert "\n" not in str(caught.value)


def test_only_random_draws_go_with_what_is_no_class(tmp_path):
    task, _ = read(tmp_path / "set", TEXTS | {"label": [0.5, 1.5, 2.0]}, NUMBER)
    with pytest.raises(PortError, match="goes by the class of a sample, and these have a number: use random"):
        classes_of(None, task, Calibration(per_class=1))
