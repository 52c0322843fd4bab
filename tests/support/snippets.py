"""What documents hold that can be wrong: blocks of code, options, names, links."""

import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SKILL = ROOT / "hub_scripts" / "skills" / "hf-bico" / "SKILL.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), SKILL]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block; `line` is where its code begins."""

    page: Path
    line: int
    language: str
    code: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, found.start(3)) + 1, found[2], textwrap.dedent(found[3]))
        for found in FENCE.finditer(text)
    ]


def commands(code: str) -> list[list[str]]:
    """A shell block's commands in words; lines that end in a backslash go on."""
    lines = code.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def spans(page: Path) -> list[str]:
    """Inline code, each in one line."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page))]


def told(page: Path) -> Iterator[list[str]]:
    """Words of every command and option that a page speaks of, in blocks and inline."""
    for block in blocks(page):
        if block.language in ("", "bash", "sh"):
            yield from commands(block.code)
    for span in spans(page):
        if re.match(r"(hf-bico|python|bash|-{1,2}\w)", span):
            yield span.replace("'", "").split()


def links(page: Path) -> list[tuple[str, str]]:
    """Path and anchor of every link and image that is not the web's."""
    targets = re.findall(r"\]\(([^)\s]+)[^)]*\)", prose(page)) + re.findall(r'(?:src|href)="([^"]+)"', prose(page))
    return [(path, anchor) for path, _, anchor in (target.partition("#") for target in targets) if "://" not in path]


def anchors(page: Path) -> set[str]:
    """What headings are called in links: lower case, hyphens for blanks, no other signs."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
