"""`hf-bico extract` and `hf-bico apply`."""

from pathlib import Path
from typing import Annotated

import typer

from hf_bico.cli.console import Format, Terminal
from hf_bico.cli.options import Formatting, Quiet, Token
from hf_bico.core.notes import listening
from hf_bico.workflows.config import SourceChoices
from hf_bico.workflows.options import help_of

Base = Annotated[str | None, typer.Option(help="What SOURCE was fine-tuned from [default: its card's base_model].")]

Subfolder = Annotated[str | None, typer.Option(help=help_of(SourceChoices, "subfolder"))]
SourceKind = Annotated[str | None, typer.Option(help=help_of(SourceChoices, "source_kind"))]
TrustBase = Annotated[
    bool,
    typer.Option("--trust-base", help="Take the base for SOURCE's even if their weights have nothing in common."),
]


def extract(
    source: Annotated[str, typer.Argument(help="The fine-tune.")],
    output: Annotated[Path, typer.Option(help="A .safetensors file to write.")],
    base: Base = None,
    trust_base: TrustBase = False,
    subfolder: Subfolder = None,
    source_kind: SourceKind = None,
    token: Token = None,
    format: Formatting = Format.AUTO,
    quiet: Quiet = False,
) -> None:
    """Save the task vector SOURCE − base, with its lineage."""
    terminal = Terminal(format, quiet)
    from hf_bico.io.hub import Hub
    from hf_bico.workflows.arithmetic import extract

    hub, parts = Hub(token), (subfolder, source_kind)
    with listening(terminal.note):
        vector, count = extract(source, base, output, hub, *parts, trust_base=trust_base)
    terminal.say(
        f"{count} tensors changed between {vector.lineage['base']} and {vector.lineage['source']}; written to {output}",
        dict(vector.lineage) | {"tensors": count, "output": str(output)},
        str(output),
    )


def apply(
    delta: Annotated[str, typer.Argument(help="A task vector that `extract` wrote, or a delta repo.")],
    to: Annotated[str, typer.Option(help="The model to add it to.")],
    output: Annotated[Path, typer.Option(help="A folder to write the sum to; it must be new or empty.")],
    alpha: Annotated[float, typer.Option(help="Scale of the task vector.")] = 1.0,
    token: Token = None,
    format: Formatting = Format.AUTO,
    quiet: Quiet = False,
) -> None:
    """Add a task vector to a model of the same shapes, or a delta to its base, and write the whole model."""
    terminal = Terminal(format, quiet)
    from hf_bico.io.hub import Hub
    from hf_bico.workflows.arithmetic import apply

    target, lineage = apply(delta, to, output, alpha, Hub(token))
    terminal.say(
        f"{target} + {alpha:g} × ({lineage['source']} − {lineage['base']}) written to {output}",
        {"target": str(target), "alpha": alpha, "task_vector": dict(lineage), "output": str(output)},
        str(output),
    )
