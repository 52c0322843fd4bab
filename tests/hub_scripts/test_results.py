"""The world's runner and its tables: a cell is a port like any other, and a gap is the papers' gap."""

from dataclasses import replace

import pytest
import torch

from hf_bico import BiCo, port


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The world's modules, with fine-tunes of a few steps kept out of the repo."""
    from hub_scripts.world.vision import cells, results, tables, tune

    patch = pytest.MonkeyPatch()
    patch.setattr(tune, "STEPS", 20)
    patch.setattr(tune, "CACHE", tmp_path_factory.mktemp("world"))
    tune.digest.cache_clear()
    yield cells, results, tables
    patch.undo()
    tune.digest.cache_clear()


def test_a_cell_is_a_port(world):
    """The row of a cell is the accuracy that `port` gives on the same samples, and a refusal says why."""
    cells, _, _ = world
    cell = cells.Cell("s-x", "m-y", "digits", seed=1, n=20, methods=("bico", "gradfix"))
    bico, gradfix = cells.run(cell)["rows"]
    job, n = cells.job(cell)
    assert n == 20
    heads = [cells.heads(name, "digits")[0] for name in ("s-x", "m-y")]
    target = job.target.model
    ported = port(
        tuned=cells.tuned("s-x", "digits"),
        base=cells.base("s-x"),
        target=target,
        calibration=job.batches(),
        loss=tuple(map(cells.class_loss, heads)),
        method=BiCo(),
        only=["linear"],
    )
    assert bico["score"] == cells.accuracy(ported.apply_(), "m-y", "digits")
    assert gradfix["score"] is None
    assert "equal shapes" in gradfix["refusal"]


def test_cells_are_run_once_with_all_methods_asked_for(world):
    _, results, _ = world
    parts = results.parts()
    every = [cell for part in parts.values() for cell in part]
    merged = results.merged(every)
    assert len({replace(cell, methods=()) for cell in merged}) == len(merged)
    first = next(cell for cell in merged if (cell.source, cell.target, cell.n) == ("s-x", "m-y", 100))
    assert {"bico", "weighted", "input-only", "bico completion=free", "few-shot steps=40"} <= set(first.methods)
    what = tuple(results.text(getattr(first, name)) for name in results.WHAT)
    there = {(*what, name) for name in first.methods if name != "weighted"}
    left = results.left([cell for cell in every if replace(cell, methods=()) == replace(first, methods=())], there)
    assert left == [replace(first, methods=("weighted",))]
    assert results.left([first], {(*what, name) for name in first.methods}) == []


def test_gap_is_of_the_means_over_the_tasks(world):
    """(mean ported − mean zero-shot) / (mean fine-tuned − mean zero-shot), one a seed; half-done seeds have none."""
    _, _, tables = world
    names = list(tables.TASKS)
    rows = [
        {
            "seed": seed,
            "score": str(30 + 4 * k + int(seed)),
            "zero_shot": str(20 + k),
            "reference": str(60 + 2 * k),
            "refusal": "",
        }
        for seed in ("0", "1")
        for k in range(len(names))
    ]
    mean = (len(names) - 1) / 2
    expected = [100 * (10 + 3 * mean + seed) / (40 + mean) for seed in (0, 1)]
    assert tables.gaps(rows) == pytest.approx(expected)
    assert tables.gaps(rows[:-1]) == pytest.approx(expected[:1])
    assert tables.cell([{"seed": "0", "score": "", "refusal": "unequal"}]) == "refused"


def test_the_page_shows_what_the_cells_say(world):
    """docs/results.md and results_methods.md were made from docs/results/cells.csv as they lie."""
    _, _, tables = world
    for place in tables.PAGES:
        page = place.read_text(encoding="utf-8")
        assert tables.fill(page, tables.tables(tables.load())) == page


def test_pixels_and_anchors_are_reproducible(world):
    cells, _, _ = world
    first = cells.images("signs", "test")[0].clone()
    cells.images.cache_clear()
    assert torch.equal(cells.images("signs", "test")[0], first)
    assert 0 < cells.anchors("s-x", "m-y", "digits")["zero_shot"] < 100
