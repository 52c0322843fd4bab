"""List the mutants that no law and no test notices: python -m tests.mutants"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Run every mutant against what must notice it; 1 if one survives."""
    from tests.mutants.table import MUTANTS

    tests = sorted({test.partition("::")[0] for mutant in MUTANTS.values() for test in mutant.tests})
    runs = {"laws": ["tests/test_mutants.py"], "tests": ["-p", "tests.mutants.plugin", *tests]}
    print(f"{len(MUTANTS)} mutants; what survives is named below as FAILED", flush=True)
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile", "--tb", "no", "-W", "ignore", "-rfE"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    codes = [subprocess.run([*command, *words], cwd=ROOT, env=env).returncode for words in runs.values()]
    print("Some survive" if any(codes) else "0 survive")
    return int(any(codes))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))
    sys.exit(main())
