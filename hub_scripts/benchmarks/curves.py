"""How time and memory of a port grow with the samples, the blocks and the width.

    python -m hub_scripts.benchmarks.curves

The pair of `hub_scripts.benchmarks.port`, on random weights. Each run is a process of its own; models are made before
the clock starts.
"""

import json
import subprocess
import sys
from itertools import pairwise

USUAL = {"-n": 50, "--depth": 2, "--scale": 1.0}
CURVES = {"-n": (25, 50, 100, 200), "--depth": (1, 2, 4, 8), "--scale": (0.5, 1.0, 1.5)}
"""Option of that benchmark → its values; the others are as usual."""


def measured(what: str, options: dict[str, float]) -> dict[str, float]:
    """Return seconds of CPUs and peak bytes of the floor or of a port."""
    words = [str(each) for option in options.items() for each in option]
    command = [sys.executable, "-m", "hub_scripts.benchmarks.port", "--only", what, *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print a table a curve."""
    for option, values in CURVES.items():
        print(f"\n| {option.lstrip('-')} | floor, s | port, s | port, GB | port's seconds × |\n|---|---|---|---|---|")
        rows = []
        for value in values:
            floor, port = (measured(what, USUAL | {option: value}) for what in ("floor", "port"))
            rows.append((value, floor["cpu"], port["cpu"], port["peak"] / 1e9))
        grown = [None, *(after[2] / before[2] for before, after in pairwise(rows))]
        for (value, *numbers), times in zip(rows, grown, strict=True):
            cells = [f"{value:g}", *(f"{number:.1f}" for number in numbers[:2]), f"{numbers[2]:.2f}"]
            print(f"| {' | '.join(cells)} | {'' if times is None else f'{times:.2f}'} |", flush=True)


if __name__ == "__main__":
    main()
