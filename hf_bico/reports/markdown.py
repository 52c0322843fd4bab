"""Templates of Markdown in which text from outside is text: it makes no metadata, HTML, links, images or cells.

Whatever a template prints is escaped unless it is `safe`, a code span (`code`) or a fence (`fenced`).
"""

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from hf_bico.core.errors import printable

TEMPLATES = Path(__file__).parent / "templates"
_MARKS = re.compile(
    r"""[\\`*\[\]<|~$]            # emphasis, code, links, HTML, cells, formulas
    | (?<![^\W_])_ | _(?![^\W_])  # emphasis too, unless within a word
    | &(?=\#|\w+;)                # entities
    | ^\s*[\#>=] | ^\s*[-+](?![\w.]) | ^\s*\d+[.)](?=\s|$)  # what begins a block
    """,
    re.VERBOSE,
)
_LINKED = re.compile(r"://|\bwww\.|\bmailto:|@[\w-]+\.\w", re.IGNORECASE)
"""Parts of texts that some renderers make links of by themselves."""


def inline(text: str) -> Markup:
    """Return a text as Markdown that shows it and is nothing else; with what looks like a link, as a code span."""
    line = printable(text)
    return code(line) if _LINKED.search(line) else Markup(_MARKS.sub(_escaped, re.sub(r"^\s+", " ", line)))


def _escaped(found: re.Match[str]) -> str:
    return f"{found[0][:-1]}\\{found[0][-1]}"


def spoken(text: str) -> Markup:
    """Return a sentence as `inline` does, with what stands in it between backticks as code spans."""
    parts = text.split("`")
    if not len(parts) % 2:
        return inline(text)
    return Markup("").join(code(part) if k % 2 else inline(part) for k, part in enumerate(parts) if part or k % 2)


def code(text: Any) -> Markup:
    """Return a text as a code span, in a table too."""
    line = printable(str(text)).replace("|", "\\|") or " "
    ticks = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    room = " " if line.startswith("`") or line.endswith("`") else ""
    return Markup(f"{ticks}{room}{line}{room}{ticks}")


def fenced(text: str, language: str = "") -> Markup:
    """Return lines of text as a fenced block."""
    lines = "\n".join(printable(line) for line in text.splitlines())
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", lines)), default=0))
    return Markup(f"{fence}{language}\n{lines}\n{fence}")


def _shown(value: Any) -> Any:
    return inline(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def render(template: str, **values: Any) -> str:
    """Return a template of this room with its values.

    Args:
        template: its file's name.
        values: strings in them are escaped when they are printed.
    """
    return _environment().get_template(template).render(**values)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    made = Environment(loader=FileSystemLoader(TEMPLATES), finalize=_shown)
    made.filters |= {"code": code, "fenced": fenced, "spoken": spoken}
    return made
