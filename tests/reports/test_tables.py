"""A comparison's table marks what to take, and its picture has a line for every method."""

import matplotlib.image
import numpy as np

from hf_bico.reports.figures import COLOURS, draw_comparison
from hf_bico.reports.tables import advice, cells, markdown


def entry(method: str, n: int, score: float, pushable: bool = True, word: str = "works") -> dict:
    told = {"seconds": 1.0, "shared_seconds": 1.0, "peak_bytes": None, "refusal": None, "per_class": None, "seeds": 1}
    gap = {"recovered": score - 0.4, "recovered_spread": None, "score_spread": None}
    return {"method": method, "alpha": 1.0, "n": n, "score": score, **gap, **told} | {
        "verdict": {"word": word, "pushable": pushable, "reason": "", "next": ""}
    }


def compared(*entries: dict) -> dict:
    score = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 10, "metric": "accuracy", "also": {}}
    names = {role: {"name": f"org/{role}"} for role in ("source", "target")}
    return {
        "evaluation": {"metric": "accuracy", "split": "test", "zero_shot": score, "source": score},
        "reference": {"what": "the source's own score", **score},
        "lineage": names,
        "summary": list(entries),
    }


def test_the_best_of_those_that_gain_is_marked():
    data = compared(entry("bico", 20, 0.6), entry("auto", 20, 0.8), entry("few-shot", 20, 0.9, pushable=False))
    header, *rows = cells(data)
    told = {row[0]: row[header.index("verdict")] for row in rows}
    assert told == {"bico": "works", "auto": "works, best", "few-shot": "works*"}
    assert "--method auto" in advice(data)
    assert "compare.png" not in markdown(data)
    assert "](compare.png)" in markdown(data, pictured=True)


def test_none_is_marked_where_none_gains():
    data = compared(entry("bico", 20, 0.3, pushable=False, word="harmful"))
    assert not any("best" in cell for row in cells(data) for cell in row)
    assert "fine-tune the new base" in advice(data)


def test_the_gap_is_that_to_the_sources_own_score_and_another_goal_has_another_word():
    """In whatever is written of a comparison."""
    told = compared(entry("bico", 20, 0.6), {**entry("naive", 20, 0.5), "recovered": None})
    own = told | {"reference": told["reference"] | {"what": "the target's own fine-tune"}}
    for data, word, other, words in (
        (told, "gap", "gain", "share of the gap to the source's own score (50.0%)"),
        (own, "gain", "gap", "share of the gain of the target's own fine-tune (50.0%)"),
    ):
        header, first, second = cells(data)
        assert (first[header.index(word)], second[header.index(word)]) == ("20%", f"no {word}")
        page = markdown(data, pictured=True)
        assert words in page and words.split(" (")[0] in page.split("![The ")[1]
        assert other not in {*header} and f" {other} " not in page


def has(picture: np.ndarray, colour: str) -> bool:
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return bool((np.abs(picture[..., :3] - wanted).max(-1) < 0.02).any())


def test_every_method_has_a_line_of_its_own_colour(tmp_path):
    rows = [entry(name, n, 0.5 + n / 1000) for name in ("bico", "auto", "naive") for n in (20, 100)]
    assert draw_comparison(rows, "the source's own score", tmp_path / "x.png")
    picture = matplotlib.image.imread(tmp_path / "x.png")
    assert [has(picture, colour) for colour in COLOURS[:4]] == [True, True, True, False]
    assert not draw_comparison([{**row, "recovered": None} for row in rows], "x", tmp_path / "y.png")
    assert not (tmp_path / "y.png").exists()
