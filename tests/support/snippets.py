"""What documents hold that can be wrong: blocks of code, options, names, links."""

import ast
import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SKILL = ROOT / "hub_scripts" / "skills" / "hf-bico" / "SKILL.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), SKILL]
SHOWN = "text"
"""The language of blocks that are not run: what the command before them prints."""
POINTS = 3.0
"""How far a shown percentage may be from the printed one: machines round otherwise."""
NUMBER = re.compile(r"(?<![\w/-])-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?(?P<percent> ?%)?")
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


def unlike(shown: str, printed: str) -> list[str]:
    """Lines of a shown output that are not among the printed ones in this order; blanks and frames do not count.

    Words must be the same, and percentages near. Other numbers (seconds, memory, losses) differ between machines. A
    line that ends in an ellipsis goes on where it is printed.
    """
    lines, wrong = [_plain(line) for line in printed.splitlines()], []
    for line in filter(None, map(_plain, shown.splitlines())):
        if line == "…":
            continue
        place = next((i for i, other in enumerate(lines) if _near(line, other)), None)
        if place is None:
            wrong.append(line)
        else:
            lines = lines[place + 1 :]
    return wrong


def by_the_paper(shown: str, other_head: bool) -> str:
    """What is left of the shown output of `auto` where the same port is made by the paper's method alone: the row of
    that method unless the head was another's choice, and those of the models without a port.
    """
    gone = r" target \+ ported|auto took|Verdict:|Next:" + (r"| target \+ τ by bico" if other_head else "")
    kept = [line for line in shown.splitlines() if not re.match(gone, line)]
    return "\n".join(kept).replace("τ by bico, the paper's method", "ported τ")


def _plain(line: str) -> str:
    return " ".join(re.sub(r"[─━┃┏┓┗┛┡┩└┘├┤┬┴┼┳┻╇]+", " ", line).split())


def _near(line: str, other: str) -> bool:
    begun = line.removesuffix(" …")
    shown, printed = (NUMBER.sub("#", each) for each in (begun, other))
    if not (printed == shown or (begun != line and printed.startswith(shown))):
        return False
    both = zip(NUMBER.finditer(begun), NUMBER.finditer(other), strict=False)
    return all(abs(_value(a) - _value(b)) <= POINTS for a, b in both if a["percent"] and b["percent"])


def _value(found: re.Match[str]) -> float:
    return float(found[0].removesuffix("%").strip().replace(",", ""))


def messages(folder: Path) -> list[str]:
    """Every string of a folder's code, with an ellipsis for what is filled in; options are spelled as on the command
    line.
    """
    found = []
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(map(_filled, node.values)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def _filled(part: ast.expr) -> str:
    match part:
        case ast.Constant(value=text):
            return str(text)
        case ast.FormattedValue(value=ast.Call(func=ast.Name(id="setting"), args=[ast.Constant(value=name)])):
            return "--" + str(name).replace("_", "-")
    return "…"


def is_said(quoted: str, said: list[str]) -> bool:
    """Whether what a page quotes is one of the messages, apart from what is filled in or left out."""
    pattern = re.compile(".*".join(map(re.escape, map(str.strip, quoted.split("…")))), re.DOTALL)
    return any(map(pattern.search, said))


def quoted(page: Path) -> list[str]:
    """The lines of a guide's last table, of what may go wrong."""
    _, _, told = page.read_text(encoding="utf-8").partition("## What may go wrong")
    return [line.removeprefix("Note: ") for line in re.findall(r"^\| `(.+?)`", told, re.MULTILINE)]


def parts_of_index(page: Path) -> dict[str, list[str]]:
    """Pages that the sections of an index link, with their folders; links that lead out of it are left out."""
    _, *parts = re.split(r"^## (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {title: re.findall(r"\]\(([\w/]+\.md)\)", text) for title, text in zip(parts[::2], parts[1::2], strict=True)}


def reached(page: Path) -> set[Path]:
    """All pages that can be come to by links."""
    found, to_read = {page}, [page]
    while to_read:
        here = to_read.pop()
        there = {(here.parent / path).resolve() for path, _ in links(here) if path.endswith(".md")} - found
        found |= there
        to_read += there
    return found
