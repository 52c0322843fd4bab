"""Try many damaged inputs of every kind: python -m tests.fuzz

The counts go into the table of docs/reliability.md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Run the suite; 0 if all inputs came to the right thing or to one line."""
    from tests.support.tallies import put_table

    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=10_000, help="examples of each kind; whole ports are a thirtieth")
    parser.add_argument("--seed", type=int, help="try others than this; without it the first are those of CI")
    parser.add_argument("tests", nargs="*", default=["tests/fuzz"])
    chosen = parser.parse_args()
    words = ["-n", "2", "--dist", "loadfile", "-W", "ignore", *chosen.tests]
    with tempfile.TemporaryDirectory() as folder:
        env = os.environ | {"OMP_NUM_THREADS": "1", "FUZZ_EXAMPLES": str(chosen.n), "FUZZ_TALLY": folder}
        if chosen.seed is not None:
            env |= {"FUZZ_SEED": str(chosen.seed)}
            words += [f"--hypothesis-seed={chosen.seed}"]
        code = subprocess.run([sys.executable, "-m", "pytest", *words], cwd=ROOT, env=env).returncode
        rows = tallied(Path(folder))
    if not code:
        table = [(kind, f"{sum(n.values()):,}", f"{n['right']:,}", f"{n['one line']:,}") for kind, n in rows.items()]
        put_table("fuzz", ("damaged", "tried", "right", "one line"), table)
    return code


def tallied(folder: Path) -> dict[str, Counter]:
    """Return by kind how many inputs were right and how many refused, of all processes."""
    rows: dict[str, Counter] = {}
    for path in sorted(folder.glob("*.json")):
        for kind, counts in json.loads(path.read_text()).items():
            rows[kind] = rows.get(kind, Counter()) + Counter(counts)
    return rows


if __name__ == "__main__":
    sys.exit(main())
