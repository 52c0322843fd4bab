"""A change, carried group by group of layers where one pass over all of them would hold too much."""

from collections.abc import Sequence

from hf_bico.core.chain import carry, gather
from hf_bico.core.choice import Chosen, sums_of
from hf_bico.core.errors import PortError
from hf_bico.core.experts import note_unreached
from hf_bico.core.groups import IN_MEMORY, Keeping, together
from hf_bico.core.low_rank import Delta
from hf_bico.core.method import Job, Method, Track, untracked
from hf_bico.core.methods import BiCo, Naive
from hf_bico.core.moments import Statistics
from hf_bico.core.transport import Transported
from hf_bico.io.workspace import Workspace
from hf_bico.reports.report import Clock
from hf_bico.workflows.run import Run


def with_baselines(
    job: Job, method: Method, groups: Sequence[slice] | None, workspace: Workspace, run: Run
) -> tuple[Transported, dict[str, Delta]]:
    """Return τ in the target's coordinates, and the changes that it is measured against, by method: the naive copy,
    and the paper's method at α = 1 where another one was chosen.

    Args:
        groups: of layers that are carried one after the other, and whose changes are then on disk; None: all at once.

    Raises:
        PortError: as for `gather` and `carry`.
    """
    if groups is not None:
        result, naive = (by_groups(job, each, groups, run.clock, workspace, run.track) for each in (method, Naive()))
        return result, {Naive.name: naive.delta}
    with run.clock("calibrate"):
        seen = gather(job, method.collected, resume=workspace, track=run.track)
    with run.clock("move"):
        result = carried_last(job, method, seen, run.track)
        seen = sums_of(result, seen)
        found = {Naive.name: carry(job, Naive(), seen, track=run.track).delta}
        return result, found | (_paper(job, seen, run.track) if isinstance(result, Chosen) else {})


def carried_last(job: Job, method: Method, seen: Statistics, track: Track) -> Transported:
    """Return τ in the target's coordinates, and note which experts no row reached; see `carry`."""
    if method.by_layer:
        note_unreached(job.pairs, seen)  # what they saw is gone afterwards
    result = carry(job, method, seen, last=True, track=track)
    if not method.by_layer:
        note_unreached(job.pairs, sums_of(result, seen))
    return result


def _paper(job: Job, seen: Statistics, track: Track) -> dict[str, Delta]:
    """Return the paper's method's change, where it can be made."""
    try:
        return {BiCo.name: carry(job, BiCo(), seen, track=track).delta}
    except PortError:  # the method that was chosen needs less of the samples
        return {}


def by_groups(
    job: Job,
    method: Method,
    groups: Sequence[slice],
    clock: Clock,
    keeping: Keeping = IN_MEMORY,
    track: Track = untracked,
) -> Transported:
    """Return τ in the target's coordinates: for every group its statistics are collected, its layers moved, and its
    statistics let go of. The result is that of one group, bit for bit.

    Args:
        groups: slices of the job's pairs, of a method that works layer by layer.
        keeping: where groups are kept, and where an interrupted one goes on.

    Raises:
        PortError: as for `gather` and `carry`.
    """
    return together([_group(job, method, group, clock, keeping, track) for group in groups])


def _group(job: Job, method: Method, group: slice, clock: Clock, keeping: Keeping, track: Track) -> Transported:
    name = f"{method.name}-{group.start}-{group.stop}"
    if (found := keeping.moved(name, Delta(job.weights))) is not None:
        return found
    with clock("calibrate"):
        seen = gather(job, method.wanted, group=group, resume=keeping.group(name), track=track)
        note_unreached(job.pairs[group], seen)
    with clock("move"):
        return keeping.keep(name, carry(job, method, seen, group=group, last=True, track=track))
