"""What a port would do and cost, before any weight is read."""

from dataclasses import replace

from hf_bico.core.method import Method
from hf_bico.core.search import AUTO
from hf_bico.io.hub import Hub
from hf_bico.io.models import PortModels
from hf_bico.reports.estimate import Estimate, Work, estimate
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.plan import Plan, make_port_plan


def dry_run(config: PortConfig, hub: Hub) -> tuple[Plan, Estimate]:
    """Return the plan and what the port would cost; the headers of the weights are read, not the weights."""
    plan = make_port_plan(config, hub)
    return plan, cost(plan, search=config.alpha == AUTO)


def cost(plan: Plan, *, search: bool = False, n: int | None = None) -> Estimate:
    """Return what a port will take, as far as is known before τ is read: of towers that may move or not, not.

    Args:
        search: for α.
        n: calibration samples; the plan's unless given.
    """
    length, size = plan.samples.max_length, plan.samples.size
    work = work_of(plan.models, plan.method, n or plan.samples.n, length, size)
    return estimate(replace(work, evaluated=plan.scoring.size, search=search), plan.models.device)


def work_of(models: PortModels, method: Method, n: int, max_length: int, size: int) -> Work:
    """Return what a port of n samples has to do, but for searching and scoring."""
    optional = models.optional_towers
    heads = [getattr(each.skeleton, "get_output_embeddings", lambda: None)() for each in models.each[1:]]
    return Work(
        pairs=[pair for pair in models.pairs if pair.target.tower not in optional],
        base_sites=[site for site in models.base_sites if site.tower not in optional],
        method=method,
        n=n,
        models=[each.shapes for each in models.each[1:]],
        length=max_length,
        on_top=tuple(head.weight.numel() if head is not None and hasattr(head, "weight") else 0 for head in heads),
        batch_size=size,
    )
