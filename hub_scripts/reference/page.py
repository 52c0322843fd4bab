"""Write docs/api.md out of the docstrings and the command line's help: python -m hub_scripts.reference.page

All of it is read from the source: the public names of `hf_bico`, what their signatures and docstrings speak of, and
what classes inherit. No name is listed here, so a new one is on the page by itself.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from enum import EnumType
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import typer

from hf_bico.cli.main import app
from hub_scripts.reference.source import Function, Made, ancestors, definition, members, parts, public, spoken_of

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
COMMAND = "python -m hub_scripts.reference.page"
HEAD = f"""# Reference

Made from the docstrings and the help texts by `{COMMAND}`.

## Python
"""
WIDTH = 118


def signature(made: Made) -> str:
    """A function's as the source has it, without `self`; a field with its default; a property's type."""
    node, name = made.node, made.name
    if not isinstance(node, Function):
        default = isinstance(node.value, ast.Name) and definition(made.module, node.value.id)
        value = default.node.value if default and isinstance(default.node, ast.Assign) else node.value
        return ast.unparse(node).removesuffix(ast.unparse(node.value or [])) + ast.unparse(value or [])
    args = re.sub(r"(?<=[\w\]'])=(?=\S)", " = ", ast.unparse(node.args))
    if made.method and "staticmethod" not in made.decorators:
        args = re.sub(r"^(self|cls)(, )?", "", args)
    back = ast.unparse(node.returns).strip("'") if node.returns else ""
    if made.decorators & {"property", "cached_property"}:
        return f"{name}: {back}" if back else name
    return f"{name}({args}) -> {back}" if back else f"{name}({args})"


def filled(text: str, indent: str = "", first: str | None = None) -> str:
    """A paragraph; no line begins like a list's."""
    lines = textwrap.fill(
        " ".join(text.split()),
        WIDTH,
        initial_indent=indent if first is None else first,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
    return re.sub(r"\n *(?=([-+*#>|=]|\d+[.)]) )", " ", lines)


def prose(doc: str) -> Iterator[str]:
    """A docstring as Markdown blocks: paragraphs, formulas, and what Args: and Raises: list."""
    for block in re.split(r"\n\s*\n", textwrap.dedent(doc).strip("\n")):
        head, _, rest = block.partition("\n")
        if re.fullmatch(r"(Args|Raises|Returns|Yields):", head):
            items = re.split(r"\n(?! )", textwrap.dedent(rest))
            pairs = [item.partition(": ") for item in items]
            lines = [filled(f"`{name.strip('`')}`: {text}" if text else name, "  ", "- ") for name, _, text in pairs]
            yield "\n".join([f"**{head[:-1]}**", "", *lines])
        elif block.startswith("    "):
            yield f"```\n{textwrap.dedent(block)}\n```"
        elif block:
            yield filled(block)


def bullets(title: str, every: Sequence[Made]) -> Iterator[str]:
    if every:
        lines = [f"**{title}**", ""]
        for made in every:
            words = textwrap.indent("\n\n".join(prose(made.doc)), "  ")
            lines.append(f"- `{signature(made)}`" + (f"\\\n{words}" if words else ""))
        yield "\n".join(lines)


def entry(made: Made, page: Sequence[Made]) -> Iterator[str]:
    """A name's part of the page; what a class has like one that is on the page too is told there."""
    yield f"### {made.name}"
    init = members(made).get("__init__") if made.is_class else None
    if init or not made.is_class:
        spelled = signature(init).replace("__init__", made.name).removesuffix(" -> None") if init else signature(made)
        yield f"```python\n{textwrap.fill(spelled, WIDTH, subsequent_indent=' ' * (len(made.name) + 1))}\n```"
    yield from prose(made.doc)
    parents = [each for each in ancestors(made) if each in page]
    told = {(signature(each), each.doc) for parent in parents for some in parts(parent) for each in some}
    for title, every in zip(("Fields", "Methods"), parts(made), strict=True):
        yield from bullets(title, [each for each in every if (signature(each), each.doc) not in told])
    if parents:
        yield f"And all that [{parents[0].name}](#{parents[0].name.lower()}) has."


def value(kind: Any) -> str:
    """What an option takes, in a word; nothing for a flag."""
    if kind is bool:
        return ""
    if isinstance(kind, EnumType):
        return "|".join(each.value for each in kind)
    inner = [each for each in get_args(kind) if each is not NoneType]
    if inner:
        return value(inner[0]) + (" …" if get_origin(kind) is list else "")
    return kind.__name__.lower()


def option(param: Any, kind: Any) -> str:
    """A line on an argument or option, with its default."""
    name = param.name.upper() if param.param_type_name == "argument" else ", ".join(param.opts)
    takes = "" if param.param_type_name == "argument" else value(kind)
    default = str(getattr(param.default, "value", param.default))
    needed = param.show_default if isinstance(param.show_default, str) else "required" if param.required else ""
    note = f" [{needed}]" if needed else "" if default in ("None", "False", "") else f" [default: {default}]"
    return filled(f"{param.help}{note}", "  ", f"- `{' '.join(filter(None, (name, takes)))}`: ")


def commands() -> Iterator[str]:
    """Every command with its options, as `--help` has them."""
    group = typer.main.get_command(app)
    yield from prose(group.help)
    yield "\n".join(option(param, bool) for param in group.params)
    for registered, (name, command) in zip(app.registered_commands, group.commands.items(), strict=True):
        hints = get_type_hints(registered.callback)
        yield f"### hf-bico {name}"
        yield from prose(inspect.getdoc(registered.callback))
        yield "\n".join(option(param, hints[param.name]) for param in command.params)


def page() -> str:
    """The whole of docs/api.md."""
    named = public()
    others = spoken_of(named)
    first, second = ([block for made in some for block in entry(made, named + others)] for some in (named, others))
    blocks = [HEAD.rstrip(), *first, "## What these speak of", *second, "## Command line", *commands()]
    return "\n\n".join(blocks) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
