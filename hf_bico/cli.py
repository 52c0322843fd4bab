"""`hf-bico`: Typer in front of the pipeline. It alone speaks: results on stdout, everything else on stderr."""

import json
import logging
import os
import signal
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from typer.exceptions import TyperException

import hf_bico
from hf_bico import options as opt
from hf_bico.core.errors import PortError
from hf_bico.options import Base, Format, Formatting, Output, Quiet, Token

app = typer.Typer(name="hf-bico", add_completion=False, rich_markup_mode=None,
                  pretty_exceptions_enable=False)
INTERRUPTED = 130
_interrupted = threading.Event()
stderr = Console(stderr=True, highlight=False, soft_wrap=True)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"hf-bico {hf_bico.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def common(context: typer.Context, version: Annotated[bool, typer.Option(
        "--version", callback=_version, is_eager=True, help="Print the version.")] = False) -> None:
    """Carry a fine-tune over to a new base model, without training."""
    if context.invoked_subcommand is None:
        print(context.get_help())


class Voice:
    """How a command talks in the chosen format."""

    def __init__(self, format: Format, quiet: bool) -> None:
        self.format = Format.QUIET if quiet else format
        self.out = Console(highlight=False, soft_wrap=True)
        _hush()

    def track(self, items, what: str, total: int):
        """A progress bar on stderr while `items` pass."""
        quiet = self.format is Format.QUIET or not stderr.is_terminal
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=stderr, disable=quiet, transient=True) as progress:
            for item in progress.track(items, total=total, description=what):
                if _interrupted.is_set():  # a library below swallowed it
                    raise KeyboardInterrupt
                yield item

    def say(self, human: Any, data: Any, quiet: str) -> None:
        """The result, in the one form that was asked for."""
        if self.format is Format.HUMAN:
            self.out.print(human)
        elif self.format is Format.JSON or quiet:
            print(json.dumps(data, ensure_ascii=False) if self.format is Format.JSON else quiet)


def _hush() -> None:
    """The libraries' chatter and their bars, which outlive a table and count single small files; ours say it all."""
    import datasets
    import huggingface_hub

    for name in ("httpx2", "httpx", "open_clip", "huggingface_hub", "datasets"):
        logging.getLogger(name).setLevel(logging.ERROR)
    huggingface_hub.utils.disable_progress_bars()
    datasets.disable_progress_bars()


@app.command()
def port(
    source: opt.Source,
    to: opt.To,
    dataset: opt.Dataset,
    base: Base = None,
    config: opt.Config = None,
    split: opt.Split = "train",
    eval_split: opt.EvalSplit = None,
    eval_n: opt.EvalN = None,
    image_column: opt.ImageColumn = None,
    label_column: opt.LabelColumn = None,
    templates: opt.Templates = None,
    n: Annotated[int | None, typer.Option("-n", help="Calibration samples [default: 100].")] = None,
    per_class: Annotated[int | None, typer.Option(help="So many of every class, in place of -n.")] = None,
    strategy: opt.Strategy = None,
    seed: Annotated[int, typer.Option(help="Of the draw.", min=0)] = 0,
    method: Annotated[str, typer.Option(help="bico, best, theseus, naive …; a wrong name lists them all.")] = "bico",
    method_options: Annotated[list[str] | None, typer.Option("--set", help="An option of the method, as name=value; "
                                                                             "may be repeated.")] = None,
    bank: opt.Bank = None,
    alpha: Annotated[str, typer.Option(help="Scale of the ported task vector: a number, or auto for a line search of "
                                            "the calibration loss.")] = "1",
    batch_size: opt.BatchSize = 8,
    device: opt.Device = None,
    output: Output = None,
    push: Annotated[bool, typer.Option("--push", help="Publish as USER/SOURCE-on-TARGET.")] = False,
    push_to: Annotated[str | None, typer.Option(help="Publish as this repo.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make the repo private.")] = False,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Propose it as a pull request.")] = False,
    commit_message: Annotated[str | None, typer.Option(help="Of the push.")] = None,
    allow_regression: Annotated[bool, typer.Option("--allow-regression", help="Push a port that is worse than its "
                                                   "base.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Resolve, pair, estimate, and stop.")] = False,
    token: Token = None,
    format: Formatting = Format.HUMAN,
    quiet: Quiet = False,
) -> None:
    """Port SOURCE to the base model --to, score it, and write or push it with its card."""
    options = {name: value for name, value in locals().items()
               if name not in ("to", "dry_run", "token", "format", "quiet", "private")}
    voice = Voice(format, quiet)
    from hf_bico import blueprint, pipeline
    from hf_bico.io.hub import Hub

    options |= {"method_options": tuple(method_options or ()), "alpha": opt.scale(alpha)}
    chosen = blueprint.PortConfig(**options, target=to, private=private or None)
    hub = Hub(token)
    if dry_run:
        _say_dry_run(voice, *blueprint.dry_run(chosen, hub))
        return
    outcome = pipeline.run(chosen, hub, voice.track)
    data = outcome.report | {"url": outcome.url, "output": outcome.output and str(outcome.output)}
    voice.say(_score_table(outcome.evaluation), data, outcome.url or str(outcome.output or ""))
    if voice.format is Format.HUMAN:
        for made in filter(None, (outcome.output and f"Written to {outcome.output}",
                                  outcome.url and f"Pushed to {outcome.url}")):
            voice.out.print(made)
        if not (outcome.output or outcome.url or outcome.refusal):
            stderr.print("Nothing was kept: give --output DIR or --push")
    if outcome.evaluation.regressed and not outcome.refusal and voice.format is not Format.QUIET:
        stderr.print("Warning: the port scores below the target's zero-shot; is SOURCE the fine-tune, and --base what "
                     "it started from?")
    if outcome.refusal:
        raise PortError(outcome.refusal)


