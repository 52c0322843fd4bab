"""`hf-bico port`."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from hf_bico.cli import options as opt
from hf_bico.cli.console import Format, Terminal, stderr
from hf_bico.core.errors import PortError


def port(
    source: opt.Source,
    to: opt.To,
    dataset: opt.Dataset,
    base: opt.Base = None,
    config: opt.Config = None,
    split: opt.Split = "train",
    eval_split: opt.EvalSplit = None,
    eval_n: opt.EvalN = None,
    columns: opt.Columns = None,
    streaming: opt.Streaming = False,
    templates: opt.Templates = None,
    max_length: opt.MaxLength = 256,
    family: opt.Family = None,
    head: opt.Head = None,
    matching: opt.Matching = "index",
    layers: opt.Layers = None,
    skip: opt.Skip = None,
    n: opt.Samples = None,
    per_class: opt.PerClass = None,
    strategy: opt.Strategy = None,
    seed: opt.Seed = 0,
    method: Annotated[
        str | None, typer.Option(help="bico, best, theseus, naive …; a wrong name lists them all [default: bico].")
    ] = None,
    method_options: opt.Settings = None,
    bank: opt.Bank = None,
    maps: Annotated[
        str | None,
        typer.Option(
            help="Move through maps that `hf-bico align` made, a repo or a folder, in place of a method of one's own."
        ),
    ] = None,
    alpha: opt.Alpha = "1",
    batch_size: opt.BatchSize = 8,
    device: opt.Device = None,
    form: Annotated[
        str, typer.Option("--as", help="Write the whole model, a delta of --to, or a lora of it.")
    ] = "model",
    rank: Annotated[int | None, typer.Option(help="Of a lora, where the change is not of low rank already.")] = None,
    energy: Annotated[
        float | None,
        typer.Option(help="The same by the share of every layer's ‖τ‖² that is kept [default: all of it]."),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="Of a delta's matrices: bfloat16 or float32 [default: bfloat16, unless that is measurable]."),
    ] = None,
    output: opt.Output = None,
    push: Annotated[
        bool, typer.Option("--push", help="Publish as USER/SOURCE-on-TARGET, a delta or lora with that behind it.")
    ] = False,
    push_to: Annotated[str | None, typer.Option(help="Publish as this repo.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make the repo private.")] = False,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Propose it as a pull request.")] = False,
    commit_message: Annotated[str | None, typer.Option(help="Of the push.")] = None,
    allow_regression: Annotated[
        bool, typer.Option("--allow-regression", help="Push a port that is worse than its base.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Resolve, pair, estimate, and stop.")] = False,
    token: opt.Token = None,
    format: opt.Formatting = Format.HUMAN,
    quiet: opt.Quiet = False,
) -> None:
    """Port SOURCE to the base model --to, score it, and write or push it with its card."""
    if maps is not None and method is not None:
        raise PortError("--maps brings the method that made them: leave out --method")
    given = dict(locals()) | {"method": method or "bico"}
    terminal = Terminal(format, quiet)
    from hf_bico.io.hub import Hub
    from hf_bico.workflows import plan as blueprint
    from hf_bico.workflows import port as pipeline

    chosen = opt.of_port(given)
    hub = Hub(token)
    if dry_run:
        _say_dry_run(terminal, *blueprint.dry_run(chosen, hub))
    else:
        _say_outcome(terminal, pipeline.run(chosen, hub, terminal.track))


def _say_outcome(terminal: Terminal, outcome) -> None:
    """
    Raises:
        PortError: it was not pushed although a push was asked for.
    """
    data = outcome.report | {"url": outcome.url, "output": outcome.output and str(outcome.output)}
    terminal.say(_score_table(outcome.evaluation), data, outcome.url or str(outcome.output or ""))
    terminal.add(
        *filter(None, (outcome.output and f"Written to {outcome.output}", outcome.url and f"Pushed to {outcome.url}"))
    )
    if terminal.format is Format.HUMAN and not (outcome.output or outcome.url or outcome.refusal):
        stderr.print("Nothing was kept: give --output DIR or --push")
    if outcome.evaluation.regressed and not outcome.refusal:
        terminal.warn(
            "Warning: the port scores worse than the target without it; is SOURCE the fine-tune, and --base "
            "what it started from?"
        )
    if outcome.refusal:
        raise PortError(outcome.refusal)


def _score_table(evaluation) -> Table:
    also = list(evaluation.ported.also)
    table = Table(
        "model",
        evaluation.ported.metric,
        "95 % interval",
        *also,
        title=f"{evaluation.split}, {evaluation.ported.n} samples",
    )
    rows = {
        "fine-tuned source": evaluation.source,
        "target without the port": evaluation.zero_shot,
        "target + naive copy": evaluation.naive,
        "target + ported": evaluation.ported,
    }
    for name, score in rows.items():
        table.add_row(name, str(score), score.interval, *(f"{score.also[what]:.4g}" for what in also))
    return table


def _say_dry_run(terminal: Terminal, plan, cost) -> None:
    from hf_bico.io.models import optional_towers

    repo, optional = plan.destination and plan.destination.repo, optional_towers(plan)
    certain = [pair for pair in plan.pairs if pair.target.tower not in optional]
    blocks = dict.fromkeys((b.depth, a.depth) for a, b in certain if b.depth is not None)
    stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in cost.stages.items() if seconds)
    rows = {role: str(pinned) for role, pinned in vars(plan.lineage).items()} | {
        "blocks": ", ".join(f"{target} ← {source}" for target, source in blocks),
        "linear maps": f"{len(certain)}"
        + (
            f", and {len(plan.pairs) - len(certain)} more if the fine-tune changed the {', '.join(sorted(optional))}"
            if len(certain) < len(plan.pairs)
            else ""
        ),
        "method": f"{cost.method}, N = {cost.n}",
        "passes": f"{cost.passes_flops / 1e9:.3g} GFLOP",
        "moments": f"{cost.moments_flops / 1e9:.3g} GFLOP, {cost.moments_bytes / 1e6:.0f} MB",
        "maps": f"{cost.maps_flops / 1e9:.3g} GFLOP",
        "search and evaluation": f"{cost.search_flops / 1e9:.3g} and {cost.evaluation_flops / 1e9:.3g} GFLOP",
        "weights": f"{cost.weights_bytes / 1e6:.0f} MB, at most {cost.memory_bytes / 1e9:.2f} GB in all",
        "these take": f"about {cost.seconds:.1f} s here ({stages}); loading and decoding come on top",
        "would be pushed to": repo or "nowhere",
    }
    data = {
        "lineage": plan.lineage.record({}),
        "destination": repo,
        "estimate": asdict(cost),
        "pairs": [
            {"source": a.name, "target": b.name, "tower": b.tower, "certain": b.tower not in optional}
            for a, b in plan.pairs
        ],
    }
    lines = ["Dry run: no weights were read, nothing was written", *(f"{name:22}{row}" for name, row in rows.items())]
    terminal.say("\n".join(lines), data, repo or "")
