"""How help is laid out: options in groups, in one order for all commands, and examples at the end."""

import shlex
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from hf_bico.cli.options import REQUIRED
from hf_bico.workflows.options import GROUPS, RUN

WIDEST = 120
"""The most columns of help, however wide the terminal is."""
BESIDE = 80
"""From how many columns on an option's help stands beside its name; in fewer it is below."""
NAMES = 22
"""The longest name of an option beside which its help can stand."""
EXAMPLES = {
    "port": (
        "hf-bico port org/ft --to org/new-base --dataset org/samples --output ported",
        "hf-bico port org/ft --to org/new-base --dataset org/samples --push",
        "hf-bico port ported/recipe.yaml --output again",
    ),
    "check": (
        "hf-bico check org/ft --to org/new-base",
        "hf-bico check org/ft --to org/new-base --dataset org/samples",
    ),
    "compare": (
        "hf-bico compare org/ft --to org/new-base --dataset org/samples --output compared",
        "hf-bico compare org/ft --to org/new-base --dataset org/samples --method bico --method naive -n 20 -n 100",
    ),
    "align": (
        "hf-bico align org/base org/new-base --dataset org/samples --output maps",
        "hf-bico port org/ft --to org/new-base --dataset org/samples --maps ./maps --output ported",
    ),
    "fleet": (
        "hf-bico fleet plan.yaml --print",
        "hf-bico fleet plan.yaml --jobs 2",
        "hf-bico fleet plan.yaml --on hf-jobs",
    ),
    "extract": ("hf-bico extract org/ft --output ft.safetensors",),
    "apply": (
        "hf-bico apply ft.safetensors --to org/base --alpha 0.5 --output half",
        "hf-bico apply org/ft-on-new-base-delta --to org/new-base --output whole",
    ),
    "card": ("hf-bico card ported", "hf-bico card org/ft-on-new-base --push"),
    "report": ("hf-bico report ported --open", "hf-bico report org/ft-on-new-base --output port.html"),
    "eval": (
        "hf-bico eval org/ft-on-new-base --dataset org/samples",
        "hf-bico eval org/ft org/ft-on-new-base --dataset org/samples --split test -n 500",
    ),
    "methods": ("hf-bico methods", "hf-bico methods --format json"),
}
"""Command → what it can be told."""
FIRST = (*EXAMPLES["check"][1:], EXAMPLES["port"][0], "hf-bico port --help")
"""What the program can be told."""


class _Laid:
    """A command whose help is laid out so."""

    def format_help(self: Any, ctx: Any, formatter: Any) -> None:
        width = min(shutil.get_terminal_size().columns, WIDEST)
        console = Console(highlight=False, soft_wrap=True)
        with console.capture() as caught:
            console.print(Text("\n").join(_page(self, ctx, width)))
        formatter.write(caught.get())


class Helped(_Laid, TyperCommand):
    """A command with such help."""


class HelpedGroup(_Laid, TyperGroup):
    """A group of commands with such help."""


def _page(command: Any, ctx: Any, width: int) -> Iterator[Text]:
    usage = f"{ctx.command_path} {' '.join(command.collect_usage_pieces(ctx))}"
    yield from _styled(_filled(f"Usage: {usage}", width, "       "), "bold")
    for paragraph in (command.help or "").split("\n\n"):
        yield Text()
        yield from _filled(paragraph, width)
    if _is_group(command):
        each = [(name, command.get_command(ctx, name).help.split("\n\n")[0]) for name in command.list_commands(ctx)]
        yield from _headed("Commands")
        yield from _listed(each, width, _column(each))
    options = [
        (getattr(param, "rich_help_panel", None) or RUN, _record(param, ctx)) for param in command.get_params(ctx)
    ]
    column = _column([record for _, record in options])
    for group in GROUPS:
        own = [record for which, record in options if which == group]
        if own:
            yield from _headed(group)
            yield from _listed(own, width, column)
    yield from _headed("Examples")
    for example in FIRST if _is_group(command) else EXAMPLES[command.name]:
        yield from _command(example, width)


def _is_group(command: Any) -> bool:
    return isinstance(command, TyperGroup)


def _record(param: Any, ctx: Any) -> tuple[str, str]:
    """Return what an option is called, and its help with its default."""
    names, help = param.get_help_record(ctx)
    if param.param_type_name == "argument":
        names = param.metavar or names
    return names, help.replace(f"default: ({REQUIRED})", REQUIRED)


def _headed(title: str) -> Iterator[Text]:
    yield Text()
    yield Text(title, "bold")


def _column(records: Sequence[tuple[str, str]]) -> int:
    """Return where help begins beside the names."""
    return 4 + max((len(names) for names, _ in records if len(names) <= NAMES), default=0)


def _listed(records: Sequence[tuple[str, str]], width: int, column: int) -> Iterator[Text]:
    """Yield options with their help: beside their names where there is room, else below."""
    for names, help in records:
        told = Text(f"  {names}")
        told.stylize("cyan", 2)
        if width < BESIDE:
            yield told
            yield from _filled(help, width, "      ", "      ")
            continue
        first, *rest = _filled(help, width, " " * column, " " * column)
        if len(names) <= column - 4:
            yield told + first[len(told) :]
        else:
            yield told
            yield first
        yield from rest


def _filled(text: str, width: int, indent: str = "", first: str = "") -> list[Text]:
    """Return a text in lines that end between words."""
    options: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
    text = " ".join(text.split())
    return [
        Text(line) for line in textwrap.wrap(text, width, initial_indent=first, subsequent_indent=indent, **options)
    ]


def _styled(lines: Iterable[Text], style: str) -> Iterator[Text]:
    for line in lines:
        line.stylize(style)
        yield line


def _command(words: str, width: int) -> Iterator[Text]:
    """Yield a command in lines that a shell takes as one."""
    lines, line = [], "  $"
    for word in map(shlex.quote, shlex.split(words)):
        if len(line) + len(word) + 3 > width:  # a space, and another with the stroke at its end
            lines.append(f"{line} \\")
            line = "     "
        line += f" {word}"
    yield from map(Text, (*lines, line))
