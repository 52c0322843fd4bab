"""House rules that a reader can check: arrows point down, and layer names live in families/ alone."""

import ast
import re
from pathlib import Path

import pytest

import hf_bico

PACKAGE = Path(hf_bico.__file__).parent
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}
OUTSIDE = {"transformers", "open_clip", "peft", "datasets", "huggingface_hub", "typer", "rich"}
BELOW = {"core": ("hf_bico.core",), "families": ("hf_bico.core", "hf_bico.families"),
         "io": ("hf_bico.core", "hf_bico.families", "hf_bico.io")}


def imports(path: Path, *, lazy: bool) -> set[str]:
    """Modules that a file imports: at its top only, or inside functions too."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if lazy else tree.body
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("room", BELOW)
def test_arrows_point_down(room):
    for name, path in FILES.items():
        if name.startswith(f"{room}/"):
            own = {module for module in imports(path, lazy=True) if module.startswith("hf_bico.")}
            own.discard("hf_bico.__version__")
            assert all(module.startswith(BELOW[room]) for module in own), (name, own)


def test_core_knows_no_hub_and_no_model_library():
    for name, path in FILES.items():
        if name.startswith("core/"):
            assert not {module.split(".")[0] for module in imports(path, lazy=True)} & OUTSIDE, name


def test_families_import_their_libraries_late():
    for name, path in FILES.items():
        if name.startswith("families/"):
            assert not {module.split(".")[0] for module in imports(path, lazy=False)} & OUTSIDE, name


def test_layer_names_live_in_families():
    names = re.compile(r"visual\.|resblocks|in_proj|out_proj\b(?!_)|c_fc|c_proj|ln_post")
    for name, path in FILES.items():
        if not name.startswith("families/") and name != "core/taps.py":  # taps spells out torch's own attention
            assert not names.search(path.read_text()), name
