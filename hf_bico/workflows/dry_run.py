"""What a port would do and cost, before any weight is read."""

from dataclasses import replace

from torch import nn

from hf_bico.core.method import Method
from hf_bico.core.methods.polished import Polish, Polished
from hf_bico.core.search import AUTO
from hf_bico.io.hub import Hub
from hf_bico.io.models import PortModels
from hf_bico.reports.estimate import Estimate, Work, estimate
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.plan import Plan, make_port_plan
from hf_bico.workflows.polish import polish_of


def dry_run(config: PortConfig, hub: Hub) -> tuple[Plan, Estimate]:
    """Return the plan and what the port would cost; the headers of the weights are read, not the weights."""
    plan = make_port_plan(config, hub)
    return plan, cost(plan, search=config.alpha == AUTO, polish=polish_of(config, plan.models))


def cost(plan: Plan, *, search: bool = False, n: int | None = None, polish: Polish | None = None) -> Estimate:
    """Return what a port will cost, as far as is known before τ is read: towers that may or may not move are left out,
    and samples without labels cost what the others do.

    Args:
        search: whether α is searched.
        n: calibration samples; the plan's unless given.
        polish: how the port is trained further.
    """
    length, size = plan.samples.max_length, plan.samples.size
    method = Polished(plan.method, polish) if polish and polish.steps else plan.method
    n, more = n or plan.samples.n, plan.unlabelled.n if plan.unlabelled else 0
    work = work_of(plan.models, method, n + more, length, size)
    found = estimate(replace(work, evaluated=plan.scored.size, search=search), plan.models.device)
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
        on_top=(_on_top(models.base.skeleton), _on_top(models.target.skeleton)),
        batch_size=size,
    )


def _on_top(skeleton: nn.Module) -> int:
    """Return the parameters of a language model's output embeddings; 0 of other models."""
    head = getattr(skeleton, "get_output_embeddings", lambda: None)()
    return head.weight.numel() if head is not None and hasattr(head, "weight") else 0
