"""The command line's options that several commands share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Format(StrEnum):
    HUMAN = "human"
    JSON = "json"
    QUIET = "quiet"


Source = Annotated[str, typer.Argument(help="The fine-tune: org/name[@rev], hf://org/name[@rev] or a folder.")]
To = Annotated[str, typer.Option(help="The new base model.")]
Dataset = Annotated[str, typer.Option(help="Labelled images of the task: a Hub dataset or a folder.")]
Base = Annotated[str | None, typer.Option(help="What SOURCE was fine-tuned from; else its card's base_model.")]
Config = Annotated[str | None, typer.Option(help="The dataset's configuration.")]
Split = Annotated[str, typer.Option(help="Split that the calibration samples are drawn from.")]
EvalSplit = Annotated[str | None, typer.Option(help="Split to score on; else test or validation.")]
EvalN = Annotated[int | None, typer.Option(help="Score on so many samples of it; else on all.")]
ImageColumn = Annotated[str | None, typer.Option(help="Else the one image column.")]
LabelColumn = Annotated[str | None, typer.Option(help="Else the one label column.")]
Templates = Annotated[Path | None, typer.Option(help="Prompts, one a line, {} for the class; else the dataset's.",
                                                exists=True, dir_okay=False)]
Strategy = Annotated[str | None, typer.Option(help="How samples are drawn: random, class-balanced, centroid-near, "
                                              "centroid-far, half-class, one-class [default: random].")]
Bank = Annotated[Path | None, typer.Option(help="General prompts, a line each, for gradients without labels "
                                           "[default: ImageNet's class names].")]
BatchSize = Annotated[int, typer.Option(help="Costs memory, changes nothing else.", min=1)]
Device = Annotated[str | None, typer.Option(help="Else CUDA where there is one, else the CPU.")]
Output = Annotated[Path | None, typer.Option(help="A folder to write to; it must be new or empty.")]
Token = Annotated[str | None, typer.Option(help="A User Access Token; else the one of `hf auth login` or HF_TOKEN.")]
Formatting = Annotated[Format, typer.Option("--format", help="How results are printed.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="The same as --format quiet: only what was made.")]


def scale(text: str) -> float | str:
    """An --alpha: a number where it reads as one; the rest is checked with the other options."""
    try:
        return float(text)
    except ValueError:
        return text
