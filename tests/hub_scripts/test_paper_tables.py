"""The papers' tables: the file is read and planned right, and a run against the local Hub gives `compare`'s numbers."""

import io
import json
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import HfApi
from safetensors.torch import load_file

from hf_bico.core.collect import Batch
from hf_bico.core.compare import compare
from hf_bico.core.methods import METHODS
from hf_bico.families import LIBRARIES
from hf_bico.io.hub import Hub
from hf_bico.tasks.asked import zero_shot_head
from hf_bico.tasks.batches import batched
from hf_bico.tasks.samples import draw, read_task, samples_of
from hf_bico.tasks.splits import HubDataset
from hf_bico.tasks.strategies import Calibration, chosen
from hf_bico.workflows.live import class_loss, job_of
from hub_scripts import paper_tables
from hub_scripts.papers import clip, plan, spec, tune

SHIPPED = Path(spec.__file__).parent / "papers.yaml"
QUICK = {"steps": 3, "batch": 8, "rate": 1e-3, "warmup": 1}
PICTURES = {
    "models": {"small": {"ref": "demo/base"}, "large": {"ref": "demo/plus"}},
    "datasets": {"shapes": {"ref": "demo/task", "classes": 4, "rows": 30}},
    "protocols": {"open_clip": QUICK},
    "tables": {
        "1": {
            "pairs": [["small", "large"]],
            "datasets": "shapes",
            "n": [4, 8],
            "seeds": 1,
            "methods": ["naive", "bico", "input-only"],
            "paper": {"bico": [11.5, 33.8]},
        }
    },
}
TEXTS = {
    "models": {"wide": {"ref": "demo/t5-wide", "family": "t5"}, "slim": {"ref": "demo/t5-slim", "family": "t5"}},
    "datasets": {"words": {"ref": "demo/words", "text": ["first", "second"], "eval_split": "validation"}},
    "protocols": {"t5": QUICK},
    "tables": {
        "1": {"pairs": [["wide", "slim"]], "datasets": "words", "n": [10, 20], "seeds": 1, "methods": ["naive", "bico"]}
    },
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def written(folder: Path, data: dict) -> Path:
    path = folder / "tables.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def run(*words) -> tuple[int, str]:
    """The script, in this process: its exit code and what it said, errors last."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["paper_tables.py", *map(str, words)]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            paper_tables.main()
        code = 0
    except SystemExit as stop:
        code = stop.code
    finally:
        sys.argv = before
    return code, out.getvalue() + err.getvalue()


def cells(output: Path, what: str = "score") -> dict[tuple, float | None]:
    table = json.loads((output / "results.json").read_text())["1"]
    return {(entry["size"], entry["method"]): entry[what] for entry in table["accuracies"]}


def tuned(output: Path, name: str) -> Path:
    return next((output / "fine-tunes").glob(f"{name}-*"))


# The file.


def test_all_that_is_wrong_is_listed(tmp_path):
    table = {"pairs": [["small", "tiny"]], "datasets": ["shapes", "words"], "n": 100, "methods": ["finest"]}
    wrong = {
        "models": {"small": {"family": "gpt"}, "large": {"ref": "demo/plus", "tuned": {"cats": "demo/ft"}}},
        "datasets": {
            "shapes": {"ref": "demo/task", "template": "a.txt"},
            "words": {"ref": "demo/w", "text": "t"},
            "lost": {"ref": "demo/task", "templates": "none.txt"},
        },
        "protocols": {"open_clip": {"rate": "fast", "warmup": 2000}, "t6": {}},
        "table": {},
        "tables": {
            "1": table | {"n": [0], "seeds": 1.5},
            "2": table | {"per_class": 2},
            "3": table | {"alphas": [1, "most"], "paper": {"bico": [1, "two"]}},
        },
    }
    code, said = run(written(tmp_path, wrong), "--plan")
    assert code == 2
    lines = said.splitlines()
    assert all(line.startswith("Error: ") for line in lines)
    for words in (
        "tables.yaml.table: no such key; there are models, datasets, protocols, tables",
        "models.small: ref is missing",
        "models.small.family: one of open_clip, t5",
        "models.large.tuned: no dataset 'cats'; there are lost, shapes, words",
        "datasets.shapes.template: no such key; there are ref, config,",
        "datasets.lost.templates: a file beside",
        "protocols.open_clip.rate: a number",
        "protocols.t6: no such key; there are open_clip, t5",
        "tables.1.n: a whole number from 1",
        "tables.1.seeds: a whole number",
        "tables.2.pairs: no model 'tiny'; there are large, small",
        "tables.2: one of n and per_class",
        "tables.2.datasets: open_clip takes pictures",
        "tables.2: unknown method 'finest'; there are bico,",
        "tables.3.alphas: a number",
        "tables.3.paper: a number",
    ):
        assert sum(words in line for line in lines) == 1, (words, said)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"methods": ["finest"], "paper": {}}, "tables.1: unknown method 'finest'; there are bico"),
        ({"options": ["bico:rank=3"]}, "tables.1: bico has no option 'rank'; it has"),
        ({"per_class": 2, "n": 2, "paper": {}}, "tables.1: one of n and per_class is expected"),
        ({"strategies": "nearest"}, "tables.1: unknown strategy 'nearest'; there are random"),
        ({"paper": {"bico": [1]}}, "tables.1.paper.bico: a figure a column is expected, 2, not 1"),
        ({"paper": {"theseus": [1, 2]}}, "tables.1.paper.theseus: one of the table's methods"),
        ({"alphas": [1, 2]}, "tables.1.paper: its figures are of one pair at one α"),
        ({"pairs": ["small", "large"]}, "tables.1.pairs: pairs are lists of two models"),
    ],
)
def test_what_is_wrong_with_a_table(tmp_path, change, words):
    wrong = PICTURES | {"tables": {"1": PICTURES["tables"]["1"] | change}}
    with pytest.raises(spec.SpecError) as caught:
        spec.read(written(tmp_path, wrong))
    assert len(caught.value.problems) == 1
    assert words in caught.value.problems[0]


def test_no_yaml_and_no_table(tmp_path):
    (tmp_path / "broken.yaml").write_text("tables: [")
    assert run(tmp_path / "broken.yaml")[0] == 2
    code, said = run(written(tmp_path, PICTURES), "--plan", "--table", "7")
    assert (code, said) == (2, "Error: --table 7: there are 1\n")


def test_shipped_file_plans_the_papers_tables():
    told = spec.read(SHIPPED)
    b16, twin, plus, large = "b16-laion2b", "b16-datacomp", "b16plus-laion400m", "l14-datacomp"
    sizes, rivals = [10, 20, 50, 100], "naive theseus bico"
    expected = {  # from, to, N or K, methods
        "1": (b16, plus, sizes, rivals),
        "A": (b16, plus, sizes, rivals),
        "B": (b16, plus, [100], "bico"),
        "B one class": (b16, plus, [100], "bico"),
        "C": (b16, plus, [1, 2, 5], f"{rivals} few-shot"),
        "3": (twin, b16, [1, 2, 5, 10, 20], "naive transfusion gradfix theseus bico"),
        "D": (plus, b16, sizes, rivals),
        "E": (twin, plus, sizes, rivals),
        "4": (twin, large, [100], rivals),
        "G": (large, twin, [100], rivals),
        "H": (b16, large, [100], rivals),
        "2": ("t5-3b", "t5-large", [50, 100, 200], rivals),
        "5": (twin, b16, [5], "input-only gradient-only output-only theseus bico"),
    }
    assert told.tables.keys() == expected.keys()
    for name, (source, target, columns, methods) in expected.items():
        table = told.tables[name]
        assert table.pairs == ((source, target),)
        assert list(table.per_class if name in ("C", "3", "5") else table.n) == columns
        assert list(table.methods) == methods.split()
        assert table.seeds == 3
        eight = ["cars", "dtd", "eurosat", "gtsrb", "mnist", "resisc45", "sun397", "svhn"]
        assert list(table.datasets) == eight or name in ("2", "B one class")
    strategies = [*told.tables["B"].strategies, *told.tables["B one class"].strategies]
    assert strategies == ["class-balanced", "centroid-near", "random", "centroid-far", "half-class", "one-class"]
    assert told.tables["3"].paper["gradfix"] == (26.1, 28.1, 28.2, 29.7, 29.7)
    assert told.tables["D"].paper["bico"] == (7.3, 26.5, 49.1, 62.7)
    assert told.protocols["open_clip"] == spec.Protocol(2000, 128, 1e-5, 0.1, 200, 0.1, 0)


def test_tables_that_ask_for_the_same_share_it():
    told = spec.read(SHIPPED)
    first, again = (plan.units_of(told.tables[name]) for name in ("1", "A"))
    assert first == again == plan.all_units([told.tables["1"], told.tables["A"]])
    assert len(plan.fine_tunes_of(told, plan.all_units(told.tables.values()))) == 4 * 8 + 2 * 7


def test_plan_counts_samples(tmp_path):
    """By hand: 2 fine-tunes of 3 × 8; N = 4 and 8 through both models; 3 methods × 2 + 3 scores of 30 rows."""
    code, said = run(written(tmp_path, PICTURES), "--plan", "--output", tmp_path / "out")
    assert code == 0
    assert not (tmp_path / "out").exists()
    for line in (
        "to do: 1 of 1 comparisons (those that tables share count once), 6 cells",
        "fine-tunes to make: 2",
        "fine-tuning: 48 samples forward and backward",
        "calibration: 24 samples forward and backward",
        "evaluation: 270 samples forward",
    ):
        assert line in said.splitlines(), said


# Fine-tuning.


def test_a_batch_may_go_through_in_parts():
    x, y = torch.randn(16, 3, dtype=torch.float64), torch.arange(16) % 2
    protocol = spec.Protocol(steps=4, batch=8, rate=0.1, warmup=2)
    found = []
    for size in (2, 3, 8):
        torch.manual_seed(0)
        layer = torch.nn.Linear(3, 2).double()

        def loss(part, layer=layer):
            return torch.nn.functional.cross_entropy(layer(part[0]), part[1], reduction="sum")

        batches = tune.endless([(x[:8], y[:8]), (x[8:], y[8:])])
        tune.learn(list(layer.parameters()), loss, batches, protocol, size, lambda items, what, total: items, "")
        found.append(layer.weight.detach())
    assert all(torch.allclose(found[0], other, rtol=1e-12) for other in found)


def test_rates_warm_up_and_fall():
    parameter = torch.nn.Parameter(torch.zeros(1))
    adam = torch.optim.AdamW([parameter], lr=1.0)
    rates, seen = tune.schedule(adam, spec.Protocol(steps=10, warmup=4)), []
    for _ in range(10):
        seen.append(adam.param_groups[0]["lr"])
        adam.step()
        rates.step()
    assert seen[0] == 0.25
    assert max(seen) == seen[4] == 1.0
    assert seen[4:] == sorted(seen[4:], reverse=True)
    assert adam.param_groups[0]["lr"] < 1e-9


def test_rows_are_parted():
    rows, kept = tune.parted(60, spec.Protocol())
    assert sorted([*rows, *kept]) == list(range(60))
    assert len(kept) == 6


# Pictures.


@pytest.fixture(scope="module")
def pictures(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    code, said = run(
        written(folder, PICTURES), "--output", folder / "out", "--device", "cpu", "--batch-size", 8, "--workers", 1
    )
    assert code == 0, said
    return folder


def test_fine_tunes_are_ordinary_repos(pictures, world):
    for name, base in (("small", "base"), ("large", "plus")):
        before, after = (
            load_file(folder / LIBRARIES[0].weights_file) for folder in (world / base, tuned(pictures / "out", name))
        )
        assert before.keys() == after.keys()
        changed = {key for key in before if not torch.equal(before[key], after[key])}
        assert changed
        assert all(key.startswith("visual.") for key in changed)
        LIBRARIES[0].load(tuned(pictures / "out", name), "cpu")
        assert f"base_model: demo/{base}" in (tuned(pictures / "out", name) / "README.md").read_text()


def test_picture_cells_are_those_of_compare(pictures, world):
    library, data = LIBRARIES[0], HubDataset(Hub(), Hub().resolve("demo/task", "dataset"))
    task = read_task(data, data.split("train"), {}, None)
    sides = [library.load(world / name, "cpu") for name in ("base", "plus")]
    heads = [zero_shot_head(library, side, task.class_names, task.templates) for side in sides]
    weights = load_file(tuned(pictures / "out", "small") / library.weights_file)

    def seen(side, samples):
        return (
            torch.stack([side.preprocess(sample.inputs) for sample in samples]),
            torch.tensor([sample.label for sample in samples]),
        )

    images, labels = seen(sides[1], list(samples_of(data.split("test"), range(30), task)))

    @torch.no_grad()
    def score(model):
        best = (model.encode_image(images, normalize=True) @ heads[1].T).argmax(1)
        return int((best == labels).sum()) / 30

    expected = {}
    for n in (4, 8):
        samples = draw(data.split("train"), "train", task, Calibration(n), np.zeros(60)).samples
        job = job_of(
            tuned=weights,
            base=sides[0].model,
            target=sides[1].model,
            loss=tuple(map(class_loss, heads)),
            calibration=[Batch(*(seen(side, some) for side in sides)) for some in batched(samples, 3)],
        )
        methods = {name: METHODS[name]() for name in ("naive", "bico", "input-only")}
        expected |= {(n, row.method): row.score for row in compare(job, methods, n, score)}
    assert cells(pictures / "out") == expected
    assert len({score for score in expected.values() if score is not None}) > 1
    assert set(cells(pictures / "out", "zero-shot").values()) == {score(sides[1].model)}
    fine = library.load(tuned(pictures / "out", "large"), "cpu").model
    assert set(cells(pictures / "out", "fine-tuned target").values()) == {score(fine)}


def test_page_has_the_papers_figures_and_refusals(pictures):
    page = (pictures / "out" / "tables.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| small → large")]
    assert [row.split(" | ")[1] for row in rows] == ["naive", "bico", "input-only"]
    assert "(11.5)" in rows[1]
    assert "(33.8)" in rows[1]
    assert rows[2].count("refused: input-only") == 2
    found = json.loads((pictures / "out" / "results.json").read_text())["1"]
    row, cell = found["rows"][2], next(c for c in found["accuracies"] if c["method"] == "bico")
    gap = (cell["score"] - cell["zero-shot"]) / (cell["fine-tuned target"] - cell["zero-shot"])
    assert row["recovered"] == pytest.approx(100 * gap)


def test_second_start_does_nothing_anew(pictures, monkeypatch):
    before = {path: path.read_bytes() for path in (pictures / "out").glob("*.*")}
    monkeypatch.setattr(paper_tables, "kind_of", lambda family: pytest.fail("nothing is left to do"))
    monkeypatch.setattr(plan, "fine_tunes_of", lambda *_: pytest.fail("nothing is left to make"))
    code, said = run(pictures / "tables.yaml", "--output", pictures / "out", "--device", "cpu")
    assert code == 0, said
    assert before == {path: path.read_bytes() for path in (pictures / "out").glob("*.*")}


def test_what_is_done_is_not_planned(pictures):
    said = run(pictures / "tables.yaml", "--plan", "--output", pictures / "out")[1]
    assert "to do: 0 of 1 comparisons" in said
    assert "fine-tunes to make: 0" in said


def test_interrupted_run_goes_on(pictures, tmp_path, monkeypatch):
    """Half of the lines, the last one torn: no fine-tune is made again, and the cells come out the same."""
    out = shutil.copytree(pictures / "out", tmp_path / "out")
    lines = (out / "cells.jsonl").read_text().splitlines(keepends=True)
    (out / "cells.jsonl").write_text("".join(lines[:5]) + lines[5][:20])
    monkeypatch.setattr(clip, "fine_tune", lambda *_: pytest.fail("it is there"))
    assert run(pictures / "tables.yaml", "--output", out, "--device", "cpu", "--batch-size", 8)[0] == 0
    assert cells(out) == cells(pictures / "out")
    again = (out / "cells.jsonl").read_text().splitlines(keepends=True)
    assert again[:5] == lines[:5]
    assert len(again) == len(lines)


def test_a_comparison_that_fails_stops_no_other(pictures, tmp_path):
    lost = PICTURES | {"datasets": PICTURES["datasets"] | {"lost": {"ref": "demo/nowhere"}}}
    lost["tables"] = {"1": PICTURES["tables"]["1"] | {"datasets": ["lost", "shapes"]}}
    out = shutil.copytree(pictures / "out", tmp_path / "out")
    code, said = run(written(tmp_path, lost), "--output", out, "--device", "cpu", "--batch-size", 8)
    assert code == 2
    assert said.count("Error: ") == 1
    assert "Error: small → large on lost: dataset demo/nowhere was not found" in said
    found = json.loads((out / "results.json").read_text())["1"]
    assert all(row["accuracy"] is None for row in found["rows"])


def test_given_fine_tunes_are_taken(pictures, tmp_path):
    given = PICTURES | {
        "models": {
            "small": {"ref": "demo/base", "tuned": {"shapes": "demo/ft"}},
            "large": {"ref": "demo/plus", "tuned": {"shapes": "demo/plus"}},
        }
    }
    said = run(written(tmp_path, given), "--plan", "--output", pictures / "out")[1]
    assert "fine-tunes to make: 0" in said
    assert "to do: 1 of 1" in said


def test_pickled_weights_are_converted(world, tmp_path):
    folder = tmp_path / "pickled"
    shutil.copytree(world / "plus", folder)
    tensors = load_file(folder / LIBRARIES[0].weights_file)
    (folder / LIBRARIES[0].weights_file).unlink()
    torch.save({f"module.{key}": tensor for key, tensor in tensors.items()}, folder / "model.bin")
    HfApi().create_repo("demo/pickled")
    HfApi().upload_folder(folder_path=folder, repo_id="demo/pickled")
    told = spec.Spec(
        {"old": spec.Model("demo/pickled", pickled="model.bin"), "new": spec.Model("demo/plus", pickled="model.bin")},
        {},
        {},
        {},
    )
    run_ = tune.Run(Hub(), tmp_path / "out", "cpu")
    assert clip.ready(told, "new", run_) == "demo/plus"
    ready = Path(clip.ready(told, "old", run_))
    got = load_file(ready / LIBRARIES[0].weights_file)
    assert got.keys() == tensors.keys()
    assert all(torch.equal(got[key], tensors[key]) for key in tensors)
    LIBRARIES[0].load(ready, "cpu")


# Texts.


@pytest.fixture(scope="module")
def texts(hub, tmp_path_factory):
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("texts")
    for name, width, seed in (("t5-wide", 24, 0), ("t5-slim", 16, 1)):
        write_encoder(folder / name, width, seed)
    write_texts(folder / "words")
    for name, kind in (("t5-wide", "model"), ("t5-slim", "model"), ("words", "dataset")):
        HfApi().create_repo(f"demo/{name}", repo_type=kind)
        HfApi().upload_folder(folder_path=folder / name, repo_id=f"demo/{name}", repo_type=kind)
    code, said = run(written(folder, TEXTS), "--output", folder / "out", "--device", "cpu", "--batch-size", 8)
    assert code == 0, said
    return folder


def write_encoder(folder: Path, width: int, seed: int) -> None:
    """A random whole T5, decoder and all, with a tokenizer of twenty words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    torch.manual_seed(seed)
    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, "?": 2} | {f"w{i}": i + 3 for i in range(20)}, "?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    config = T5Config(
        vocab_size=23,
        d_model=width,
        d_kv=4,
        num_heads=width // 8,
        d_ff=20,
        num_layers=2,
        num_decoder_layers=1,
        dropout_rate=0.0,
        decoder_start_token_id=0,
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="?").save_pretrained(
        folder
    )


