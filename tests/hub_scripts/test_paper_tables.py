"""The papers' tables: the file is read and planned right, and a run against the local Hub gives `compare`'s numbers."""

from pathlib import Path

import pytest
import torch
from support.papers import PICTURES, TEXTS, run, written

from hub_scripts.papers import plan, spec, tune

pytestmark = pytest.mark.usefixtures("one_thread")

SHIPPED = Path(spec.__file__).parent / "papers.yaml"


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
        "tables.2: unknown method 'finest'; there are auto,",
        "tables.3.alphas: a number",
        "tables.3.paper: a number",
    ):
        assert sum(words in line for line in lines) == 1, (words, said)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"methods": ["finest"], "paper": {}}, "tables.1: unknown method 'finest'; there are auto"),
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


def test_centroids_are_for_pictures(tmp_path):
    wrong = TEXTS | {"tables": {"1": TEXTS["tables"]["1"] | {"strategies": "centroid-near"}}}
    with pytest.raises(spec.SpecError, match=r"tables.1.strategies: those by centroids are for pictures"):
        spec.read(written(tmp_path, wrong))
