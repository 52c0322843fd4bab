"""Next versions and LoRAs of the zoo, and their table, on a budget of a few steps."""

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from hub_scripts.world.zoo import lm, make, next_results  # noqa: E402
from hub_scripts.world.zoo import next as versions  # noqa: E402
from hub_scripts.world.zoo.next_results import METHODS, Row, Scenario  # noqa: E402

SCENARIO = Scenario("lora", "lm-a", "lm-a-next", "heading")
TEXTS = [{"prompt": f"Return the {i} largest values.", "completion": " Returns"} for i in range(24)]


@pytest.fixture
def brief(tmp_path, monkeypatch):
    """The zoo with a next version of two steps and LoRAs of two, on an invented text, in an empty folder."""
    monkeypatch.setattr(make, "ZOO", tmp_path)
    monkeypatch.setattr(next_results, "CSV", tmp_path / "next.csv")
    monkeypatch.setitem(versions.NEXT, "lm-a-next", versions.Next("lm-a", 2, 1e-3, 73))
    monkeypatch.setitem(make.RECIPES, "lm", (2, 1e-3, 4))
    monkeypatch.setattr(lm, "stream_of", lambda tokenizer: np.arange(3000, dtype=np.uint16) % 900 + 10)
    monkeypatch.setattr(make, "told", lambda task: task)
    monkeypatch.setattr("hub_scripts.world.zoo.tune.rows", lambda task, split: TEXTS)
    return tmp_path


def test_a_next_version_is_the_same_model_a_little_on_and_the_same_again(brief):
    old, new, again = lm.load("lm-a").state_dict(), versions.go_on("lm-a-next"), versions.go_on("lm-a-next")
    moved = [float((new.state_dict()[key] - old[key]).norm() / old[key].norm()) for key in old]
    assert 0 < max(moved) < 0.1
    assert all(torch.equal(new.state_dict()[key], again.state_dict()[key]) for key in old)


def test_a_lora_and_both_versions_are_repos_that_the_tool_compares(brief, monkeypatch):
    import datasets

    data = brief / "heading"
    for split, rows in (("train", TEXTS), ("test", [{**row, "prompt": f"{row['prompt']} again"} for row in TEXTS])):
        datasets.Dataset.from_list(rows).to_parquet(data / "data" / f"{split}-00000-of-00001.parquet")
    monkeypatch.setattr(next_results, "dataset", lambda task: data)
    monkeypatch.setattr(next_results, "SEEDS", 1)
    monkeypatch.setitem(next_results.SCORED, "lm", 4)
    words = next_results.command(SCENARIO, 4, ("naive", "bico completion=free"))
    made = next_results.compared(words)
    rows = list(next_results.read(SCENARIO, ("naive", "bico completion=free"), made))
    assert [row.method for row in rows] == ["naive", "bico completion=free"]
    assert all(row.score is not None and row.n == 4 for row in rows)
    assert peft.PeftConfig.from_pretrained(str(make.lora("lm-a", "heading"))).r == make.LORA["r"]


def rows_of(scores: dict[str, float | None], n: int = 20) -> list[Row]:
    """Three draws of every method, with an own fine-tune at 90 and a start at 40."""
    what = (SCENARIO.name, SCENARIO.source, SCENARIO.target, SCENARIO.task)
    return [
        Row(*what, n, seed, method, None if score is None else score + seed - 1, 40.0, 90.0, 95.0)
        for method, score in scores.items()
        for seed in range(next_results.SEEDS)
    ]


def test_what_is_there_is_not_run_again_and_a_new_method_is(brief):
    rows = rows_of({"naive": 60.0, "weighted": None})
    next_results.save(rows)
    assert next_results.load() == rows
    assert next_results.left(SCENARIO, 20, rows) == [m for m in METHODS if m not in ("naive", "weighted")]
    assert next_results.left(SCENARIO, 20, rows[1:])[0] == "naive"
    assert next_results.left(SCENARIO, 100, rows) == list(METHODS)


def test_gap_is_of_the_means_and_a_refusal_has_none(brief):
    rows = rows_of({"naive": 60.0, "weighted": None})
    assert next_results.gap(rows[:3]) == pytest.approx(100 * (60 - 40) / (90 - 40))
    assert next_results.gap(rows[3:]) is None
    assert "| lm-a-next | 95.0 | 40.0 | 60.0 (40) | refused | 90.0 |" in next_results.table(rows, "lora", 20)


def test_the_page_shows_what_the_rows_say():
    page = next_results.PAGE.read_text(encoding="utf-8")
    assert next_results.filled(page, next_results.load()) == page
