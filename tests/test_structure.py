"""House rules that a reader can check: seven rooms, arrows that point down, no circles, layer names in one room."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import hf_bico

PACKAGE = Path(hf_bico.__file__).parent
SCRIPTS = PACKAGE.parent / "hub_scripts"
SCRIPT_ROOMS = {"benchmarks", "demo", "extension", "hubserver", "jobs", "papers", "real", "reference", "world"}
