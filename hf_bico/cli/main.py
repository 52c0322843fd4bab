"""The command `hf-bico`: Typer in front of the workflows."""

import os
import signal
import sys
from typing import Annotated

import typer
from typer.exceptions import TyperException

import hf_bico
from hf_bico.cli.align import align
from hf_bico.cli.arithmetic import apply, extract
from hf_bico.cli.check import check
from hf_bico.cli.compare import compare
from hf_bico.cli.console import interrupted, stderr
from hf_bico.cli.fleet import fleet
from hf_bico.cli.launched import Ending, is_launched, leave, run_together
from hf_bico.cli.options import spelled
from hf_bico.cli.port import port
from hf_bico.core.errors import PortError, spelling

app = typer.Typer(name="hf-bico", add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
for command in (port, check, compare, align, fleet, extract, apply):
    app.command()(command)
SHARED = {"port"}
"""Commands whose work several processes can share."""
INTERRUPTED = Ending(130, "Interrupted; nothing was left half-written")
"""After Ctrl-C."""


def _version(wanted: bool) -> None:
    if wanted:
        print(f"hf-bico {hf_bico.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def common(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Carry a fine-tune over to a new base model, without training."""
    if context.invoked_subcommand is None:
        print(context.get_help())
    elif is_launched() and context.invoked_subcommand not in SHARED:
        raise PortError("only port shares its work among processes: start this command once, without a launcher")


def _on_interrupt(number: int, frame: object) -> None:
    interrupted.set()
    raise KeyboardInterrupt


def main() -> None:
    """Run the console script: one line and exit code 2 for a user's mistake; a traceback only with HF_DEBUG=1."""
    interrupted.clear()
    spelled.clear()
    before = signal.signal(signal.SIGINT, _on_interrupt)
    try:
        with spelling(lambda name: spelled.get(name, f"--{name.replace('_', '-')}")):
            ending = run_together(_run) if is_launched() else _run()
    finally:
        signal.signal(signal.SIGINT, before)
    if ending.line:
        stderr.print(ending.line, markup=False)
    if is_launched() and ending.code:
        leave(ending.code)
    sys.exit(ending.code)


def _run() -> Ending:
    """Run the command that was asked for."""
    try:
        code = app(standalone_mode=False) or 0
        return INTERRUPTED if code == INTERRUPTED.code else Ending(code)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:
        if interrupted.is_set():  # a library below turned it into an error of its own
            return INTERRUPTED
        if os.environ.get("HF_DEBUG") or not isinstance(error, PortError | TyperException):
            raise
        message = error.format_message() if isinstance(error, TyperException) else str(error)
        return Ending(2, f"Error: {message}")
