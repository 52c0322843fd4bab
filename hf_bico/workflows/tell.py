"""`hf-bico report`: a report that was written as one HTML page."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hf_bico.core.errors import PortError, listed, setting
from hf_bico.io.changes.delta import REPORT_FILE
from hf_bico.io.hub import Hub
from hf_bico.io.maps.files import MAPS_FILE
from hf_bico.io.outside import read_object
from hf_bico.io.reference import errors_about
from hf_bico.io.writer import require_folder_of, staged
from hf_bico.reports.page.html import MADE, html_of
from hf_bico.workflows.config import ReportConfig

FILES = (REPORT_FILE, MAPS_FILE, "compare.json", "check.json")
"""What a report is looked for in, the first that is there."""
PAGE = "report.html"
MADE_OF = (
    "name a folder or a repo that a port, an alignment or a comparison wrote, or a JSON file of what a command gave "
    "with --format json"
)
"""What a page is made of."""
HEAD = 2048
"""Bytes at the beginning of a file in which a page of ours says that it is one."""


class Found(NamedTuple):
    """A report that was found."""

    what: str
    """What it is called in errors."""
    data: Mapping[str, Any]
    page: Path
    """Where its page goes, unless another place is named."""


@dataclass(frozen=True)
class Told:
    """A page that was written."""

    output: Path
    what: str
    """What it was made of."""


def run(config: ReportConfig, hub: Hub) -> Told:
    """Write the page of a report, and return where it is.

    Raises:
        PortError: there is no report, or none that can be read; the page cannot be written there. Nothing is.
    """
    found = find(config.place, hub)
    output = config.output or found.page
    require_place(output)
    try:
        text = html_of(found.data, hub.api.endpoint)
    except PortError as error:
        raise PortError(f"{found.what}: {error.message}") from error
    with staged(output) as stage:
        stage.write_text(text, encoding="utf-8")
        output.unlink(missing_ok=True)
    return Told(output, found.what)


def find(place: str, hub: Hub) -> Found:
    """Return the report in a folder, a repo or a JSON file.

    Raises:
        PortError: there is none.
    """
    file = Path(place).expanduser()
    if file.is_file() and not place.startswith("hf://"):
        if file.suffix != ".json":
            raise PortError(f"{place} is a file that holds no report: {MADE_OF}")
        return Found(file.name, read_object(file), file.with_suffix(".html"))
    pinned = hub.resolve(place)
    name = next((name for name in FILES if name in pinned.files), None)
    if name is None:
        raise PortError(f"{pinned} has no report ({listed(FILES)}): {MADE_OF}")
    data = hub.json(pinned, name)
    with errors_about(pinned):
        if not data:
            raise PortError(f"{name} is empty")
    page = pinned.folder / PAGE if pinned.folder else Path(f"{pinned.name.split('/')[-1]}-{PAGE}")
    return Found(f"{name} of {pinned}", data, page)


def require_place(output: Path) -> None:
    """Refuse a place for a page that is a folder, holds something else than a page of ours, or cannot be written to.

    Raises:
        PortError: it is.
    """
    another = f"name another file with {setting('output')}"
    if output.suffix.lower() not in (".html", ".htm"):
        raise PortError(f"{output} does not end in .html, as a page does: {another}")
    if output.is_symlink() or (output.exists() and not output.is_file()):
        raise PortError(f"{output} is there and is no file: {another}")
    require_folder_of(output)
    if output.exists():
        with output.open("rb") as file:
            if MADE not in file.read(HEAD):
                raise PortError(f"{output} is there and is no page of hf_bico: {another}")
