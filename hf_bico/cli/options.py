"""The command line's options that several commands share."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from hf_bico.cli.console import Format

Source = Annotated[str, typer.Argument(help="The fine-tune: org/name[@rev], hf://org/name[@rev] or a folder.")]
To = Annotated[str, typer.Option(help="The new base model.")]
Dataset = Annotated[str, typer.Option(help="Samples of the task: a Hub dataset or a folder.")]
Base = Annotated[str | None, typer.Option(help="What SOURCE was fine-tuned from; else its card's base_model.")]
Config = Annotated[str | None, typer.Option(help="The dataset's configuration.")]
Split = Annotated[str, typer.Option(help="Split that the calibration samples are drawn from.")]
EvalSplit = Annotated[str | None, typer.Option(help="Split to score on; else test or validation.")]
EvalN = Annotated[int | None, typer.Option(help="Score on so many samples of it; else on all.")]
Columns = Annotated[
    str | None,
    typer.Option(
        help="What is in which column, as role=column,… (image, label, text, "
        "text_pair, prompt, completion, messages); else found by name and type."
    ),
]
Streaming = Annotated[bool, typer.Option("--streaming", help="Read the dataset as it comes, not whole.")]
MaxLength = Annotated[int, typer.Option(help="Tokens of a text sample; longer ones are cut.", min=1)]
Family = Annotated[
    str | None,
    typer.Option(help="generic pairs the plain linear layers of any model by name; else the family is found."),
]
Head = Annotated[
    str | None,
    typer.Option(
        help="What the target is scored with: transport (the source's, carried), "
        "ridge (fitted to the samples), zero-shot, lm [default: what suits SOURCE]."
    ),
]
Matching = Annotated[
    str,
    typer.Option(
        help="Which block takes from which: index (the paper's rule), cka (by likeness "
        "on the samples), or a YAML file of target: source."
    ),
]
Layers = Annotated[str | None, typer.Option(help="Move into these blocks of the target alone, as 0-5,8.")]
Skip = Annotated[str | None, typer.Option(help="Leave these blocks of the target as they are.")]
Templates = Annotated[
    Path | None,
    typer.Option(help="Prompts, one a line, {} for the class; else the dataset's.", exists=True, dir_okay=False),
]
Samples = Annotated[int | None, typer.Option("-n", help="Calibration samples [default: 100].")]
PerClass = Annotated[int | None, typer.Option(help="So many of every class, in place of -n.")]
Strategy = Annotated[
    str | None,
    typer.Option(
        help="How samples are drawn: random, class-balanced, centroid-near, "
        "centroid-far, half-class, one-class [default: random]."
    ),
]
Seed = Annotated[int, typer.Option(help="Of the draw.", min=0)]
Method = Annotated[str, typer.Option(help="bico, best, theseus, naive …; a wrong name lists them all.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="An option of the method, as name=value; may be repeated.")
]
Alpha = Annotated[
    str,
    typer.Option(help="Scale of the ported task vector: a number, or auto for a line search of the calibration loss."),
]
Bank = Annotated[
    Path | None,
    typer.Option(help="General prompts, a line each, for gradients without labels [default: ImageNet's class names]."),
]
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


def of_port(given: Mapping[str, Any]):
    """A command's options as a `PortConfig`; those that are not the port's are left out."""
    from hf_bico.workflows.config import PortConfig

    names = {field.name for field in fields(PortConfig)}
    chosen = {name: value for name, value in given.items() if name in names} | {"target": given["to"]}
    if "method_options" in chosen:
        chosen["method_options"] = tuple(chosen["method_options"] or ())
    if "alpha" in chosen:
        chosen["alpha"] = scale(chosen["alpha"])
    if chosen.get("output"):
        chosen["output"] = chosen["output"].expanduser()
    return PortConfig(**chosen | {"private": chosen.get("private") or None})
