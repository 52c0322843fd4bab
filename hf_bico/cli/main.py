"""The command `hf-bico`: Typer in front of the workflows."""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Annotated

import typer
from typer.exceptions import TyperException

import hf_bico
from hf_bico.cli.align import align
from hf_bico.cli.arithmetic import apply, extract
from hf_bico.cli.card import card
from hf_bico.cli.check import check
from hf_bico.cli.compare import compare
from hf_bico.cli.console import interrupted, tell
from hf_bico.cli.eval import evaluate
from hf_bico.cli.fleet import fleet
from hf_bico.cli.help import Helped, HelpedGroup
from hf_bico.cli.launched import Ending, is_launched, leave, run_together
from hf_bico.cli.methods import methods
from hf_bico.cli.options import missing, spelled
from hf_bico.cli.port import port
from hf_bico.cli.report import report
from hf_bico.core.errors import PortError, spelling

NAME = "hf-bico"
app = typer.Typer(
    name=NAME,
    cls=HelpedGroup,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
for command in (port, check, compare, align, fleet, extract, apply, card, methods, report):
    app.command(cls=Helped)(command)
app.command("eval", cls=Helped)(evaluate)
SHARED = {"port"}
"""Commands whose work several processes can share."""
KEPT = "nothing was left half-written"
STOPS = {"SIGINT": f"Interrupted; {KEPT}", "SIGTERM": f"Terminated; {KEPT}", "SIGHUP": f"Hung up; {KEPT}"}
"""Signals that ask a command to stop, Ctrl-C first, and its last line then; the exit code is the shell's."""


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
    """Carry a fine-tune over to a new base model, without training.

    What a command can be told is in its own help, such as `hf-bico port --help`.
    """
    if context.invoked_subcommand is None:
        print(context.get_help())
    elif is_launched() and context.invoked_subcommand not in SHARED:
        raise PortError("only port shares its work among processes: start this command once, without a launcher")


@contextmanager
def _stopped_by_signals() -> Iterator[list[int]]:
    """Raise KeyboardInterrupt at a signal to stop, so that all is tidied up; yield the numbers of those that came.

    One that whoever started the command has it ignore, as nohup does, stays ignored.
    """
    came: list[int] = []

    def stop(number: int, frame: object) -> None:
        came.append(number)
        interrupted.set()
        raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in STOPS if hasattr(signal, name)]
    wanted = [each for each in numbers if each == signal.SIGINT or signal.getsignal(each) != signal.SIG_IGN]
    before = {each: signal.signal(each, stop) for each in wanted}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stopped(came: Sequence[int]) -> Ending:
    """Return the ending of a command that a signal stopped: Ctrl-C where none came, for a library's own."""
    number = came[0] if came else signal.SIGINT
    return Ending(128 + number, STOPS[signal.Signals(number).name])


def main() -> None:
    """Run the console script: one line and exit code 2 for a user's mistake; a traceback only with HF_DEBUG=1."""
    interrupted.clear()
    spelled.clear()
    with _stopped_by_signals() as came, spelling(lambda name: spelled.get(name, f"--{name.replace('_', '-')}")):
        ending = run_together(partial(_run, came)) if is_launched() else _run(came)
    if ending.line:
        tell(ending.line)
    if is_launched() and ending.code:
        leave(ending.code)
    sys.exit(ending.code)


def _run(came: Sequence[int]) -> Ending:
    """Run the command that was asked for.

    Args:
        came: the signals to stop that came, filled while it runs.
    """
    try:
        code = app(prog_name=NAME, standalone_mode=False) or 0
        return _stopped(came) if code == 128 + signal.SIGINT else Ending(code)
    except (KeyboardInterrupt, typer.Abort):
        return _stopped(came)
    except Exception as error:
        if interrupted.is_set():  # a library below turned it into an error of its own
            return _stopped(came)
        if os.environ.get("HF_DEBUG") or not isinstance(error, PortError | TyperException):
            raise
        return Ending(2, f"Error: {_message(error)}")


def _message(error: Exception) -> str:
    """Return what is wrong; of the words of a command, which help says what they may be."""
    if not isinstance(error, TyperException):
        return str(error)
    message, context, param = error.format_message(), getattr(error, "ctx", None), getattr(error, "param", None)
    if param is not None and hasattr(error, "param_type"):  # that of a parameter which was not given
        return missing(param.metavar or param.opts[0], param.help)
    return f"{message.rstrip('.')}; see `{context.command_path} --help`" if context else message
