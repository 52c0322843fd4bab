"""A change, carried group by group of layers where one pass over all of them would hold too much."""

from collections.abc import Sequence

from hf_bico.core.chain import carry, gather
from hf_bico.core.experts import note_unreached
from hf_bico.core.groups import IN_MEMORY, Keeping, together
from hf_bico.core.low_rank import Delta
from hf_bico.core.method import Job, Method, Track, untracked
from hf_bico.core.transport import Transported
from hf_bico.reports.report import Clock


def carried(
    job: Job,
    method: Method,
    groups: Sequence[slice],
    clock: Clock,
    *,
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
        return keeping.keep(name, carry(job, method, seen, group=group, track=track))
