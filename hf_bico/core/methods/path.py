"""Path alignment: τ in equal steps, each through maps estimated where the two models then are."""

from torch import Tensor

from hf_bico.core.chain import gather
from hf_bico.core.low_rank import Delta
from hf_bico.core.method import Job, Method, Track, untracked
from hf_bico.core.moments import Statistics
from hf_bico.core.transport import Transported, added, holding


def along_path(method: Method, job: Job, seen: Statistics, steps: int, track: Track = untracked) -> Transported:
    """Return Σ_k R_out,k (τ/K) R_in,kᵀ, k = 0 … K − 1, with maps between θ_A + (k/K) τ_A and θ_B + the sum so far.

    Norms and fits of the sites are those of the last step.

    Args:
        seen: the statistics at k = 0, of the two bases as they are.
        steps: K.
    """
    total: dict[str, Tensor] = {}
    before = job.base.model.state_dict()
    for k in track(range(steps), f"Path ({method.name})", steps):
        if k:
            with (
                holding(job.base.model, added(before, job.tau, k / steps)),
                holding(job.target.model, added(job.weights, total)),
            ):
                seen = gather(job, method.wanted)
        step = Method.carry(method, job, seen)
        for key, change in step.delta.items():
            total[key] = change / steps if k == 0 else total[key].add_(change, alpha=1 / steps)
        step = Transported(Delta({}), step.moved, rode=step.rode)  # its change is in the sum, and let go of
    return Transported(Delta.of(total), step.moved, rode=step.rode)
