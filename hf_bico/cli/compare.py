"""`hf-bico compare`."""

from hf_bico.cli.console import Grid
from hf_bico.cli.options import Call, command
from hf_bico.workflows.config import CompareConfig


@command(CompareConfig, "Comparing ports of {source} → {target}")
def compare(config: CompareConfig, call: Call) -> None:
    """Port by several methods on the same samples, scores side by side.

    Every method is tried at every α and N that is named. Nothing is pushed.
    """
    from hf_bico.io.hub import Hub
    from hf_bico.reports import tables
    from hf_bico.workflows.compare import run

    data = run(config, Hub(call.token), call.terminal.track)
    header, *rows = tables.cells(data)
    call.terminal.say(Grid(header, rows, tone="verdict"), data, str(config.output or ""))
    written = [f"Written to {config.output}"] if config.output else []
    call.terminal.add(*tables.refusals(data), tables.caption(data), tables.advice(data), *written)
