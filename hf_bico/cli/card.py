"""`hf-bico card`."""

from hf_bico.cli.options import Call, command
from hf_bico.workflows.config import CardConfig


@command(CardConfig, "Writing the card of {place}")
def card(config: CardConfig, call: Call) -> None:
    """Write the card of a port or of maps anew from its report.

    What stands below its marker stays.
    """
    from hf_bico.io.hub import Hub
    from hf_bico.workflows.card import rewrite

    made = rewrite(config, Hub(call.token))
    if made.folder is not None:
        said = f"Written to {made.folder / 'README.md'}"
    else:
        said = f"Pushed to {made.url}" if made.url else made.text
    data = {"card": made.text, "output": made.folder and str(made.folder), "url": made.url}
    call.terminal.say(said, data, made.url or (str(made.folder) if made.folder else made.text))
