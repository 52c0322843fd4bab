"""`hf-bico extract` and `hf-bico apply`."""

from hf_bico.cli.options import Call, command
from hf_bico.workflows.config import ApplyConfig, ExtractConfig


@command(ExtractConfig, "Taking the task vector of {source}")
def extract(config: ExtractConfig, call: Call) -> None:
    """Save the task vector SOURCE − base, with its lineage."""
    from hf_bico.io.hub import Hub
    from hf_bico.workflows.arithmetic import extract

    hub, parts = Hub(call.token), (config.subfolder, config.source_kind)
    names, place = (config.source, config.base), config.output
    vector, count = extract(*names, place, hub, *parts, trust_base=config.trust_base, overwrite=config.overwrite)
    call.terminal.say(
        f"{count} tensors changed between {vector.lineage['base']} and {vector.lineage['source']}; "
        f"written to {config.output}",
        dict(vector.lineage) | {"tensors": count, "output": str(config.output)},
        str(config.output),
    )


@command(ApplyConfig, "Adding {delta} to {target}")
def apply(config: ApplyConfig, call: Call) -> None:
    """Add a task vector to a model, or a delta to its base.

    The sum is written as a whole model. A task vector needs a model of the same shapes.
    """
    from hf_bico.io.hub import Hub
    from hf_bico.workflows.arithmetic import apply

    hub, place = Hub(call.token), config.output
    target, lineage = apply(config.delta, config.target, place, config.alpha, hub, overwrite=config.overwrite)
    call.terminal.say(
        f"{target} + {config.alpha:g} × ({lineage['source']} − {lineage['base']}) written to {config.output}",
        {"target": str(target), "alpha": config.alpha, "task_vector": dict(lineage), "output": str(config.output)},
        str(config.output),
    )
