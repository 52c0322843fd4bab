"""The card of a port or of maps, made anew from the report that lies beside it."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_bico.core.errors import PortError, setting
from hf_bico.io.cards import CARD
from hf_bico.io.changes.delta import REPORT_FILE
from hf_bico.io.hub import Hub
from hf_bico.io.maps.files import MAPS_FILE
from hf_bico.io.reference import Pinned, errors_about
from hf_bico.reports.card import kept_of, write_card, write_maps_card
from hf_bico.reports.figures import draw_report
from hf_bico.reports.report import MapsReport, PortReport
from hf_bico.workflows.config import CardConfig

MESSAGE = "Write the card anew"


@dataclass(frozen=True)
class Carded:
    """A card that was written."""

    text: str
    """The whole of it."""
    folder: Path | None
    """Where it lies; None of a repo."""
    url: str | None
    """Of the commit or pull request; None without a push."""


def rewrite(config: CardConfig, hub: Hub) -> Carded:
    """Write the card of a folder anew, or that of a repo, which is pushed if that is asked for.

    Raises:
        PortError: it holds no report of a port or of maps, or one that cannot be read; the Hub refuses.
    """
    found = hub.resolve(config.place)
    if found.folder is not None and (config.push or config.create_pr):
        flag = setting("push" if config.push else "create_pr")
        raise PortError(
            f"{config.place} is a folder on this machine, where its card is written in place: leave out {flag}, or "
            "name the repo that it was pushed to"
        )
    reports = [(name, data) for name in (REPORT_FILE, MAPS_FILE) if (data := hub.json(found, name))]
    if not reports:
        raise PortError(f"{found} has neither {REPORT_FILE} nor {MAPS_FILE}: it was not made by hf-bico")
    if found.folder is not None:
        return Carded(_write(found.folder, *reports[0], found, hub), found.folder, None)
    wanted = config.push or config.create_pr
    if wanted:
        hub.writer()
    with tempfile.TemporaryDirectory(prefix="hf-bico-card-") as place:
        folder = Path(place)
        if CARD in found.files:
            (folder / CARD).write_bytes((hub.fetch(found, (CARD,)) / CARD).read_bytes())
        text = _write(folder, *reports[0], found, hub)
        if not wanted:
            return Carded(text, None, None)
        message = config.commit_message or MESSAGE
        url = hub.push(folder, found.name, parent=found.commit, message=message, create_pr=config.create_pr)
    return Carded(text, None, url)


def _write(folder: Path, name: str, data: Mapping[str, Any], where: Pinned, hub: Hub) -> str:
    """Write a card and its pictures into a folder, and return its text.

    Args:
        name: of the report's file.
        data: what that holds.
    """
    with errors_about(where):
        if name == MAPS_FILE:
            repo = None if where.folder else where.name
            write_maps_card(folder, MapsReport.from_json(data), repo, hub.api.endpoint)
        else:
            report = PortReport.from_json(data)
            draw_report(folder, report)
            write_card(folder, report, hub.api.endpoint)
    return (folder / CARD).read_text(encoding="utf-8")


def kept_text(hub: Hub, repo: str, commit: str | None, files: tuple[str, ...]) -> str:
    """Return what the owner of a repo wrote below the marker of its card; empty where there is none."""
    if commit is None or CARD not in files:
        return ""
    place = hub.fetch(Pinned(repo, commit, files), (CARD,)) / CARD
    return kept_of(place.read_text(encoding="utf-8", errors="replace"))
