"""`hf-bico fleet`."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from hf_bico.cli.console import Format, Grid, Terminal, stderr, toned
from hf_bico.cli.options import Call, command
from hf_bico.workflows.config import FleetConfig

FAILED = 1
"""Exit code where a cell failed; 2 is a mistake in what was asked."""


@command(FleetConfig, "Reading {plan}")
def fleet(config: FleetConfig, call: Call) -> None:
    """Port many fine-tunes to many new bases by many methods.

    Each port of PLAN is made in a process of its own.

    Called again, it goes on where it was: what is done is not done again, what failed is tried again. Exit code 1 means
    that a cell failed.
    """
    from hf_bico.io.hub import Hub
    from hf_bico.workflows.fleet.run import entries_of, open_fleet, run

    terminal, hub = call.terminal, Hub(call.token)
    planned = open_fleet(config, hub)
    if config.show:
        _show(terminal, planned.shown())
        return
    with Board(terminal) as board:
        ledger = run(planned, config, hub, board.show)
    entries = entries_of(planned, ledger)
    made = [entry.url or entry.output for entry in entries.values() if entry.state == "done" and entry.kind == "port"]
    terminal.say(_scores(entries), ledger.to_json(), "\n".join(filter(None, made)))
    bad = {name: entry for name, entry in entries.items() if entry.state == "failed"}
    for name, entry in bad.items():
        stderr.print(Text.assemble(f"{name} ", toned("failed"), f": {entry.error}"))
    if bad:
        raise typer.Exit(FAILED)


def _show(terminal: Terminal, shown: list[Any]) -> None:
    """Print what would be done, a line each: commands, or requests as JSON."""
    lines = [each if isinstance(each, str) else json.dumps(each, ensure_ascii=False) for each in shown]
    if terminal.format is Format.JSON:
        print(json.dumps([shlex.split(each) if isinstance(each, str) else each for each in shown], ensure_ascii=False))
    else:
        print("\n".join(lines))


class Board:
    """The tasks of a fleet in one table on stderr while they are done; where that is no terminal, a line a change."""

    def __init__(self, terminal: Terminal) -> None:
        from rich.live import Live

        self.terminal = terminal
        self.live = Live(console=stderr, transient=True, auto_refresh=False) if terminal.draws else None
        self.told: dict[str, str] = {}

    def __enter__(self) -> "Board":
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def show(self, entries: Mapping[str, Any]) -> None:
        """Show the tasks as they are now."""
        if self.live:
            self.live.update(_progress(entries), refresh=True)
            return
        for name, entry in entries.items():
            if self.told.get(name, "waiting") != entry.state:
                self.terminal.warn(f"{name}: {' '.join(filter(None, (entry.state, _told(entry))))}")
            self.told[name] = entry.state


def _progress(entries: Mapping[str, Any]) -> Table:
    states = [entry.state for entry in entries.values()]
    count = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    rows = [
        (name, str(entry.state), _told(entry), "" if entry.seconds is None else f"{entry.seconds:.0f}")
        for name, entry in entries.items()
    ]
    return Grid(("cell", "state", "", "seconds"), rows, f"{len(states)} in all: {count}", "state").table()


def _told(entry: Any) -> str:
    """Return what is to be said of a task beside its state."""
    if entry.state == "failed":
        return entry.error or ""
    if entry.state == "running":
        return entry.job_url or entry.stage or ""
    if entry.state == "done" and entry.scores:
        return f"{entry.metric} {_figure(entry.scores['zero_shot'])} → {_figure(entry.scores['ported'])}"
    return ""


def _scores(entries: Mapping[str, Any]) -> Grid:
    """Return the scores of all ports, and how far those are that have none."""
    head = ("cell", "metric", "on its base", "new base", "naive copy", "ported", "recovered", "verdict")
    rows = []
    for name, entry in entries.items():
        if entry.kind == "port":
            scores = [_figure(entry.scores.get(row)) for row in ("source", "zero_shot", "naive", "ported")]
            recovered = "–" if entry.recovered is None else f"{entry.recovered:.0%}"
            verdict = entry.verdict if entry.state == "done" else str(entry.state)
            rows.append((name, entry.metric or "–", *scores, recovered, verdict))
    return Grid(head, rows, tone="verdict")


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
