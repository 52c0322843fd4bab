"""Wrong ways to share the work among processes."""

from hf_bico.core import chain, method, ranks
from hf_bico.core.methods import Weighted
from hf_bico.io import workspace
from hf_bico.tasks import batches
from tests.mutants.changes import instead, of_tests, then
from tests.mutants.mutant import Mutant

SHARES = "tests/core/test_shares.py::test_"
SUMS = f"{SHARES}sums_of_shares_are_those_of_all_samples"


def of_some(right):
    """Heirs counted among the pairs of a share alone."""
    return lambda self, pairs, seen, which: right(self, pairs[which], seen, slice(None))


MUTANTS: dict[str, Mutant] = {
    "sums that are not added": of_tests(chain, "summed", lambda right: lambda seen: seen, SUMS),
    "every rank passes all samples": of_tests(chain, "divided", lambda right: lambda batches: batches, SUMS),
    "a rank's sums of none are nothing": of_tests(ranks, "_blank", then(lambda blank: blank and None), SUMS),
    "samples of others have no numbers": of_tests(ranks, "samples_in", instead(0), SUMS),
    "a share of a plan is a plan of its own": of_tests(
        Weighted, "share", of_some, f"{SHARES}heirs_in_other_shares_count"
    ),
    "what others moved is left out": of_tests(
        method, "joined", lambda right: lambda mine: mine, f"{SHARES}what_ranks_moved_is_put_together_in_order[bico]"
    ),
    "a refusal is one rank's own": of_tests(
        ranks.Group,
        "agreed",
        lambda right: lambda self, what, compute: compute(),
        f"{SHARES}what_one_refuses_all_refuse",
    ),
    "ranks work on anything": of_tests(
        ranks, "require_same", instead(None), f"{SHARES}ranks_that_do_not_work_on_the_same_are_refused"
    ),
    "one folder for all shares": of_tests(
        workspace, "here", instead(ranks.ALONE), f"{SHARES}facts_are_those_of_the_first"
    ),
    "a view begins its count anew": of_tests(batches.Batches, "__len__", instead(0), f"{SHARES}views_are_counted_on"),
}
