"""Which site of A hands over to which site of B."""

from collections.abc import Iterable

from hf_bico.core.errors import PortError
from hf_bico.core.types import Pair, Site


def source_depth(depth: int, depths_source: int, depths_target: int) -> int:
    """A's block for B's block `depth`: round(l (L_A − 1)/(L_B − 1)), halves upwards, as the paper matches layers."""
    if depths_target == 1:
        return depths_source - 1
    return (2 * depth * (depths_source - 1) + depths_target - 1) // (2 * (depths_target - 1))


def pair_sites(source: Iterable[Site], target: Iterable[Site]) -> tuple[Pair, ...]:
    """A partner for every site of B, by role and depth, in B's order.

    Raises:
        PortError: sites of B without a partner, roles of A that nothing takes over, or a bias on one side alone; all
            of them listed.
    """
    source, target = list(source), list(target)
    by_place = {(s.role, s.depth): s for s in source}
    n_source, n_target = (1 + max((s.depth for s in sites if s.depth is not None), default=0)
                          for sites in (source, target))
    pairs, misses = [], []
    for site in target:
        depth = None if site.depth is None else source_depth(site.depth, n_source, n_target)
        partner = by_place.get((site.role, depth))
        if partner is None:
            misses.append(f"{site.name} (target) has no {site.role} in the source")
        elif partner.bias is not None and site.bias is None:
            misses.append(f"{partner.name} (source) has a bias, {site.name} (target) has none")
        else:
            pairs.append(Pair(partner, site))
    taken = {s.role for s in target}
    misses += [f"{s.name} (source) has no {s.role} in the target" for s in source if s.role not in taken]
    if misses:
        raise PortError("layers without a partner: " + "; ".join(misses))
    return tuple(pairs)
