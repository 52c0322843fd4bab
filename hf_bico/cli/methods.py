"""`hf-bico methods`."""

from dataclasses import fields

from hf_bico.cli.console import Format, Grid, Terminal, begin
from hf_bico.cli.options import Formatting, Quiet


def methods(format: Formatting = Format.AUTO, quiet: Quiet = False) -> None:
    """List the methods that --method takes, and their options for --set."""
    begin(format, quiet, "Looking the methods up")
    terminal = Terminal(format, quiet)
    from hf_bico.core.methods import METHODS

    made = {name: kind() for name, kind in METHODS.items()}
    options = {name: {each.name: getattr(kind, each.name) for each in fields(kind)} for name, kind in made.items()}
    rows = [
        (name, method.summary, ", ".join(f"{option}={value}" for option, value in options[name].items()))
        for name, method in made.items()
    ]
    table = Grid(("method", "what it does", "options and their defaults"), rows)
    data = [
        {"name": name, "summary": method.summary, "citation": method.citation, "options": options[name]}
        for name, method in made.items()
    ]
    terminal.say(table, data, "\n".join(made))
