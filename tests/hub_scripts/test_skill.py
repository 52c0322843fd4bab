"""The skill for agents has the form that agents want; test_docs.py runs its commands and looks its options up."""

import re
from pathlib import Path

import pytest
import yaml
from support.snippets import PAGES

from hf_bico.reports.verdict import Grade
from hf_bico.reports.worth import Word

SKILLS = Path(__file__).parents[2] / "hub_scripts" / "skills"
SKILL = SKILLS / "hf-bico" / "SKILL.md"


@pytest.fixture(scope="module")
def parts() -> tuple[dict, str]:
    """Its front matter and its body."""
    _, front, body = re.split(r"^---\n", SKILL.read_text(encoding="utf-8"), maxsplit=2, flags=re.MULTILINE)
    return yaml.safe_load(front), body


def test_the_front_matter_is_what_agents_read(parts):
    """Lengths and signs are those of the Agent Skills format; the client wants a folder of that name with this file."""
    front, body = parts
    assert front.keys() == {"name", "description"}
    assert front["name"] == SKILL.parent.name and re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", front["name"])
    assert len(front["name"]) <= 64 and 0 < len(front["description"]) <= 1024
    assert "<" not in front["description"] and len(body.splitlines()) < 500
    assert [path.name for path in SKILLS.iterdir()] == ["hf-bico"]


def test_its_commands_are_tried_with_those_of_the_documents():
    assert SKILL in PAGES


@pytest.mark.parametrize(("column", "words"), [("verdict.grade", Grade), ("verdict.word", Word)])
def test_every_verdict_is_told(parts, column, words):
    table = re.search(rf"^\| `{re.escape(column)}` .*\n\|.*\n((?:\|.*\n)+)", parts[1], re.MULTILINE)[1]
    assert re.findall(r"^\| `([^`]+)`", table, re.MULTILINE) == list(words)
