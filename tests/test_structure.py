"""House rules that a reader can check: seven rooms, arrows that point down, no circles, layer names in one room."""

from pathlib import Path

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
