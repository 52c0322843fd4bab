"""What the documents say is so: their code runs; their options, names, files and links exist."""

import importlib
import json
import re
import subprocess
import sys
from configparser import ConfigParser
from itertools import pairwise
from pathlib import Path

import pytest
import typer
from support.commands import hf_bico as run_hf_bico
from support.snippets import (
    PAGES,
    ROOT,
    SHOWN,
    SKILL,
    anchors,
    blocks,
    by_the_paper,
    commands,
    links,
    parts_of_index,
    prose,
    reached,
    spans,
    told,
    unlike,
)

import hf_bico
from hf_bico.cli.main import app
from hf_bico.core.methods import METHODS, method_of
from hf_bico.io.changes.delta import REPORT_FILE

REFERENCE, INDEX = ROOT / "docs" / "api.md", ROOT / "docs" / "README.md"
WITH_CODE = [page for page in PAGES if page != REFERENCE and blocks(page)]  # the reference has signatures alone
NAMES = {
    "ft-vitb16": "vit64-digits",
    "vitb16-plus": "vit96",
    "task": "digits",
    "base": "vit64",
    "new-base": "vit96",
    "ft": "vit64-digits",
    "samples": "digits",
    "other-task": "digits",
}
"""What the documents call the user's own repos, and which of the demo's they are. Those of the guides have names."""
LAUNCHERS = {"-m", "--nproc_per_node", "--num_processes", "--multi_gpu"}
"""What is said to torchrun and accelerate."""
FOLDER = "my-fine-tunes"
"""A folder of fine-tunes on the user's disk."""
ROWS = {"train": 120, "test": 40}
"""How many of the demo's digits org/task has."""
INSTEAD = {"hub_scripts/paper_tables.py": ["--plan"]}
"""Scripts that would need a network and days, and what is added to their words so that they run all the same."""
DEMO = ["demo/vit64-digits", "--to", "demo/vit96", "--dataset", "demo/digits", "--push"]
"""What the README ports, by the method that is the default."""
HEADS = {"org/vit-digits": ["--head", "ridge"]}
"""The head that the default method took, after it had seen the samples under another: bico's row differs by points."""
NOT_RUN = {
    "hub_scripts/demo.sh": "makes an environment; the README's first command is what it shows",
    "hub_scripts/test.sh": "makes an environment and runs these tests",
    "hub_scripts/world/vision/results.py": "takes hours",
    "hub_scripts/real/results.py": "fetches two models and takes hours",
    "hub_scripts/real/tune.py": "fetches two models and takes most of an hour",
    "hub_scripts/world/vision/tables.py": "writes docs; test_results.py runs what it does",
    "hub_scripts/world/vision/figures.py": "writes docs/images",
}
"""Scripts that are only parsed, and why."""


@pytest.fixture(scope="module")
def user(hub, tmp_path_factory):
    """The Hub as the documents speak of it: the demo's repos, and the user's own in org/. Its folder of fine-tunes."""
    import datasets

    from hub_scripts.demo import guides
    from hub_scripts.demo.publish import push, write_dataset, write_models

    root = tmp_path_factory.mktemp("demo")
    kinds = dict.fromkeys(write_models(root), "model") | {write_dataset(root).name: "dataset"}
    for name, kind in kinds.items():
        push(root / name, f"demo/{name}", kind)
    for name, kind in guides.write(root).items():
        push(root / name, f"org/{name}", kind)
    for split, n in ROWS.items():
        place = root / "digits" / "data" / f"{split}-00000-of-00001.parquet"
        datasets.Dataset.from_parquet(str(place)).select(range(n)).to_parquet(place)
    for alias, name in NAMES.items():
        push(root / name, f"org/{alias}", kinds[name])
    (root / FOLDER).mkdir()
    (root / FOLDER / "digits").symlink_to(root / "vit64-digits")
    return root / FOLDER