@app.command()
def compare(
    source: opt.Source,
    to: opt.To,
    dataset: opt.Dataset,
    base: Base = None,
    target_tuned: Annotated[str | None, typer.Option(help="A fine-tune of the new base itself, to measure the gap to; "
                                                          "else it is to the source's own score.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="May be repeated [default: all].")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="An option of a method, as METHOD:name=value; may "
                                                                     "be repeated.")] = None,
    alpha: Annotated[list[str] | None, typer.Option(help="A number or auto; may be repeated [default: 1].")] = None,
    n: Annotated[list[int] | None, typer.Option("-n", help="Calibration samples; may be repeated [default: 100].")
                 ] = None,
    per_class: Annotated[list[int] | None, typer.Option(help="So many of every class, in place of -n; may be "
                                                             "repeated.")] = None,
    strategy: opt.Strategy = None,
    seeds: Annotated[int, typer.Option(help="Draws of every size, by the seeds 0, 1, 2 …", min=1)] = 3,
    config: opt.Config = None,
    split: opt.Split = "train",
    eval_split: opt.EvalSplit = None,
    eval_n: opt.EvalN = None,
    image_column: opt.ImageColumn = None,
    label_column: opt.LabelColumn = None,
    templates: opt.Templates = None,
    bank: opt.Bank = None,
    batch_size: opt.BatchSize = 8,
    device: opt.Device = None,
    output: Output = None,
    token: Token = None,
    format: Formatting = Format.HUMAN,
    quiet: Quiet = False,
) -> None:
    """Port SOURCE by every METHOD, α and N on the same samples, and put the scores side by side."""
    shared = {name: value for name, value in locals().items() if name in (
        "source", "dataset", "base", "strategy", "config", "split", "eval_split", "eval_n", "image_column",
        "label_column", "templates", "bank", "batch_size", "device", "output")}
    voice = Voice(format, quiet)
    from hf_bico import blueprint, comparison
    from hf_bico.io.hub import Hub

    chosen = comparison.CompareConfig(
        blueprint.PortConfig(**shared, target=to), tuple(n or ()), tuple(per_class or ()), seeds, tuple(method or ()),
        tuple(settings or ()), tuple(map(opt.scale, alpha or ("1",))), target_tuned)
    data = comparison.run(chosen, Hub(token), voice.track)
    header, *rows = comparison.cells(data)
    table = Table(*header, caption=comparison.caption(data))
    for row in rows:
        table.add_row(*row)
    voice.say(table, data, str(output or ""))
    if voice.format is Format.HUMAN and output:
        voice.out.print(f"Written to {output}")


