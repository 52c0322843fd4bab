"""`hf-bico compare`."""

from rich import box
from rich.table import Table

from hf_bico.cli.options import Call, command
from hf_bico.workflows.config import CompareConfig


@command(CompareConfig)
def compare(config: CompareConfig, call: Call) -> None:
    """Port SOURCE by every METHOD, α and N on the same samples, and put the scores side by side."""
    from hf_bico.io.hub import Hub
    from hf_bico.reports import tables
    from hf_bico.workflows.compare import run

    data = run(config, Hub(call.token), call.terminal.track)
    header, *rows = tables.cells(data)
    table = Table(*header, box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    call.terminal.say(table, data, str(config.output or ""))
    written = [f"Written to {config.output}"] if config.output else []
    call.terminal.add(*tables.refusals(data), tables.caption(data), tables.advice(data), *written)
