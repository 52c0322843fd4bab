"""The zoo: its datasets are what they say, and its bases are ordinary repos. Nothing is trained here."""

import numpy as np
import pytest

pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

WORDS = np.array([f"word{i}" for i in range(400)])
TEXTS = ("topic", "kind", "shuffle", "code", "heading")


def invented_docstrings():
    """A stand-in for those of the installed packages: one section of every kind a file."""
    from hub_scripts.world.text.corpus import PACKAGES
    from hub_scripts.world.text.tasks import KINDS

    rng = np.random.default_rng(0)
    for package in PACKAGES:
        for number in range(40):
            texts = [(h[0], " ".join(rng.choice(WORDS, 45))) for h in KINDS.values()]
            yield package, f"{package}/f{number}.py", "\n\n".join(f"{h}\n-----\n{t}" if h else t for h, t in texts)


def invented_functions():
    for number in range(200):
        yield f"p/f{number // 4}.py", f"def f{number}():\n\treturn {number}"


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """The module zoo.data on invented texts, with an empty folder to write to."""
    from hub_scripts.world.zoo import data, text

    for module in (data, text):
        monkeypatch.setattr(module, "ZOO", tmp_path)
    monkeypatch.setattr(text, "docstrings", invented_docstrings)
    monkeypatch.setattr(data, "functions", invented_functions)
    monkeypatch.setattr(data, "SPLITS", {"train": 120, "validation": 24, "test": 60})
    text.sections.cache_clear()
    yield data
    text.sections.cache_clear()


@pytest.mark.parametrize("task", TEXTS)
def test_splits_share_no_text_and_come_out_the_same_again(zoo, task):
    splits = {name: [tuple(row.values()) for row in zoo.rows(task, name)] for name in zoo.SPLITS}
    inputs = {name: {row[0] for row in rows} for name, rows in splits.items()}
    assert not inputs["train"] & inputs["test"] and not inputs["train"] & inputs["validation"]
    for name, rows in splits.items():
        assert rows == [tuple(row.values()) for row in zoo.TEXT_TASKS[task].rows(name)]
    assert zoo.dataset(task) == zoo.dataset(task)


@pytest.mark.parametrize("task", ("topic", "kind", "shuffle"))
def test_classes_are_even_and_texts_of_many_lengths(zoo, task):
    import datasets

    table = datasets.load_dataset(str(zoo.dataset(task)), split="test", cache_dir=str(zoo.ZOO / "cache"))
    assert table.features["label"].names == list(zoo.TEXT_TASKS[task].classes)
    counts = np.bincount(table["label"])
    assert counts.max() - counts.min() <= 1
    lengths = [len(text.split()) for text in table["text"]]
    assert min(lengths) >= zoo.WORDS[0] and max(lengths) <= zoo.WORDS[1] and len(set(lengths)) > 10


def test_a_shuffled_text_has_the_same_words(zoo):
    text = " ".join(WORDS[:30])
    other = zoo.shuffled(text, np.random.default_rng(0))
    assert other != text and sorted(other.split()) == sorted(text.split())
    moved = [i for i, (a, b) in enumerate(zip(text.split(), other.split(), strict=True)) if a != b]
    assert moved[-1] - moved[0] < zoo.RUN


def test_headings_answer_the_question(zoo):
    row = zoo.rows("heading", "test")[0]
    assert list(row) == ["prompt", "completion"]
    assert row["prompt"].endswith(zoo.ASKED) and row["completion"] in zoo.HEADINGS.values()


def test_images_are_those_of_the_tasks(zoo):
    import datasets

    from hub_scripts.world.vision.tasks import pixels

    folder = zoo.dataset("digits")
    table = datasets.Dataset.from_parquet(
        str(folder / "data" / "validation-00000-of-00001.parquet"), cache_dir=str(zoo.ZOO / "cache")
    )
    images, labels = pixels("digits", "validation")
    assert table["label"][:] == labels.tolist()
    assert np.array_equal(np.asarray(table[3]["image"]), images[3].permute(1, 2, 0).numpy())


def test_functions_come_without_docstring_and_with_tabs(zoo):
    source = 'def f(x):\n    """What it does."""\n    if x:\n        return 1\n    return 2\n'
    assert list(zoo._functions_of(source)) == ["def f(x):\n\tif x:\n\t\treturn 1\n\treturn 2"]


@pytest.mark.parametrize("name", ("vit-narrow", "bert-narrow", "lm-c"))
def test_a_base_is_an_ordinary_repo_of_the_kept_weights(zoo, name, tmp_path, monkeypatch):
    import transformers
    from safetensors.torch import load_file

    from hub_scripts.world.zoo import make as bases

    monkeypatch.setattr(bases, "ZOO", tmp_path)
    folder = bases.base(name)
    config = transformers.AutoConfig.from_pretrained(folder)
    stored = load_file(folder / "model.safetensors")  # in the names of files, and in those of models
    stored |= getattr(transformers, config.architectures[0]).from_pretrained(folder).state_dict()
    kept = load_file(bases.weights(name))
    assert set(kept) <= set(stored) and all((stored[key] == kept[key].float()).all() for key in kept)
    if name.startswith("vit"):
        assert transformers.AutoImageProcessor.from_pretrained(folder).size["height"] == 32
        return
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    text = "Return the 12 largest values of an array"
    assert tokenizer.decode(
        tokenizer(text)["input_ids"], skip_special_tokens=True
    ).split() == text.split() or "1 2" in tokenizer.decode(
        tokenizer(text)["input_ids"]
    )  # the first vocabulary puts digits apart
