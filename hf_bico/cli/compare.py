"""`hf-bico compare`."""

from typing import Annotated

import typer
from rich import box
from rich.table import Table

from hf_bico.cli import options as opt
from hf_bico.cli.console import Format, Terminal


def compare(
    source: opt.Source,
    to: opt.To,
    dataset: opt.Dataset,
    base: opt.Base = None,
    target_tuned: Annotated[
        str | None,
        typer.Option(
            help="A fine-tune of the new base itself, to measure the gap to; else it is to the source's own score."
        ),
    ] = None,
    method: Annotated[list[str] | None, typer.Option(help="May be repeated [default: all].")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="An option of a method, as METHOD:name=value; may be repeated.")
    ] = None,
    alpha: Annotated[list[str] | None, typer.Option(help="A number or auto; may be repeated [default: 1].")] = None,
    n: Annotated[
        list[int] | None, typer.Option("-n", help="Calibration samples; may be repeated [default: 100].")
    ] = None,
    per_class: Annotated[
        list[int] | None, typer.Option(help="So many of every class, in place of -n; may be repeated.")
    ] = None,
    strategy: opt.Strategy = None,
    seeds: Annotated[int, typer.Option(help="Draws of every size, by the seeds 0, 1, 2 …", min=1)] = 3,
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
    bank: opt.Bank = None,
    batch_size: opt.BatchSize = 8,
    device: opt.Device = None,
    output: opt.Output = None,
    token: opt.Token = None,
    format: opt.Formatting = Format.HUMAN,
    quiet: opt.Quiet = False,
) -> None:
    """Port SOURCE by every METHOD, α and N on the same samples, and put the scores side by side."""
    own = ("method", "alpha", "n", "per_class")
    given = {name: value for name, value in locals().items() if name not in own}
    terminal = Terminal(format, quiet)
    from hf_bico.io.hub import Hub
    from hf_bico.reports import tables
    from hf_bico.workflows import compare as comparison

    chosen = comparison.CompareConfig(
        opt.of_port(given),
        tuple(n or ()),
        tuple(per_class or ()),
        seeds,
        tuple(method or ()),
        tuple(settings or ()),
        tuple(map(opt.scale, alpha or ("1",))),
        target_tuned,
    )
    data = comparison.run(chosen, Hub(token), terminal.track)
    header, *rows = tables.cells(data)
    table = Table(*header, box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    terminal.say(table, data, str(output or ""))
    terminal.add(*tables.refusals(data), tables.caption(data), *([f"Written to {output}"] if output else []))
