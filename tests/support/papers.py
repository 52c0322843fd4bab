"""Small files of the papers' tables, and a run of one."""

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch
import yaml

from hub_scripts import paper_tables

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


@pytest.fixture(scope="module")
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
