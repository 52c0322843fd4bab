"""`hf-bico align`."""

from hf_bico.cli.options import Call, command
from hf_bico.workflows.config import AlignConfig


@command(AlignConfig, "Making maps of {base} → {target}")
def align(config: AlignConfig, call: Call) -> None:
    """Make the maps from one base to another, and keep them.

    Any fine-tune of BASE can be ported over them: `hf-bico port SOURCE --to TARGET --dataset DATASET --maps MAPS`.
    """
    from hf_bico.io.hub import Hub
    from hf_bico.workflows.align import run

    made, terminal = run(config, Hub(call.token), call.terminal.track), call.terminal
    record, files = made.record, made.record["files"].values()
    terminal.say(
        f"{len(record['maps'])} maps from {record['source']['name']} to {record['target']['name']}, "
        f"{sum(file['bytes'] for file in files) / 1e6:.1f} MB",
        record | {"output": str(made.output), "url": made.url},
        made.url or str(made.output),
    )
    terminal.add(
        *(f"No maps of the {tower} tower: {why}" for tower, why in record["left"].items()),
        f"Written to {made.output}",
        *([f"Pushed to {made.url}"] if made.url else []),
    )
