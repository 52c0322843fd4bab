"""`hf-bico align`."""

from pathlib import Path
from typing import Annotated

import typer

from hf_bico.cli import options as opt
from hf_bico.cli.console import Format, Terminal


def align(
    source: Annotated[str, typer.Argument(metavar="BASE", help="The base that fine-tunes start from.")],
    to: Annotated[str, typer.Argument(metavar="TARGET", help="The new base.")],
    dataset: Annotated[str, typer.Option(help="Samples to see both through: a Hub dataset or a folder.")],
    output: Annotated[Path, typer.Option(help="A folder to write the maps to; it must be new or empty.")],
    config: opt.Config = None,
    split: opt.Split = "train",
    columns: opt.Columns = None,
    streaming: opt.Streaming = False,
    templates: opt.Templates = None,
    max_length: opt.MaxLength = 256,
    family: opt.Family = None,
    head: Annotated[
        str | None,
        typer.Option(
            help="What gradients are taken under: ridge (of a classifier, fitted to "
            "both), probe (of a model of features), zero-shot, lm [default: what "
            "suits BASE and the samples]."
        ),
    ] = None,
    matching: opt.Matching = "index",
    layers: opt.Layers = None,
    skip: opt.Skip = None,
    n: opt.Samples = None,
    per_class: opt.PerClass = None,
    strategy: opt.Strategy = None,
    seed: opt.Seed = 0,
    method: opt.Method = "bico",
    method_options: opt.Settings = None,
    bank: opt.Bank = None,
    batch_size: opt.BatchSize = 8,
    device: opt.Device = None,
    push: Annotated[bool, typer.Option("--push", help="Publish as USER/BASE-to-TARGET-maps.")] = False,
    push_to: Annotated[str | None, typer.Option(help="Publish as this repo.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make the repo private.")] = False,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Propose it as a pull request.")] = False,
    commit_message: Annotated[str | None, typer.Option(help="Of the push.")] = None,
    token: opt.Token = None,
    format: opt.Formatting = Format.HUMAN,
    quiet: opt.Quiet = False,
) -> None:
    """Make the maps from BASE to TARGET alone, and keep them: any fine-tune of BASE ports over them (port --maps)."""
    given = dict(locals())
    terminal = Terminal(format, quiet)
    from hf_bico.io.hub import Hub
    from hf_bico.workflows import align

    made = align.run(opt.of_port(given), Hub(token), terminal.track)
    files = made.record["files"].values()
    terminal.say(
        f"{len(made.record['maps'])} maps from {made.record['source']['name']} to "
        f"{made.record['target']['name']}, {sum(file['bytes'] for file in files) / 1e6:.1f} MB",
        made.record | {"output": str(made.output), "url": made.url},
        made.url or str(made.output),
    )
    terminal.add(
        *(f"No maps of the {tower} tower: {why}" for tower, why in made.record["left"].items()),
        f"Written to {made.output}",
        *([f"Pushed to {made.url}"] if made.url else []),
    )