@pytest.fixture
def run(capsys, monkeypatch, tmp_path, user):
    """Runs a block as a user would, in a temporary folder; what Python makes goes into `names`."""
    (tmp_path / "hub_scripts").symlink_to(ROOT / "hub_scripts")
    (tmp_path / FOLDER).symlink_to(user)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")  # as wide as the shown tables

    said: list[str] = []

    def run_block(block, names: dict) -> None:
        if block.language == SHOWN:
            printed = "\n".join(said)
            shown = block.code
            if "auto took" in shown and "auto took" not in printed:
                shown = by_the_paper(shown, any(source in printed for source in HEADS))
            assert unlike(shown, printed) == [], block.place
            return
        if block.language == "yaml":  # its first line says which file it is
            Path(block.code.splitlines()[0].removeprefix("# ")).write_text(block.code, encoding="utf-8")
            return
        if block.language == "python":
            exec(compile("\n" * (block.line - 1) + block.code, str(block.page), "exec"), names)
            return
        for words in commands(block.code):
            if words[0] == "hf-bico":
                ran = run_hf_bico(capsys, monkeypatch, *words[1:], *paper(words))
                assert ran.code == 0, (block.place, words, ran.err)
                said.append(ran.out + ran.err)
            else:
                run_other(words, block.place)

    return run_block


def paper(words: list[str]) -> list[str]:
    """What makes a port by the paper's method: the choice among all takes most of a minute, and is made for the demo's
    own command.
    """
    ours = {"--method", "--maps", "--help"} & set(words)
    if words[1] != "port" or ours or words[2:] == DEMO:
        return []
    return ["--method", "bico", *HEADS.get(words[2], [])]


def run_other(words: list[str], place: str) -> None:
    """The commands of a document that are not ours: each is run, or what can be wrong with it is looked at."""
    if words[:2] == ["pip", "install"]:  # would change the environment that the tests run in
        assert_installable(words[2])
    elif script_of(words) in NOT_RUN:
        parse = {"python": [sys.executable, "-m", "ast"], "bash": ["bash", "-n"]}[words[0]]
        subprocess.run([*parse, script_of(words)], check=True, stdout=subprocess.DEVNULL)
    else:
        assert words[0] == "python", f"{place}: say in run_other how {' '.join(words)!r} is tried"
        also = INSTEAD.get(script_of(words), [])
        ran = subprocess.run([sys.executable, *words[1:], *also], capture_output=True, text=True)
        assert ran.returncode == 0, (place, ran.stderr)


def script_of(words: list[str]) -> str:
    """The file that python or bash is told to run, by its path or as a module."""
    if words[1] != "-m":
        return words[1]
    place = words[2].replace(".", "/")
    return f"{place}/__main__.py" if (ROOT / place).is_dir() else f"{place}.py"


def assert_installable(what: str) -> None:
    setup = ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg")
    extra = re.fullmatch(r"(?:\.|hf-bico)(?:\[(\w+)\])?", what)[1]
    assert extra is None or extra in setup["options.extras_require"]


def page_id(page) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", WITH_CODE, ids=page_id)
def test_the_code_of_a_page_runs(page, run):
    """From its top to its end, a later block with what an earlier one made."""
    names = {"__name__": "__main__"}
    for block in blocks(page):
        assert block.language in ("", "bash", "sh", "python", "yaml", SHOWN), f"{block.place}: say how it is tried"
        run(block, names)
    check = GIVES.get(page_id(page))
    assert check is None or check(names)


def is_the_real_table(names: dict) -> bool:
    from hf_bico.families.tables.distilbert import DISTILBERT

    return names["DISTILBERT"] == DISTILBERT


def gives_the_readmes_figures(names: dict) -> bool:
    """The demo's table is what its command pushed, to a point."""
    from huggingface_hub import hf_hub_download

    report = json.loads(Path(hf_hub_download("demo/vit64-digits-on-vit96", "hf_bico.json")).read_text())
    scores = [100 * report["evaluation"][who]["value"] for who in ("source", "zero_shot", "naive", "bico", "ported")]
    said = re.findall(r"^ (?:fine-tuned|target) .+?  +([\d.]+)%  ", (ROOT / "README.md").read_text(), re.MULTILINE)
    return list(map(float, said)) == pytest.approx(scores, abs=1)


def ports_every_layer(names: dict) -> bool:
    return len(names["ported"].moved) == 25


def ports_well_above_chance(names: dict) -> bool:
    """The Trainer's port, on ten classes: what the page says of it."""
    (outcome,) = names["ports"].outcomes.values()
    scores = outcome.evaluation
    return scores.ported.low > 0.5 and scores.ported.value > scores.zero_shot.value


