"""`hf-bico port`."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from hf_bico.cli.console import Facts, Format, Grid, Terminal, stderr, toned
from hf_bico.cli.options import Call, command
from hf_bico.core.errors import PortError, setting
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.options import RUN

DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Say what would be done and what it would cost, and stop.", rich_help_panel=RUN),
]

KEEP = "--output DIR or --push"
"""What has a port kept."""


@command(PortConfig, "Porting {source} → {target}", recipes=True, dry_run=(DryRun, False))
def port(config: PortConfig, call: Call) -> None:
    """Port a fine-tune to a new base model, score it, write or push it.

    SOURCE may be a recipe: a YAML file of these settings, such as every port writes. What is said beside it wins.
    """
    if config.maps is not None and "method" in call.said:
        raise PortError(f"{setting('maps')} brings the method that made them: leave out {setting('method')}")
    from hf_bico.io.hub import Hub
    from hf_bico.workflows.dry_run import dry_run
    from hf_bico.workflows.port import run

    hub, terminal = Hub(call.token), call.terminal
    if call.flags["dry_run"]:
        _say_dry_run(terminal, *dry_run(config, hub))
    else:
        if terminal.format is Format.HUMAN and not (config.output or config.push or config.push_to):
            terminal.note(f"nothing will be kept but what is printed here: give {KEEP}")
        _say_outcome(terminal, run(config, hub, terminal.track))


def _say_outcome(terminal: Terminal, outcome) -> None:
    """Print the outcome of a port.

    Raises:
        PortError: it was not pushed although a push was asked for.
    """
    data = outcome.report | {
        "url": outcome.url,
        "announced": outcome.announced,
        "output": outcome.output and str(outcome.output),
    }
    terminal.say(_score_table(outcome.evaluation), data, outcome.url or str(outcome.output or ""))
    terminal.add(*outcome.report.get("roles", ()), *_said_of(outcome.report["method"]))
    for each in outcome.evaluation.elsewhere or ():
        also = f"Also on {each.dataset.name} ({each.split}, {each.ported.n} samples)"
        terminal.add(f"{also}: {each.ported.metric} {each.ported}, the new base without the port {each.zero_shot}")
    verdict = outcome.verdict
    said = Text.assemble("Verdict: ", toned(verdict.word.value), f": {verdict.reason}")
    terminal.add(said, f"Next: {verdict.next}")
    made = {"Written to": outcome.output, "Pushed to": outcome.url, "Proposed as the new version in": outcome.announced}
    terminal.add(*(f"{what} {where}" for what, where in made.items() if where))
    if terminal.is_read and not (outcome.output or outcome.url or outcome.refusal):
        stderr.print(f"Nothing was kept: give {KEEP}")
    if not verdict.pushable and not outcome.refusal:
        terminal.warn(f"Warning: {verdict.word}: {verdict.reason}; {verdict.next}")
    if outcome.refusal:
        raise PortError(outcome.refusal)


def _said_of(method: dict) -> list[str]:
    """Return what a method took, if it chose among others."""
    from hf_bico.core.choice import Attempt

    choice = method.get("choice")
    if not choice:
        return []
    taken = Attempt(**choice["chosen"])
    tried = f"of {len(choice['tried'])} methods, by the loss on held-out samples"
    return [f"{method['name']} took {taken.name} at α = {taken.alpha:g}, {tried}"]


def _score_table(evaluation) -> Grid:
    also = list(evaluation.ported.also)
    rows = [
        (name, str(score), score.interval, *(f"{score.also[what]:.4g}" for what in also))
        for name, score in evaluation.rows
    ]
    title = f"{evaluation.split}, {evaluation.ported.n} samples"
    return Grid(("model", evaluation.ported.metric, "95 % interval", *also), rows, title)


def _say_dry_run(terminal: Terminal, plan, cost) -> None:
    from hf_bico.families import told_of
    from hf_bico.reports.plain import to_plain
    from hf_bico.reports.records import origins

    repo, optional = plan.destination and plan.destination.repo, plan.models.optional_towers
    towers = ", ".join(sorted(optional))
    certain = [pair for pair in plan.models.pairs if pair.target.tower not in optional]
    more = len(plan.models.pairs) - len(certain)
    blocks = dict.fromkeys((b.depth, a.depth) for a, b in certain if b.depth is not None)
    stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in cost.stages.items() if seconds)
    rows = {role: str(pinned) for role, pinned in vars(plan.lineage).items()} | {
        "blocks": ", ".join(f"{target} ← {source}" for target, source in blocks),
        "linear maps": f"{len(certain)}" + (f", and {more} more if the fine-tune changed the {towers}" if more else ""),
        "method": f"{cost.method}, N = {cost.n}",
        "passes": f"{cost.passes_flops / 1e9:.3g} GFLOP"
        + (f", in {cost.groups} groups of layers, each in a pass of its own" if cost.groups > 1 else ""),
        "moments": f"{cost.moments_flops / 1e9:.3g} GFLOP, {cost.moments_bytes / 1e6:.0f} MB",
        "maps": f"{cost.maps_flops / 1e9:.3g} GFLOP",
        "search and evaluation": f"{cost.search_flops / 1e9:.3g} and {cost.evaluation_flops / 1e9:.3g} GFLOP",
        "weights": f"{cost.weights_bytes / 1e6:.0f} MB, at most {cost.memory_bytes / 1e9:.2f} GB in all",
        "these take": f"about {cost.seconds:.1f} s here ({stages}); loading and decoding come on top",
        "would be pushed to": repo or "nowhere",
    }
    data = {
        "lineage": to_plain(origins(plan.lineage, {})),
        "destination": repo,
        "estimate": asdict(cost),
        "pairs": [
            {"source": a.name, "target": b.name, "tower": b.tower, "certain": b.tower not in optional}
            for a, b in plan.models.pairs
        ],
    }
    told = Facts("Dry run: no weights were read, nothing was written", list(rows.items()))
    terminal.say(told, data, repo or "")
    terminal.add(*(told_of(*((each.family, each.skeleton) for each in plan.models.each[1:])) or ()))
