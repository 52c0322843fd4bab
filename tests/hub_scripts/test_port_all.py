"""Many fine-tunes over one alignment, by calling the tool."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file
from support.alignments import WEIGHTS, aligned, ported, same, tuned_from

SCRIPT = Path(__file__).parents[2] / "hub_scripts" / "port_all.py"


def test_every_fine_tune_is_ported_once(world, tmp_path):
    """Of a folder of folders, of a file and by name; what is there is not done again, one that fails stops none."""
    aligned(tmp_path / "maps")
    for seed in (1, 2):
        tuned_from(world, tmp_path / "many" / f"ft{seed}", seed=seed)
    (tmp_path / "many" / "notes").mkdir()
    (tmp_path / "list.txt").write_text("demo/ft --seed 5\n\n# another\ndemo/nothing\n")
    command = [
        sys.executable,
        SCRIPT,
        tmp_path / "many",
        tmp_path / "list.txt",
        "--output",
        tmp_path / "out",
        "--",
        "--to",
        "demo/plus",
        "--base",
        "demo/base",
        "--dataset",
        "demo/task",
        "--maps",
        tmp_path / "maps",
        "-n",
        "20",
        "--seed",
        "0",
    ]
    shutil.copytree(ported_once(tmp_path), tmp_path / "out" / "ft2")
    when = (tmp_path / "out" / "ft2" / WEIGHTS).stat().st_mtime_ns
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 1, ran.stderr
    assert "demo/nothing was not found" in ran.stderr
    assert "demo--nothing was not ported" in ran.stderr
    assert "ft2 …" not in ran.stderr and (tmp_path / "out" / "ft2" / WEIGHTS).stat().st_mtime_ns == when
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["demo--ft", "ft1", "ft2", "scores.md"]
    assert same(load_file(tmp_path / "out" / "ft1" / WEIGHTS), ported(tmp_path / "own", tmp_path / "many" / "ft1"))
    report = json.loads((tmp_path / "out" / "demo--ft" / "hf_bico.json").read_text())
    assert report["calibration"]["seed"] == 5
    assert ran.stdout == (tmp_path / "out" / "scores.md").read_text()
    rows = [line.split(" | ") for line in ran.stdout.splitlines()[2:]]
    assert [row[0].strip("| ") for row in rows] == ["ft1", "ft2", "demo/ft"]
    assert float(rows[2][6]) == round(report["evaluation"]["ported"]["value"], 4)
    command[3] = tmp_path / "many" / "ft1"
    assert subprocess.run(command, capture_output=True, check=False).returncode == 2  # the same name twice


def ported_once(folder: Path) -> Path:
    """A port of ft2 that was made before."""
    ported(folder / "before", folder / "many" / "ft2")
    return folder / "before"
