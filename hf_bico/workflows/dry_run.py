"""What a port would do and cost, before any weight is read."""

from dataclasses import replace
from math import prod

from torch import nn

from hf_bico.core.device import is_accelerator
from hf_bico.core.method import Method
from hf_bico.core.methods.polished import Polish, Polished
from hf_bico.core.search import AUTO
from hf_bico.io.hub import Hub
from hf_bico.io.models import PortModels
from hf_bico.reports.estimate import Estimate, estimate
from hf_bico.reports.memory import Work, bytes_of, fitted
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.plan import Plan, make_port_plan
from hf_bico.workflows.polish import polish_of


def dry_run(config: PortConfig, hub: Hub) -> tuple[Plan, Estimate]:
    """Return the plan and what the port would cost; the headers of the weights are read, not the weights."""
    plan = make_port_plan(config, hub)
    polish, memory = polish_of(config, plan.models), bytes_of(config.memory)
    return plan, cost(plan, search=config.alpha == AUTO, polish=polish, memory=memory)


def cost(
    plan: Plan,
    *,
    search: bool = False,
    n: int | None = None,
    polish: Polish | None = None,
    memory: int | None = None,
) -> Estimate:
    """Return what a port will cost, as far as is known before τ is read: towers that may or may not move are left out,
    and samples without labels cost what the others do.

    Args:
        search: whether α is searched.
        n: calibration samples; the plan's unless given.
        polish: how the port is trained further.
        memory: the most bytes that it may take.

    Raises:
        PortError: it needs more than that.
    """
    length, size = plan.samples.max_length, plan.samples.size
    method = Polished(plan.method, polish) if polish and polish.steps else plan.method
    n, more = n or plan.samples.n, plan.unlabelled.n if plan.unlabelled else 0
    work = work_of(plan.models, method, n + more, length, size)
    work = replace(work, evaluated=plan.scored.size, search=search, memory=memory, baselines=1, from_files=True)
    found = estimate(work, plan.models.device)
    return replace(found, method=plan.method.name, n=n)


def work_of(models: PortModels, method: Method, n: int, max_length: int, size: int) -> Work:
    """Return what a port of n samples has to do, apart from searching and scoring.

    Args:
        max_length: the most tokens of a text.
        size: samples in a batch.
    """
    optional = models.optional_towers
    return Work(
        pairs=[pair for pair in models.pairs if pair.target.tower not in optional],
        base_sites=[site for site in models.base_sites if site.tower not in optional],
        method=method,
        n=n,
        models=[each.shapes for each in models.each[1:]],
        length=max_length,
        on_top=(prod(_on_top(models.base.skeleton)), prod(_on_top(models.target.skeleton))),
        batch_size=size,
        stored=models.stored,
        logits=(_on_top(models.base.skeleton)[0], _on_top(models.target.skeleton)[0]),
        beside=sum(prod(models.target.shapes[key].shape) for key in beside_keys(models)),
    )


def beside_keys(models: PortModels) -> set[str]:
    """Return the names of the target's tensors that move beside the linear maps, as far as is known before tokenizers
    are read.
    """
    keys = {key for ride in models.beside().rides for key in ride.target.keys}
    return {key for key in keys if key in models.target.shapes}


def groups_within(plan: Plan, memory: int | None, before: int) -> tuple[slice, ...] | None:
    """Return the groups of layers that a port of these models goes by; None if all go at once and in memory.

    Args:
        plan: with the towers that do move.
        memory: the most bytes that it may take.
        before: bytes that were in use before the models were opened.

    Raises:
        PortError: it needs more than that.
    """
    if memory is None or not plan.method.by_layer:
        return None
    samples, more = plan.samples, plan.unlabelled.n if plan.unlabelled else 0
    work = work_of(plan.models, plan.method, samples.n + more, samples.max_length, samples.size)
    work = replace(work, pairs=plan.models.pairs, memory=memory, beside=work.beside if plan.scoring else 0)
    return fitted(work, before, apart=is_accelerator(plan.models.device))


def _on_top(skeleton: nn.Module) -> tuple[int, int]:
    """Return the shape of a language model's output embeddings; (0, 0) of other models."""
    head = getattr(skeleton, "get_output_embeddings", lambda: None)()
    return tuple(head.weight.shape) if head is not None and hasattr(head, "weight") else (0, 0)