GIVES = {
    "README.md": gives_the_readmes_figures,
    "docs/adding_a_family.md": is_the_real_table,
    "docs/guides/clip.md": ports_every_layer,
    "docs/training.md": ports_well_above_chance,
}
"""What must be so when a page's code has run."""


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_are_fenced(page):
    """So that none is missed."""
    assert not re.search(r"^ {4,}(hf-bico|python|bash|pip) ", prose(page), re.MULTILINE)


def options() -> dict[str, set[str]]:
    """Of every command."""
    found = typer.main.get_command(app).commands
    return {
        name: {each for param in command.params for each in param.opts if each[0] == "-"} | {"--help", "-h"}
        for name, command in found.items()
    }


def known(words: list[str], page) -> set[str]:
    """The options that these words may name."""
    ours = options()
    if words[0] == "hf-bico" and len(words) > 1:
        return ours[words[1]]
    if words[-1] == "-m":
        return LAUNCHERS
    if words[0] in ("python", "bash"):
        own = options_of_script("tests/conftest.py") if words[0] == "bash" else set()
        return options_of_script(script_of(words)) | {"-m"} | own
    text = page.read_text(encoding="utf-8")
    scripts = set(re.findall(r"(?<![\w/])hub_scripts/[\w/]+\.py", text))
    scripts |= {script_of(["python", "-m", module]) for module in re.findall(r"hub_scripts(?:\.\w+)+", text)}
    whole = {each for param in typer.main.get_command(app).params for each in param.opts}
    return whole.union(*ours.values(), *map(options_of_script, scripts))


def options_of_script(path: str) -> set[str]:
    return set(re.findall(r'"(--?[a-z][\w-]*)"', (ROOT / path).read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_options_exist(page):
    for words in told(page):
        for part in parts(words):
            given = {word.partition("=")[0].rstrip(",") for word in part if re.match(r"--?[a-z]", word)}
            assert given <= known(part, page), part


def parts(words: list[str]) -> list[list[str]]:
    """What is behind -m hf_bico is said to our command, what is before to another's."""
    if "hf_bico" not in words:
        return [words]
    cut = words.index("hf_bico")
    return [words[:cut], ["hf-bico", *words[cut + 1 :]]]


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_options_of_methods_exist(page):
    for words in told(page):
        for option, text in pairwise(words):
            method, _, setting = text.rpartition(":")
            if option == "--set" and re.fullmatch(r"\w+=[a-z0-9.]+", setting) and setting != "name=value":
                some = [method] if method else METHODS
                assert any(takes(name, setting) for name in some), words
            if option == "--method" and text.islower() and page != REFERENCE:
                assert text in METHODS, words


def takes(method: str, setting: str) -> bool:
    try:
        return bool(method_of(method, [setting]))
    except hf_bico.PortError:
        return False


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page):
    for path, anchor in links(page):
        there = (page.parent / path) if path else page
        assert there.exists(), path
        assert not anchor or anchor in anchors(there), f"{path}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_files_and_names_that_are_spoken_of_exist(page):
    for span in spans(page):
        if re.fullmatch(r"(hub_scripts|tests|docs|hf_bico)/[\w./-]*", span):
            assert (ROOT / span).exists(), span
        if span != REPORT_FILE and (dotted := re.match(r"hf_bico(\.\w+)+", span)):
            assert resolved(dotted[0]), span


def resolved(name: str) -> bool:
    """Whether a dotted name is a module, or in one."""
    module, _, last = name.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), last) or bool(importlib.import_module(name))
    except ImportError:
        return False


@pytest.mark.parametrize("page", ["docs/guides/compare.md", "docs/methods.md"])
def test_every_method_is_told(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"^(?:\| |## )(.+?)(?: \||$)", text, re.MULTILINE)
    words = {word.strip("`") for line in named for word in line.split(", ")}
    assert METHODS.keys() <= words


def test_every_page_is_in_one_part_of_the_index():
    """Four parts; each page is linked once, so that it is found and nobody looks for it in two places."""
    found = parts_of_index(INDEX)
    assert list(found) == ["Getting started", "Guides", "Concepts", "Reference"]
    linked = [page for pages in found.values() for page in pages]
    there = {str(page.relative_to(INDEX.parent)) for page in PAGES if page.is_relative_to(INDEX.parent)}
    assert sorted(linked) == sorted(there - {INDEX.name})


def test_every_page_is_reached_from_the_readme():
    assert {*PAGES} - {SKILL} <= reached(ROOT / "README.md")