def write_texts(folder: Path) -> None:
    """Pairs of short texts; whether both begin alike is the label, some have none."""
    (folder / "data").mkdir(parents=True)
    names = datasets.ClassLabel(names=["differ", "alike"])
    for seed, (split, n) in enumerate({"train": 80, "validation": 40}.items()):
        generator = np.random.default_rng(seed)
        rows = {"first": [], "second": [], "label": []}
        for row in range(n):
            first = [f"w{i}" for i in generator.integers(20, size=generator.integers(2, 5))]
            label = int(generator.integers(2))
            rows["first"].append(" ".join(first))
            rows["second"].append(f"{first[0] if label else 'w0'} w{row % 20}")
            rows["label"].append(label if row % 20 else -1)
        table = datasets.Dataset.from_dict(
            rows,
            features=datasets.Features(first=datasets.Value("string"), second=datasets.Value("string"), label=names),
        )
        table.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")


def test_text_cells_are_those_of_compare(texts):
    """One text a batch, so that none is ever padded or grouped."""
    from transformers import AutoTokenizer, T5EncoderModel

    from hub_scripts.world.text.probe import features, fit_probe, probe_loss

    def encoder(folder):
        return T5EncoderModel.from_pretrained(folder).eval().requires_grad_(False)

    words = AutoTokenizer.from_pretrained(texts / "t5-slim")
    data = {
        split: [
            (torch.tensor([words(row["first"], row["second"])["input_ids"]]), torch.tensor([row["label"]]))
            for row in datasets.Dataset.from_parquet(str(path))
            if row["label"] >= 0
        ]
        for split, path in ((path.name.split("-")[0], path) for path in (texts / "words" / "data").iterdir())
    }
    assert [len(data[split]) for split in ("train", "validation")] == [76, 38]

    def probe(model, few):
        return fit_probe(torch.cat([features(model, ids) for ids, _ in few]), torch.cat([y for _, y in few]), 2)

    base, target, fine = map(encoder, (texts / "t5-wide", texts / "t5-slim", tuned(texts / "out", "wide")))
    expected = {}
    for n in (10, 20):
        few = [data["train"][row] for row in chosen([0] * 76, "random", n, 0)]

        def score(model, few=few):
            weight, bias = probe(model, few)
            right = [(features(model, ids) @ weight.T + bias).argmax(1) == y for ids, y in data["validation"]]
            return torch.cat(right).float().mean().item()

        job = job_of(
            tuned=fine,
            base=base,
            target=target,
            calibration=[Batch(each, each) for each in few],
            loss=tuple(probe_loss(*probe(model, few)) for model in (base, target)),
        )
        methods = {name: METHODS[name]() for name in ("naive", "bico")}
        expected |= {(n, row.method): row.score for row in compare(job, methods, n, score)}
        for what, folder in (("zero-shot", texts / "t5-slim"), ("fine-tuned target", tuned(texts / "out", "slim"))):
            assert cells(texts / "out", what)[n, "bico"] == pytest.approx(score(encoder(folder)))
    assert cells(texts / "out") == pytest.approx(expected)


def test_text_fine_tunes_leave_the_token_table(texts):
    from transformers import T5EncoderModel

    for name in ("wide", "slim"):
        before, after = (
            T5EncoderModel.from_pretrained(folder).state_dict()
            for folder in (texts / f"t5-{name}", tuned(texts / "out", name))
        )
        assert torch.equal(before["shared.weight"], after["shared.weight"])
        changed = [key for key in before if not torch.equal(before[key], after[key])]
        assert len(changed) > 10


def test_second_start_of_texts_does_nothing_anew(texts, monkeypatch):
    before = (texts / "out" / "cells.jsonl").read_bytes()
    monkeypatch.setattr(paper_tables, "kind_of", lambda family: pytest.fail("nothing is left to do"))
    assert run(texts / "tables.yaml", "--output", texts / "out", "--device", "cpu")[0] == 0
    assert (texts / "out" / "cells.jsonl").read_bytes() == before


def test_centroids_are_for_pictures(tmp_path):
    wrong = TEXTS | {"tables": {"1": TEXTS["tables"]["1"] | {"strategies": "centroid-near"}}}
    with pytest.raises(spec.SpecError, match=r"tables.1.strategies: those by centroids are for pictures"):
        spec.read(written(tmp_path, wrong))
