"""Path alignment: τ in equal steps, each through maps of where the two models have come to."""

from hf_bico.core.collect import collect
from hf_bico.core.method import Job, Method
from hf_bico.core.moments import Statistics
from hf_bico.core.transport import Transported, added, holding, transport


def along_path(method: Method, job: Job, steps: int) -> Transported:
    """Σ_k R_out,k (τ/K) R_in,kᵀ: the source at θ_A + (k/K) τ_A, the target at where it has come to, k = 0 … K − 1.

    What is told of every site is that of the last step.
    """
    total: dict = {}
    before = job.source.model.state_dict()
    for k in job.track(range(steps), f"Path ({method.name})", steps):
        statistics = job.statistics
        if k:
            statistics = Statistics(job.pairs, method.signals, method.draws)
            with (
                holding(job.source.model, added(before, job.tau, k / steps)),
                holding(job.target.model, added(job.weights, total)),
            ):
                collect(job.source, job.target, job.pairs, job.batches(), statistics)
        step = transport(job.tau, method.plan(job.pairs, statistics), job.weights)
        for key, change in step.delta.items():
            total[key] = change / steps if k == 0 else total[key].add_(change, alpha=1 / steps)
    return Transported(total, step.moved)
