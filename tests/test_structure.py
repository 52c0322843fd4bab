"""House rules that a reader can check: seven rooms, arrows that point down, no circles, layer names in one room."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
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
WORLD_ROOMS = {"text", "vision", "weights", "zoo"}
PAGE = PACKAGE.parent / "docs" / "architecture.md"
ROOMS = ("cli", "workflows", "reports", "tasks", "io", "families", "core")
"""From the top; a room imports those behind it alone."""
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}
OUTSIDE = {"transformers", "open_clip", "peft", "datasets", "huggingface_hub", "typer", "rich"}


def imports(source: str, *, lazy: bool = True) -> set[str]:
    """Return the modules that a source file imports: inside functions too, or at its top alone."""
    tree = ast.parse(source)
    found = set()
    for node in ast.walk(tree) if lazy else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def arrows(sources: dict[str, str], package: str = "hf_bico.") -> dict[str, set[str]]:
    """Return, for every file of a package, the other files of it that it imports."""
    modules = {package + name.removesuffix(".py").replace("/", "."): name for name in sources}
    modules |= {module.removesuffix(".__init__"): name for module, name in modules.items()}
    return {
        name: {modules[each] for each in imports(text) if each in modules} - {name, "__init__.py"}
        for name, text in sources.items()
    }


def upward(found: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Return the arrows that run up: from a file to one in a room above its own."""
    place = {name: ROOMS.index(name.split("/")[0]) for name in found if "/" in name}
    return [(a, b) for a, there in found.items() for b in there if a in place and place[b] < place[a]]


def circle(found: dict[str, set[str]]) -> list[str]:
    """Return a circle of files that import one another; nothing where there is none."""
    try:
        TopologicalSorter(found).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def read_sources() -> dict[str, str]:
    return {name: path.read_text(encoding="utf-8") for name, path in FILES.items()}


def test_nothing_but_the_rooms_is_at_the_top():
    assert {path.name for path in PACKAGE.iterdir()} - {"__pycache__"} == {
        *ROOMS,
        "__init__.py",
        "__main__.py",
        "py.typed",
    }


def test_arrows_point_down():
    assert upward(arrows(read_sources())) == []


def test_no_file_imports_itself_through_others():
    assert circle(arrows(read_sources())) == []


def test_an_arrow_that_runs_up_is_seen():
    broken = read_sources()
    broken["core/linalg.py"] += "\n\ndef late():\n    from hf_bico.io.hub import Hub\n\n    return Hub\n"
    assert upward(arrows(broken)) == [("core/linalg.py", "io/hub.py")]


def test_a_circle_inside_a_room_is_seen():
    broken = read_sources()
    broken["core/types.py"] += "\nfrom hf_bico.core import transport\n"
    assert {"core/types.py", "core/transport.py"} <= set(circle(arrows(broken)))


def test_the_page_names_the_rooms_in_order():
    table = re.search(r"^\| room \|.*\n.*\n((?:\|.*\n)+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)[1]
    rows = dict(re.match(r"\| `(\w+)/` \| (.*) \|", line).groups() for line in table.splitlines())
    assert tuple(rows) == ROOMS
    for room, says in rows.items():
        named = {each.strip("/") for each in re.findall(r"`([\w/]+)`", says)}
        there = {path.stem for path in (PACKAGE / room).iterdir()} - {"__init__", "__pycache__"}
        assert named == there, room


def visible(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in folder.iterdir() if path.name != "__pycache__"}


def is_entry(path: Path) -> bool:
    """Return whether a file is there to be run."""
    return path.suffix == ".sh" or 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")


def test_scripts_have_nothing_but_entries_and_rooms_at_the_top():
    top = visible(SCRIPTS)
    assert {name for name, path in top.items() if path.is_dir()} == SCRIPT_ROOMS
    assert [name for name, path in top.items() if path.is_file() and not is_entry(path)] == []
    assert visible(SCRIPTS / "world").keys() == {*WORLD_ROOMS, "places.py"}


def test_no_script_imports_itself_through_others():
    sources = {path.relative_to(SCRIPTS).as_posix(): path.read_text("utf-8") for path in SCRIPTS.rglob("*.py")}
    found = arrows(sources, "hub_scripts.")
    assert sum(map(len, found.values())) > 50
    assert circle(found) == []


def test_test_files_are_short():
    tests = Path(__file__).parent.rglob("*.py")
    assert [path.name for path in tests if len(path.read_text(encoding="utf-8").splitlines()) > 350] == []


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("core/")])
def test_core_knows_no_hub_and_no_model_library(name):
    assert not {module.split(".")[0] for module in imports(read_sources()[name])} & OUTSIDE


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("families/")])
def test_families_import_their_libraries_late(name):
    assert not {module.split(".")[0] for module in imports(read_sources()[name], lazy=False)} & OUTSIDE


def test_layer_names_live_in_families():
    names = re.compile(r"visual\.|resblocks|in_proj|out_proj\b(?!_)|c_fc|c_proj|ln_post")
    for name, text in read_sources().items():
        if not name.startswith("families/") and name != "core/taps.py":  # taps spells out torch's own attention
            assert not names.search(text), name


def test_only_the_command_line_prints():
    printing = [
        name
        for name, text in read_sources().items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "print" and not name.startswith("cli/")
    ]
    assert printing == []


def test_what_runs_seldom_is_there():
    """A test that is renamed would run always again, unseen."""
    tests = Path(__file__).parent
    for pattern in SELDOM:
        file, test = re.match(r"(test_\w+)\\\.py::(test_\w+)", pattern).groups()
        (path,) = tests.rglob(f"{file}.py")
        assert f"def {test}" in path.read_text(encoding="utf-8"), pattern