@app.command()
def extract(
    source: Annotated[str, typer.Argument(help="The fine-tune.")],
    output: Annotated[Path, typer.Option(help="A .safetensors file to write.")],
    base: Base = None,
    token: Token = None,
    format: Formatting = Format.HUMAN,
    quiet: Quiet = False,
) -> None:
    """Save the task vector SOURCE − base, with its lineage."""
    voice = Voice(format, quiet)
    from hf_bico.arithmetic import extract
    from hf_bico.io.hub import Hub

    vector, count = extract(source, base, output, Hub(token))
    voice.say(f"{count} tensors changed between {vector.lineage['base']} and {vector.lineage['source']}; "
              f"written to {output}", dict(vector.lineage) | {"tensors": count, "output": str(output)}, str(output))


@app.command()
def apply(
    delta: Annotated[Path, typer.Argument(help="A task vector that `extract` wrote.", exists=True, dir_okay=False)],
    to: Annotated[str, typer.Option(help="The model to add it to.")],
    output: Annotated[Path, typer.Option(help="A folder to write the sum to; it must be new or empty.")],
    alpha: Annotated[float, typer.Option(help="Scale of the task vector.")] = 1.0,
    token: Token = None,
    format: Formatting = Format.HUMAN,
    quiet: Quiet = False,
) -> None:
    """Add a task vector to a model of the same shapes, and write the whole model."""
    voice = Voice(format, quiet)
    from hf_bico.arithmetic import apply
    from hf_bico.io.hub import Hub

    target, lineage = apply(delta, to, output, alpha, Hub(token))
    voice.say(f"{target} + {alpha:g} × ({lineage['source']} − {lineage['base']}) written to {output}",
              {"target": str(target), "alpha": alpha, "task_vector": dict(lineage), "output": str(output)}, str(output))


def _score_table(evaluation) -> Table:
    table = Table("model", "accuracy", "95 % interval", title=f"{evaluation.split}, {evaluation.ported.n} samples")
    rows = {"fine-tuned source": evaluation.source, "target, zero-shot": evaluation.zero_shot,
            "target + naive copy": evaluation.naive, "target + ported": evaluation.ported}
    for name, score in rows.items():
        table.add_row(name, f"{score.accuracy:.1%}", f"{score.low:.1%} – {score.high:.1%}")
    return table


def _say_dry_run(voice: Voice, plan, cost) -> None:
    repo = plan.destination.repo if plan.destination else None
    depths = {b.depth: a.depth for a, b in plan.pairs if b.depth is not None}
    rows = {role: str(pinned) for role, pinned in vars(plan.lineage).items()} | {
        "blocks": ", ".join(f"{target} ← {source}" for target, source in depths.items()),
        "linear maps": str(len(plan.pairs)),
        "forward and backward": f"{cost.passes_flops / 1e9:.3g} GFLOP",
        "moments": f"{cost.moments_flops / 1e9:.3g} GFLOP, {cost.moments_bytes / 1e6:.0f} MB",
        "maps": f"{cost.maps_flops / 1e9:.3g} GFLOP",
        "weights": f"{cost.weights_bytes / 1e6:.0f} MB",
        "these take": f"about {cost.seconds:.0f} s here; loading and evaluation come on top",
        "would be pushed to": repo or "nowhere"}
    data = {"lineage": plan.lineage.record({}), "destination": repo, "estimate": asdict(cost),
            "pairs": [{"source": a.name, "target": b.name} for a, b in plan.pairs]}
    lines = ["Dry run: no weights were read, nothing was written", *(f"{name:22}{row}" for name, row in rows.items())]
    voice.say("\n".join(lines), data, repo or "")


def _on_interrupt(number: int, frame: object) -> None:
    _interrupted.set()
    raise KeyboardInterrupt


def main() -> None:
    """The console script: one line and exit code 2 for a user's mistake; a traceback only with HF_DEBUG=1."""
    _interrupted.clear()
    before = signal.signal(signal.SIGINT, _on_interrupt)
    try:
        code = app(standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as error:
        if _interrupted.is_set():  # a library below made an error of its own of it
            code = INTERRUPTED
        elif os.environ.get("HF_DEBUG") or not isinstance(error, (PortError, TyperException)):
            raise
        else:
            message = error.format_message() if isinstance(error, TyperException) else str(error)
            stderr.print(f"Error: {message}", markup=False)
            code = 2
    finally:
        signal.signal(signal.SIGINT, before)
    if code == INTERRUPTED:
        stderr.print("Interrupted; nothing was left half-written")
    sys.exit(code or 0)
