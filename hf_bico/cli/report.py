"""`hf-bico report`."""

import webbrowser

from rich.text import Text

from hf_bico.cli.options import Call, command
from hf_bico.workflows.config import ReportConfig


@command(ReportConfig, "Making a page of {place}")
def report(config: ReportConfig, call: Call) -> None:
    """Make one HTML page of a port, of maps, of a comparison or a check.

    The page holds all that it shows: it asks the network for nothing, and runs no script.
    """
    from hf_bico.io.hub import Hub
    from hf_bico.workflows.tell import run

    told = run(config, Hub(call.token))
    place = str(told.output)
    call.terminal.say(Text(f"Written to {place}, from {told.what}"), {"output": place, "of": told.what}, place)
    if config.show and not webbrowser.open(told.output.resolve().as_uri()):
        call.terminal.warn(f"No browser was found: open {place} in one")
