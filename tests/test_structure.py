"""House rules that a reader can check: seven rooms, arrows that point down, no circles, layer names in one room."""

import re
from pathlib import Path

from support.seldom import SELDOM

import hf_bico

PACKAGE = Path(hf_bico.__file__).parent
SCRIPTS = PACKAGE.parent / "hub_scripts"
SCRIPT_ROOMS = {
    "benchmarks",
    "demo",
    "extension",
    "hubserver",
    "jobs",
    "papers",
    "real",
    "reference",
    "skills",
    "space",
    "world",
}


def test_what_runs_seldom_is_there():
    """A test that is renamed would run always again, unseen."""
    tests = Path(__file__).parent
    for pattern in SELDOM:
        file, test = re.match(r"(test_\w+)\\\.py::(test_\w+)", pattern).groups()
        (path,) = tests.rglob(f"{file}.py")
        assert f"def {test}" in path.read_text(encoding="utf-8"), pattern
