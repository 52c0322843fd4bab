"""A page as HTML: one file that asks the network for nothing and runs no script.

All that is printed is escaped, as text and as attributes; a policy in the page itself forbids whatever is not its own
stylesheet, so that even a hole there would load and run nothing.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from hf_bico import __version__
from hf_bico.core.errors import PortError, printable
from hf_bico.reports.markdown import TEMPLATES
from hf_bico.reports.page import check, compare, maps, port
from hf_bico.reports.page.parts import Page
from hf_bico.reports.page.reading import read
from hf_bico.reports.report import CheckReport, CompareReport, MapsReport, PortReport

GENERATOR = f"hf_bico {__version__}"
MADE = b'<meta name="generator" content="hf_bico '
"""What a page of ours has near its beginning."""
LARGEST = 16 << 20
"""The most characters of JSON that a page is made of; a report of the largest models has some hundred thousand."""
SHOWN = 1 << 20
"""The most characters of JSON that a page shows."""
PAGES: dict[type, Callable[[Any, str], Page]] = {
    PortReport: port.page,
    CheckReport: check.page,
    CompareReport: compare.page,
    MapsReport: maps.page,
}
"""Type of a report → what makes what its page shows."""


def html_of(data: Mapping[str, Any], endpoint: str = "") -> str:
    """Return the page of a report.

    Args:
        data: its JSON, as `hf_bico.io.outside` reads it.
        endpoint: the Hub's address, for links; without one there are none.

    Raises:
        PortError: it is no report that can be read, or too large.
    """
    text = json.dumps(data, indent=1, ensure_ascii=False)
    if len(text) > LARGEST:
        raise PortError(f"it has {len(text):,} characters of JSON; a page is made of {LARGEST:,} at most")
    report = read(data)
    shown = PAGES[type(report)](report, endpoint)
    return render(shown, compact(text))


def render(shown: Page, text: str = "") -> str:
    """Return a page as HTML.

    Args:
        text: its JSON, which it ends with.
    """
    environment = _environment()
    style = Markup(environment.get_template("page.css").render().strip())
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    page = environment.get_template("page.html.j2")
    return page.render(
        page=shown,
        style=style,
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        generator=GENERATOR,
        text=text if len(text) <= SHOWN else "",
        length=len(text),
    )


def compact(text: str) -> str:
    """Return indented JSON with lists of numbers and texts in a line each."""
    lines = re.compile(r"\n\s*")
    return re.sub(r"\[\n[^\[\]{}]*?\n\s*\]", lambda found: _in_a_line(lines.split(found[0])), text)


def _in_a_line(parts: list[str]) -> str:
    return parts[0] + " ".join(parts[1:-1]) + parts[-1]


def _shown(value: Any) -> Any:
    """Return what is printed: a text without characters that turn letters round, or steer."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _lines(text: str) -> Markup:
    """Return a text of several lines, each as `_shown`; what cannot be shown is escaped as JSON escapes it."""
    return Markup("\n").join(
        escape(line if line.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line))
        for line in text.split("\n")
    )


@lru_cache(maxsize=1)
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(TEMPLATES / "page"),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["lines"] = _lines
    return made
