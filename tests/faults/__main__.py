"""Break everything, everywhere: python -m tests.faults

Every kind of fault meets every kind of request, and every step of writing a full disk, which takes some half hour. What
came of it goes into the table of docs/reliability.md.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Run the suite whole and write its table; 0 if nothing was wrong."""
    from tests.support.tallies import put_table

    tests = sys.argv[1:] or ["tests/faults"]
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile", "-W", "ignore", "--every", *tests]
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder) / "notes"
        notes.touch()
        env = os.environ | {"OMP_NUM_THREADS": "1", "BICO_FAULTS": str(notes)}
        code = subprocess.run(command, cwd=ROOT, env=env).returncode
        rows = rows_of([json.loads(line) for line in notes.read_text().splitlines()])
    put_table("faults", ("fault", "tried", "what came of it"), rows)
    return code or int(any("wrong" in outcomes for *_, outcomes in rows))


def rows_of(notes: list[list[str]]) -> list[tuple[str, str, str]]:
    """Return a row for every kind of fault: how often it struck, and how often each outcome was seen."""
    outcomes: dict[str, Counter] = defaultdict(Counter)
    for kind, _, outcome in notes:
        outcomes[kind][outcome] += 1
    return [
        (kind, f"{sum(found.values())}", ", ".join(f"{outcome}: {n}" for outcome, n in sorted(found.items())))
        for kind, found in outcomes.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
