"""House rules that a reader can check: arrows point down, and layer names live in families/ alone."""

import ast
import re
from pathlib import Path

import pytest

import hf_bico

PACKAGE = Path(hf_bico.__file__).parent
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}
PAGE = PACKAGE.parent / "docs" / "architecture.md"
OUTSIDE = {"transformers", "open_clip", "peft", "datasets", "huggingface_hub", "typer", "rich"}
BELOW = {
    "core": ("hf_bico.core",),
    "families": ("hf_bico.core", "hf_bico.families"),
    "io": ("hf_bico.core", "hf_bico.families", "hf_bico.io"),
}


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


def rows() -> list[list[str]]:
    """Files and folders of every row of docs/architecture.md's table, from the top."""
    table = re.search(r"^\| room \|.*\n.*\n((?:\|.*\n)+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)[1]
    return [re.findall(r"`([\w/]+?(?:\.py|/))`", line.split("|")[1]) for line in table.splitlines()]


def place_of(name: str) -> int:
    """Which row has a file: by its own name, or by its folder's."""
    found = [i for i, row in enumerate(rows()) for each in row if name == each or name.startswith(each)]
    assert len(found) == 1, f"{name} is in {len(found)} rows of docs/architecture.md"
    return found[0]


@pytest.mark.parametrize("name", [name for name in FILES if name != "__init__.py"])
def test_a_file_imports_its_own_row_or_below(name):
    for module in imports(FILES[name], lazy=True):
        path = "/".join(module.split(".")[1:])
        known = next((each for each in (f"{path}.py", f"{path}/__init__.py") if each in FILES), None)
        if module.startswith("hf_bico.") and known:
            assert place_of(name) <= place_of(known), (name, module)


def test_the_page_names_what_is_there():
    """And every module of core by its own name."""
    named = [each for row in rows() for each in row]
    assert [each for each in named if not (PACKAGE / each).exists()] == []
    last = PAGE.read_text(encoding="utf-8").partition("| `core/` |")[2].partition("\n")[0]
    core = {name.removeprefix("core/") for name in FILES if re.fullmatch(r"core/[a-z]\w*\.py", name)}
    assert {f"{each}.py" for each in re.findall(r"`(\w+)`", last)} == core


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
